package overlay

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestPlans compares the steps for one change each with its golden file.
func TestPlans(t *testing.T) {
	base := func(t *testing.T) Mesh { return mesh(t, cluster(), claims(cluster())) }
	for _, test := range []struct {
		name   string
		change func(nodes []Node) []Node
		claim  func(b *Claim)
		have   func(m *Mesh)
	}{
		{name: "from-nothing", have: func(m *Mesh) { *m = Mesh{} }},
		{name: "device-deleted", have: func(m *Mesh) { *m = Mesh{Unreachable: m.Unreachable} }},
		{name: "process-restarted", have: func(m *Mesh) {
			for i := range m.Lanes {
				l := &m.Lanes[i]
				l.Device, l.Key, l.ListenPort, l.Peers = "", Key{}, 0, nil
			}
		}},
		{name: "set-down", have: func(m *Mesh) { m.Lanes[0].Up, m.Routes = false, nil }},
		{name: "one-device-deleted", have: func(m *Mesh) { m.Lanes[1] = Lane{} }},
		{name: "lane-switched", have: func(m *Mesh) { m.Routes[0].Lane, m.Routes[2].Lane = 1, 1 }},
		{name: "route-doubled", have: func(m *Mesh) {
			second := m.Routes[0]
			second.Lane = 1
			m.Routes = append(m.Routes, second)
		}},
		{name: "preshared-key-agreed", have: func(m *Mesh) { m.Lanes[1].Peers[0].Preshared = Preshared{1} }},
		{name: "own-key-changed", have: func(m *Mesh) { m.Lanes[1].Key = key('O') }},
		{name: "node-added", change: func(n []Node) []Node {
			return append(n, Node{Name: "d", Created: n[2].Created, PodCIDRs: prefixes("10.244.4.0/24"), InternalIPs: addrs("172.18.0.4")})
		}},
		{name: "node-removed", change: func(n []Node) []Node { return n[:2] }},
		{name: "key-changed", claim: func(b *Claim) { b.Keys = keys('n') }},
		{name: "endpoint-changed", claim: func(b *Claim) { b.Endpoints = endpoints("172.18.0.77:51820") }},
		{name: "port-changed", claim: func(b *Claim) { b.Endpoints = endpoints("172.18.0.2:4500") }},
		{name: "cidr-moved", change: func(n []Node) []Node {
			n[1].PodCIDRs, n[2].PodCIDRs = n[1].PodCIDRs[1:], append(n[2].PodCIDRs, n[1].PodCIDRs[0])
			return n
		}},
		{name: "cidr-added", change: func(n []Node) []Node { n[1].PodCIDRs = append(n[1].PodCIDRs, prefixes("10.244.5.0/24")...); return n }},
		{name: "cidr-dropped", change: func(n []Node) []Node { n[1].PodCIDRs = n[1].PodCIDRs[:1]; return n }},
		{name: "cidr-taken-over", change: func(n []Node) []Node {
			n[0].PodCIDRs, n[1].PodCIDRs = append(n[0].PodCIDRs, n[1].PodCIDRs[0]), n[1].PodCIDRs[1:]
			return n
		}},
		{name: "own-cidr-changed", change: func(n []Node) []Node { n[0].PodCIDRs = prefixes("10.244.9.0/24"); return n }},
		{name: "nothing"},
	} {
		t.Run(test.name, func(t *testing.T) {
			have, nodes := base(t), cluster()
			if test.have != nil {
				test.have(&have)
			}
			if test.change != nil {
				nodes = test.change(nodes)
			}
			all := claims(nodes)
			if test.claim != nil {
				test.claim(&all[1])
			}
			golden(t, test.name, Diff(have, mesh(t, nodes, all)).String())
		})
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".plan")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Error(diff)
	}
}
