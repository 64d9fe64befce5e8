package ipam

import (
	"fmt"
	"math"
	"net/netip"
	"strings"
)

// maxFreed is how many freed addresses of a family wait while others were never used. More, and the
// one freed longest ago comes before the next never used one.
const maxFreed = 1024

// family is the CIDRs of one address family, in the order they are used up.
type family struct {
	name   string
	ranges []addressRange
}

// addressRange is the usable addresses of a CIDR.
type addressRange struct {
	cidr netip.Prefix
	// cursor is the next address to look at for one never used; all before it were seen.
	cursor netip.Addr
}

func newFamilies(cidrs []netip.Prefix) (v4, v6 family, err error) {
	v4, v6 = family{name: "IPv4"}, family{name: "IPv6"}
	for i, p := range cidrs {
		if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() {
			return family{}, family{}, fmt.Errorf("pod CIDR %s: not a network", p)
		}
		for _, other := range cidrs[:i] {
			if p.Overlaps(other) {
				return family{}, family{}, fmt.Errorf("pod CIDR %s: overlaps %s", p, other)
			}
		}
		f := &v6
		if p.Addr().Is4() {
			f = &v4
		}
		f.ranges = append(f.ranges, addressRange{cidr: p, cursor: first(p)})
	}
	return v4, v6, nil
}

// first returns the first address that pods may have: the CIDR's own and the node's mesh address,
// which is the one after it, come before.
func first(p netip.Prefix) netip.Addr { return p.Addr().Next().Next() }

// holds says whether pods may have this address.
func (r addressRange) holds(addr netip.Addr) bool {
	if !addr.IsValid() || !r.cidr.Contains(addr) || addr.Less(first(r.cidr)) {
		return false
	}
	broadcast := addr.Is4() && !r.cidr.Contains(addr.Next())
	return !broadcast
}

// next returns the address to use next.
func (f *family) next(st *state) (netip.Addr, bool) {
	freed, waiting := f.oldestFreed(st)
	if waiting > maxFreed {
		return freed, true
	}
	for i := range f.ranges {
		if addr, ok := f.ranges[i].neverUsed(st); ok {
			return addr, true
		}
	}
	return freed, waiting > 0
}

// oldestFreed returns the address freed longest ago, and how many wait.
func (f *family) oldestFreed(st *state) (oldest netip.Addr, waiting int) {
	for _, addr := range st.freed.order {
		if !f.holds(addr) {
			continue
		}
		if waiting == 0 {
			oldest = addr
		}
		waiting++
	}
	return oldest, waiting
}

func (f *family) holds(addr netip.Addr) bool {
	for _, r := range f.ranges {
		if r.holds(addr) {
			return true
		}
	}
	return false
}

func (r *addressRange) neverUsed(st *state) (netip.Addr, bool) {
	for r.holds(r.cursor) {
		if !st.seen(r.cursor) {
			return r.cursor, true
		}
		r.cursor = r.cursor.Next()
	}
	return netip.Addr{}, false
}

// usage returns the family's CIDRs and how many of their addresses are in use.
func (f *family) usage(st *state) string {
	parts := make([]string, len(f.ranges))
	for i, r := range f.ranges {
		used := 0
		for addr := range st.used {
			if r.holds(addr) {
				used++
			}
		}
		parts[i] = fmt.Sprintf("%s (%d of %s in use)", r.cidr, used, r.size())
	}
	return f.name + " " + strings.Join(parts, ", ")
}

func (r addressRange) size() string {
	bits := r.cidr.Addr().BitLen() - r.cidr.Bits()
	if bits >= 63 {
		return fmt.Sprintf("2^%d", bits)
	}
	reserved := int64(2)
	if r.cidr.Addr().Is4() {
		reserved = 3
	}
	return fmt.Sprint(max(0, int64(math.Exp2(float64(bits)))-reserved))
}
