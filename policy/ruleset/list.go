package ruleset

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// A list is a set of intervals that never changes: its name is a hash of what it holds. What a rule says of addresses
// and ports is in lists, each of which all rules that say the same share. A rule that comes to say something else gets
// another list, which is full before the rule names it: the kernel takes intervals out of a set so slowly that everybody
// who uses nftables waits, and deletes a set at once.
const (
	listNet4   = "net4_" // addresses
	listNet6   = "net6_"
	listBlock4 = "block4_" // address . protocol . port
	listBlock6 = "block6_"
	listWays   = "ways_"  // port . protocol : chain
	listPorts  = "ports_" // port . protocol: the kernel is slow where many elements begin alike
)

// list is the elements of a list and how many contents have it.
type list struct {
	keys   []Key
	values []Value // none: it is no map
	users  int
}

// families are names of lists: of IPv4 addresses and of IPv6 addresses. Either may be empty: there is none.
type families struct{ four, six string }

// listSpec is the specification of a list by its name.
func listSpec(name string) (SetSpec, bool) {
	s := SetSpec{Name: name, Interval: true}
	kind, _, _ := strings.Cut(name, "_")
	switch kind + "_" {
	case listNet4:
		s.Key = []Type{TypeIPv4Addr}
	case listNet6:
		s.Key = []Type{TypeIPv6Addr}
	case listBlock4:
		s.Key = []Type{TypeIPv4Addr, TypeInetProto, TypeInetService}
	case listBlock6:
		s.Key = []Type{TypeIPv6Addr, TypeInetProto, TypeInetService}
	case listPorts:
		s.Key = []Type{TypeInetService, TypeInetProto}
	case listWays:
		s.Key, s.Data = []Type{TypeInetService, TypeInetProto}, TypeVerdict
	default:
		return SetSpec{}, false
	}
	return s, true
}

// Listed says that the element is of a list: whatever rule names the list means this element.
func (c ElementChange) Listed() bool {
	for _, kind := range [...]string{listNet4, listNet6, listBlock4, listBlock6, listPorts, listWays} {
		if strings.HasPrefix(c.Set, kind) {
			return true
		}
	}
	return false
}

// hash128 is the hash that names are made of.
func hash128(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:16])
}

// useList finds or makes the list of a kind with these elements, which must be sorted, and returns its name. Two lists of
// which the hash is the same do not share a name.
func (c *Compiler) useList(kind string, keys []Key, values []Value) string {
	var b strings.Builder
	for _, k := range keys {
		b.WriteString(k.Low)
		b.WriteString(k.High)
	}
	for _, v := range values {
		fmt.Fprintln(&b, v.Verdict)
	}
	name := kind + c.hash(b.String())
	for n := 1; c.lists[name] != nil && !(slices.Equal(c.lists[name].keys, keys) && slices.Equal(c.lists[name].values, values)); n++ {
		name = kind + c.hash(fmt.Sprintf("%d\n%s", n, b.String()))
	}
	if c.lists[name] == nil {
		c.lists[name] = &list{keys: keys, values: values}
		spec, _ := listSpec(name)
		c.want.putSet(spec)
		for i, k := range keys {
			var v Value
			if values != nil {
				v = values[i]
			}
			c.want.put(name, k, v)
		}
	}
	c.lists[name].users++
	return name
}

// leaveList lets go of a list. It stays until the end of settle, because another content may want it.
func (c *Compiler) leaveList(name string) {
	l := c.lists[name]
	if l.users--; l.users == 0 {
		c.dirty.idle[name] = struct{}{}
	}
}

// dropLists deletes the lists that no content has.
func (c *Compiler) dropLists() {
	for name := range c.dirty.idle {
		if l := c.lists[name]; l != nil && l.users == 0 {
			c.want.deleteSet(name)
			delete(c.lists, name)
		}
	}
}
