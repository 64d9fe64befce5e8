package main

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/kithnet/kith/policy/ruleset"
)

// vacated remembers the pod CIDRs of Nodes that are gone. Pods, and the endpoints of Services, outlive their Node by
// minutes: what is sent to them must not take the way out behind this node's address, in clear. So their CIDRs stay the
// cluster's for an hour, or until a Node has them anew.
type vacated struct {
	held []netip.Prefix // by Nodes, as told last
	gone []vacancy      // the first to go first
}

type vacancy struct {
	cidr  netip.Prefix
	since time.Time
}

const (
	vacatedFor = time.Hour
	maxVacated = 4096
)

// keep returns the network with the CIDRs that Nodes have had and have no more, as long as those fit: one that was
// granted before it was known whose it is does not stay.
func (v *vacated) keep(n ruleset.Network, now time.Time, fits func(netip.Prefix) bool) ruleset.Network {
	var held []netip.Prefix
	for _, node := range n.Nodes {
		held = append(held, node.PodCIDRs...)
	}
	has := prefixSet(held)
	for _, cidr := range v.held {
		if !has[cidr] {
			v.gone = append(v.gone, vacancy{cidr, now})
		}
	}
	v.gone = slices.DeleteFunc(v.gone, func(g vacancy) bool {
		return has[g.cidr] || now.Sub(g.since) >= vacatedFor || !fits(g.cidr)
	})
	v.gone = v.gone[max(0, len(v.gone)-maxVacated):]
	v.held = held
	n.Vacated = nil
	for _, g := range v.gone {
		n.Vacated = append(n.Vacated, g.cidr)
	}
	slices.SortFunc(n.Vacated, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	return n
}

func prefixSet(all []netip.Prefix) map[netip.Prefix]bool {
	set := make(map[netip.Prefix]bool, len(all))
	for _, p := range all {
		set[p] = true
	}
	return set
}
