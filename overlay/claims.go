package overlay

import (
	"net/netip"
	"slices"
)

// claim is a CIDR and the node that holds it.
type claim struct {
	cidr netip.Prefix
	node string
}

// claims are the CIDRs granted so far: disjoint, by address; and the addresses
// that no CIDR may cover.
type claims struct {
	held     []claim
	underlay []netip.Addr
}

func (c *claims) search(addr netip.Addr) int {
	i, _ := slices.BinarySearchFunc(c.held, addr, func(have claim, want netip.Addr) int {
		return have.cidr.Addr().Compare(want)
	})
	return i
}

// holder finds a granted claim that shares an address with cidr. As the granted
// ones are disjoint, only the neighbours of its first address can.
func (c *claims) holder(cidr netip.Prefix) (claim, bool) {
	i := c.search(cidr.Addr())
	for _, near := range []int{i - 1, i} {
		if near >= 0 && near < len(c.held) && c.held[near].cidr.Overlaps(cidr) {
			return c.held[near], true
		}
	}
	return claim{}, false
}

// covered finds a node's underlay address inside cidr.
func (c *claims) covered(cidr netip.Prefix) (netip.Addr, bool) {
	i, _ := slices.BinarySearchFunc(c.underlay, cidr.Addr(), netip.Addr.Compare)
	if i < len(c.underlay) && cidr.Contains(c.underlay[i]) {
		return c.underlay[i], true
	}
	return netip.Addr{}, false
}

func (c *claims) grant(cidr netip.Prefix, node string) {
	c.held = slices.Insert(c.held, c.search(cidr.Addr()), claim{cidr: cidr, node: node})
}
