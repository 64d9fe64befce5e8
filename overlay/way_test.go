package overlay

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWithin(t *testing.T) {
	want := mesh(t, cluster(), claims(cluster()))
	mtus := func(m Mesh) []int {
		var out []int
		for _, r := range m.Routes {
			out = append(out, r.MTU)
		}
		return out
	}
	// The routes are those of b and c in IPv4, then in IPv6.
	narrow := []Route{{CIDR: want.Routes[1].CIDR, MTU: 1300}, {CIDR: want.Routes[2].CIDR, MTU: 9000}, {CIDR: want.Routes[3].CIDR}}
	for _, test := range []struct {
		name string
		ways map[string]int
		have []Route
		want []int
	}{
		{"nothing known", nil, nil, []int{1440, 1440, 1440, 1440}},
		{"one way is narrow", map[string]int{"b": 1296}, nil, []int{1296, 1440, 1296, 1440}},
		{"wider than the interface", map[string]int{"b": 9000, "c": 1440}, nil, []int{1440, 1440, 1440, 1440}},
		{"narrower than any", map[string]int{"b": 1}, nil, []int{1440, 1440, 1440, 1440}},
		{"no such node", map[string]int{"x": 1296}, nil, []int{1440, 1440, 1440, 1440}},
		{"known before", map[string]int{"b": 1296}, narrow, []int{1296, 1300, 1296, 1440}},
		{"known anew", map[string]int{"c": 1440}, narrow, []int{1440, 1440, 1440, 1440}},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := mtus(want)
			if diff := cmp.Diff(test.want, mtus(want.Within(test.ways, test.have))); diff != "" {
				t.Errorf("MTUs (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(before, mtus(want)); diff != "" {
				t.Errorf("the mesh itself changed:\n%s", diff)
			}
		})
	}
}

func TestFits(t *testing.T) {
	for _, test := range []struct {
		mtu      int
		endpoint string
		want     int
	}{
		{1500, "192.0.2.1:51820", 1440}, {1500, "[2001:db8::1]:51820", 1420}, {1499, "192.0.2.1:51820", 1439},
		{1280, "192.0.2.1:51820", 1216}, {1280, "[2001:db8::1]:51820", 1200}, {100, "192.0.2.1:51820", 576},
	} {
		if got := Fits(test.mtu, netip.MustParseAddrPort(test.endpoint)); got != test.want {
			t.Errorf("%d to %s: %d, want %d", test.mtu, test.endpoint, got, test.want)
		}
	}
}

func TestRemake(t *testing.T) {
	m := mesh(t, cluster(), claims(cluster()))
	golden(t, "peer-remade", m.Remake("b").String())
	if plan := m.Remake("x"); !plan.Empty() {
		t.Errorf("a node without a peer: %s", plan)
	}
}
