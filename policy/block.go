package policy

import "net/netip"

// Contains says whether an address lies in the block and in none of its holes.
func (b Block) Contains(a netip.Addr) bool {
	a = a.Unmap()
	if !b.CIDR.Contains(a) {
		return false
	}
	for _, e := range b.Except {
		if e.Contains(a) {
			return false
		}
	}
	return true
}

// CoversNode says whether the block contains one of the node's addresses: then it stands for the node, also where
// the node shows its mesh addresses.
func (b Block) CoversNode(n Node) bool {
	for _, a := range n.Addresses {
		if b.Contains(a) {
			return true
		}
	}
	return false
}
