package overlay

import (
	"net/netip"
	"slices"
)

// grant is a CIDR and the node that holds it.
type grant struct {
	cidr netip.Prefix
	node string
}

// grants are the CIDRs granted so far: disjoint, by address.
type grants struct {
	held []grant
}

func (g *grants) search(addr netip.Addr) int {
	i, _ := slices.BinarySearchFunc(g.held, addr, func(have grant, want netip.Addr) int {
		return have.cidr.Addr().Compare(want)
	})
	return i
}

// holder finds a grant that shares an address with cidr. As grants are disjoint, only
// the neighbours of its first address can.
func (g *grants) holder(cidr netip.Prefix) (grant, bool) {
	i := g.search(cidr.Addr())
	for _, near := range []int{i - 1, i} {
		if near >= 0 && near < len(g.held) && g.held[near].cidr.Overlaps(cidr) {
			return g.held[near], true
		}
	}
	return grant{}, false
}

func (g *grants) add(cidr netip.Prefix, node string) {
	g.held = slices.Insert(g.held, g.search(cidr.Addr()), grant{cidr: cidr, node: node})
}
