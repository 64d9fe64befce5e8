package cni

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// kept is an attachment that is complete, and its host side as it must be.
func kept() (Attachment, HostSide) {
	a := NewAttachment(Request{Key: Key{ContainerID: "c", IfName: "eth0"}, Pod: Pod{Namespace: "ns", Name: "a"}}, 1420)
	a.Complete = true
	a.Addresses = []netip.Addr{netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("fd00::2")}
	side := HostSide{Up: true, MAC: a.HostMAC, Settings: map[string]string{}, Routes: map[netip.Addr]bool{}, Neighbours: map[netip.Addr]MAC{}}
	for _, s := range a.HostSettings() {
		side.Settings[s.Path(a.HostInterface)] = s.Value
	}
	for _, addr := range a.Addresses {
		side.Routes[addr], side.Neighbours[addr] = true, a.PodMAC
	}
	return a, side
}

func TestDamages(t *testing.T) {
	v4, v6 := netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("fd00::2")
	tests := map[string]struct {
		damage func(a *Attachment, h *HostSide)
		says   []string
	}{
		"nothing":        {func(*Attachment, *HostSide) {}, nil},
		"down":           {func(_ *Attachment, h *HostSide) { h.Up = false }, []string{"the interface is down"}},
		"mac":            {func(_ *Attachment, h *HostSide) { h.MAC = MAC{2} }, []string{"its hardware address is 02:00:00:00:00:00, not 02:6b:69:74:68:01"}},
		"route":          {func(_ *Attachment, h *HostSide) { delete(h.Routes, v4) }, []string{"the route to 10.1.0.2 is missing"}},
		"neighbour":      {func(_ *Attachment, h *HostSide) { delete(h.Neighbours, v6) }, []string{"the permanent neighbour fd00::2 is missing"}},
		"neighbour's":    {func(_ *Attachment, h *HostSide) { h.Neighbours[v6] = MAC{2} }, []string{"the neighbour fd00::2 has hardware address 02:00:00:00:00:00, not "}},
		"setting":        {func(a *Attachment, h *HostSide) { h.Settings["ipv4/conf/"+a.HostInterface+"/rp_filter"] = "1" }, []string{"rp_filter is 1, not 0"}},
		"systemd's":      {func(a *Attachment, h *HostSide) { h.Settings["ipv4/conf/"+a.HostInterface+"/rp_filter"] = "2" }, nil},
		"no setting":     {func(a *Attachment, h *HostSide) { delete(h.Settings, "ipv6/conf/"+a.HostInterface+"/forwarding") }, []string{"forwarding is missing"}},
		"optional":       {func(a *Attachment, h *HostSide) { delete(h.Settings, "ipv6/conf/"+a.HostInterface+"/accept_ra") }, nil},
		"ADD is running": {func(a *Attachment, h *HostSide) { a.Complete, h.Up = false, false }, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			a, side := kept()
			tt.damage(&a, &side)
			damages := Damages([]Attachment{a}, map[string]HostSide{a.HostInterface: side})
			var got []string
			for _, d := range damages {
				got = append(got, d.Differences...)
			}
			if !slices.EqualFunc(got, tt.says, func(got, want string) bool { return strings.Contains(got, want) }) {
				t.Errorf("got %q, want %q", got, tt.says)
			}
		})
	}
}

func TestHostSideIsGone(t *testing.T) {
	a, _ := kept()
	if got := Damages([]Attachment{a}, nil); len(got) != 1 || !got[0].Gone || len(got[0].Differences) != 0 {
		t.Errorf("got %+v", got)
	}
}

// TestIPv4AloneNeedsNoIPv6Settings: where the kernel has no IPv6, nothing is missing of a pod without.
func TestIPv4AloneNeedsNoIPv6Settings(t *testing.T) {
	a, side := kept()
	a.Addresses = a.Addresses[:1]
	maps.DeleteFunc(side.Settings, func(path, _ string) bool { return strings.HasPrefix(path, "ipv6/") })
	if got := Damages([]Attachment{a}, map[string]HostSide{a.HostInterface: side}); len(got) != 0 {
		t.Errorf("got %+v", got)
	}
}
