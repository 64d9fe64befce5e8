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

// Behind returns the address by which blocks decide a mesh address of the node: the first of its own of the same family. A
// mesh address lies in the pods' ranges, of which nobody who writes a block of the nodes' network thinks. A node without an
// address of the family is decided by the mesh address itself.
func (n Node) Behind(mesh netip.Addr) netip.Addr {
	for _, a := range n.Addresses {
		if a.Is4() == mesh.Is4() {
			return a
		}
	}
	return mesh
}
