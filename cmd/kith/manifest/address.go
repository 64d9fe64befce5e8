package manifest

import (
	"fmt"
	"net/netip"

	"github.com/kithnet/kith/policy"
)

// addAddresses gives pods without an address one for each family: of their node's pod CIDRs, or else of podCIDRs where
// they belong to no node. It says how many there were.
func (r *reader) addAddresses(podCIDRs []netip.Prefix) int {
	a := addresses{taken: map[netip.Addr]bool{}, next: map[netip.Prefix]netip.Addr{}}
	byNode := map[string][]netip.Prefix{}
	for _, n := range r.cluster.Nodes {
		byNode[n.Name] = n.PodCIDRs
		a.take(n.Addresses)
		a.take(n.Mesh)
	}
	for _, p := range r.pods {
		a.take(p.Addresses)
		a.take(p.hostIPs)
	}
	added := 0
	for i := range r.pods {
		p := &r.pods[i]
		if len(p.Addresses) > 0 || p.host || p.finished {
			continue
		}
		cidrs, nodes := byNode[p.node], []policy.Node(nil)
		if len(cidrs) == 0 {
			cidrs, nodes = podCIDRs, r.cluster.Nodes
		}
		p.Addresses = a.each(cidrs, nodes)
		if p.several {
			p.twin = a.each(cidrs, nodes)
		}
		if len(p.Addresses) == 0 {
			r.mistakes = append(r.mistakes, fmt.Errorf("give pod %s an address: none is left in %v", p.Key(), cidrs))
			return added
		}
		added++
	}
	return added
}

// addresses gives out addresses that nobody has.
type addresses struct {
	taken map[netip.Addr]bool
	next  map[netip.Prefix]netip.Addr
}

func (a *addresses) take(all []netip.Addr) {
	for _, address := range all {
		a.taken[address] = true
	}
}

// each gives an address of each range that has any left.
func (a *addresses) each(cidrs []netip.Prefix, nodes []policy.Node) []netip.Addr {
	var out []netip.Addr
	for _, cidr := range cidrs {
		if address, ok := a.free(cidr, nodes); ok {
			out = append(out, address)
		}
	}
	return out
}

// free is the next address of a range that is in no node's pod CIDR.
func (a *addresses) free(cidr netip.Prefix, nodes []policy.Node) (netip.Addr, bool) {
	address, begun := a.next[cidr]
	if !begun {
		address = cidr.Masked().Addr().Next()
	}
	for cidr.Contains(address) {
		switch end, inside := nodeRange(address, nodes); {
		case inside:
			address = end.Next()
		case a.taken[address]:
			address = address.Next()
		default:
			a.taken[address] = true
			a.next[cidr] = address.Next()
			return address, true
		}
	}
	a.next[cidr] = address
	return netip.Addr{}, false
}

// nodeRange is the last address of the pod CIDR that an address lies in.
func nodeRange(a netip.Addr, nodes []policy.Node) (netip.Addr, bool) {
	for _, n := range nodes {
		for _, cidr := range n.PodCIDRs {
			if cidr.Contains(a) {
				return last(cidr), true
			}
		}
	}
	return netip.Addr{}, false
}

func last(cidr netip.Prefix) netip.Addr {
	b := cidr.Masked().Addr().AsSlice()
	for bit := cidr.Bits(); bit < len(b)*8; bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
