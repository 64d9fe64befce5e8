package ruleset

import (
	"net/netip"
	"slices"

	"github.com/kithnet/kith/policy"
	"k8s.io/apimachinery/pkg/labels"
)

// addrRange is addresses of one family, both ends included.
type addrRange struct{ from, to netip.Addr }

func prefixRange(p netip.Prefix) addrRange {
	p = p.Masked()
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	to, _ := netip.AddrFromSlice(b)
	return addrRange{p.Addr(), to}
}

func (r addrRange) contains(a netip.Addr) bool {
	return a.BitLen() == r.from.BitLen() && r.from.Compare(a) <= 0 && a.Compare(r.to) <= 0
}

// within says whether one of the ranges, which are sorted and disjoint, contains an address.
func within(rs []addrRange, a netip.Addr) bool {
	i, begins := slices.BinarySearchFunc(rs, a, func(r addrRange, a netip.Addr) int { return r.from.Compare(a) })
	return begins || i > 0 && rs[i-1].contains(a)
}

// mergeRanges sorts, and joins what overlaps or touches: the kernel refuses intervals that overlap.
func mergeRanges(rs []addrRange) []addrRange {
	slices.SortFunc(rs, func(a, b addrRange) int { return a.from.Compare(b.from) })
	var out []addrRange
	for _, r := range rs {
		if n := len(out); n > 0 && touches(out[n-1], r) {
			if out[n-1].to.Less(r.to) {
				out[n-1].to = r.to
			}
			continue
		}
		out = append(out, r)
	}
	return out
}

// touches says that b, which does not begin before a, begins within a or directly after it.
func touches(a, b addrRange) bool {
	if a.to.BitLen() != b.from.BitLen() {
		return false
	}
	next := a.to.Next()
	return !next.IsValid() || b.from.Compare(next) <= 0
}

// subtract takes holes out of a range.
func subtract(r addrRange, holes []addrRange) []addrRange {
	var out []addrRange
	for _, h := range mergeRanges(holes) {
		if h.from.BitLen() != r.from.BitLen() || h.to.Less(r.from) || r.to.Less(h.from) {
			continue
		}
		if r.from.Less(h.from) {
			out = append(out, addrRange{r.from, h.from.Prev()})
		}
		if !h.to.Less(r.to) {
			return out
		}
		r.from = h.to.Next()
	}
	return append(out, r)
}

// nodeRanges is the addresses of the nodes that a peer selects.
func nodeRanges(p policy.Peer, nodes []policy.Node) []addrRange {
	var out []addrRange
	for _, n := range nodes {
		if p.Nodes.Matches(labels.Set(n.Labels)) {
			for _, a := range slices.Concat(n.Addresses, n.Mesh) {
				out = append(out, addrRange{a, a})
			}
		}
	}
	return out
}

// blockRanges is a block without its holes.
func blockRanges(b policy.Block) []addrRange {
	if !b.CIDR.IsValid() {
		return nil
	}
	holes := make([]addrRange, len(b.Except))
	for i, e := range b.Except {
		holes[i] = prefixRange(e)
	}
	return subtract(prefixRange(b.CIDR), holes)
}

// withNodes puts the nodes' mesh addresses into the ranges of blocks, which are merged, or takes them out, as the nodes' own
// addresses are.
func withNodes(blocks []addrRange, nodes []policy.Node) []addrRange {
	var in, out []addrRange
	for _, n := range nodes {
		for _, mesh := range n.Mesh {
			covered, contained := within(blocks, n.Behind(mesh)), within(blocks, mesh)
			switch {
			case covered && !contained:
				in = append(in, addrRange{mesh, mesh})
			case contained && !covered:
				out = append(out, addrRange{mesh, mesh})
			}
		}
	}
	if len(out) == 0 {
		return append(blocks, in...)
	}
	slices.SortFunc(out, func(a, b addrRange) int { return a.from.Compare(b.from) })
	for _, r := range blocks {
		mine := 0
		for mine < len(out) && r.contains(out[mine].from) {
			mine++
		}
		in, out = append(in, subtract(r, out[:mine])...), out[mine:]
	}
	return in
}

// box is addresses and ports of a protocol: an element of an interval set over both.
type box struct {
	addr addrRange
	port portRange
}

// maxOverlap bounds what disjoint makes of boxes that overlap.
const maxOverlap = 1 << 16

// disjoint cuts boxes so that they cover the same and none overlaps another: the kernel refuses such elements, or not,
// depending on their order. The work grows with the square of how much they overlap: it says no where that is too much.
func disjoint(boxes []box) ([]box, bool) {
	var out []box
	work := 0
	for _, proto := range protocolsOf(boxes) {
		for _, six := range []int{32, 128} {
			cut, ok := slabs(slices.DeleteFunc(slices.Clone(boxes), func(b box) bool {
				return b.port.protocol != proto || b.addr.from.BitLen() != six
			}), &work)
			if !ok {
				return nil, false
			}
			out = append(out, cut...)
		}
	}
	return out, true
}

func protocolsOf(boxes []box) []uint8 {
	var ps []uint8
	for _, b := range boxes {
		ps = append(ps, b.port.protocol)
	}
	slices.Sort(ps)
	return slices.Compact(ps)
}

// slabs cuts boxes of one protocol and family at every address at which one of them begins or ends, and joins the
// ports within each slab, then neighbouring slabs with the same ports. It sorts boxes, and counts its work.
func slabs(boxes []box, work *int) ([]box, bool) {
	slices.SortFunc(boxes, func(a, b box) int { return a.addr.from.Compare(b.addr.from) })
	var out, open []box // open: those that the slab at hand is within
	var last []portRange
	first := 0 // in out: where the last slab begins
	for _, r := range cuts(boxes) {
		open = slices.DeleteFunc(open, func(b box) bool { return b.addr.to.Less(r.from) })
		for len(boxes) > 0 && boxes[0].addr.from == r.from {
			open, boxes = append(open, boxes[0]), boxes[1:]
		}
		if *work += len(open); *work > maxOverlap {
			return nil, false
		}
		ports := portsOf(open)
		if len(ports) > 0 && slices.Equal(ports, last) && touches(out[first].addr, r) {
			for i := first; i < len(out); i++ {
				out[i].addr.to = r.to
			}
			continue
		}
		last, first = ports, len(out)
		for _, p := range ports {
			out = append(out, box{r, p})
		}
	}
	return out, true
}

func portsOf(boxes []box) []portRange {
	ports := make([]portRange, len(boxes))
	for i, b := range boxes {
		ports[i] = b.port
	}
	return mergePorts(ports)
}

// cuts is the ranges between the addresses at which boxes begin and end.
func cuts(boxes []box) []addrRange {
	var starts []netip.Addr
	for _, b := range boxes {
		starts = append(starts, b.addr.from)
		if next := b.addr.to.Next(); next.IsValid() {
			starts = append(starts, next)
		}
	}
	slices.SortFunc(starts, netip.Addr.Compare)
	starts = slices.Compact(starts)
	out := make([]addrRange, len(starts))
	for i, s := range starts {
		out[i] = addrRange{s, lastAddr(s)}
		if i+1 < len(starts) {
			out[i].to = starts[i+1].Prev()
		}
	}
	return out
}

func lastAddr(a netip.Addr) netip.Addr {
	p, _ := a.Prefix(0)
	return prefixRange(p).to
}
