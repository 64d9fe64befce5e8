package main

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/kithnet/kith/overlay"
)

// TestMovedNodeFacesTheUnderlay: a node that has moved finds its own address, whatever another says of where it is.
func TestMovedNodeFacesTheUnderlay(t *testing.T) {
	self := testNodes[0]
	source := func(to netip.Addr) (netip.Addr, error) {
		switch {
		case to.IsLoopback():
			return to, nil
		case self.PodCIDRs[0].Overlaps(netip.PrefixFrom(to, 16)): // by the mesh, from this node's address there
			return overlay.MeshAddress(self.PodCIDRs[0]), nil
		case to == netip.MustParseAddr("203.0.113.1"):
			return netip.Addr{}, errors.New("no route")
		}
		return netip.MustParseAddr("192.0.2.77"), nil
	}
	liar := overlay.Node{Name: "n0", InternalIPs: addrs("127.0.0.9", "10.244.2.5", "203.0.113.1", "fd00:2::1")}
	for name, want := range map[string]string{"among others": "192.0.2.77", "alone": ""} {
		nodes := []overlay.Node{liar, self}
		if want != "" {
			nodes = append(nodes, testNodes[1])
		}
		got, ok := facing(nodes, self, overlay.IPv4, source)
		if ok != (want != "") || (ok && got.String() != want) {
			t.Errorf("a liar %s: %s, %t, want %q", name, got, ok, want)
		}
	}
}
