package ruleset

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/kithnet/kith/policy"
)

const (
	maxBoxes    = 1024     // addresses with few ports of which each is entered with each port, for one class
	maxAllBoxes = 8 * 1024 // for all classes of a content
)

// grouping is the rules with the same ports while they are brought together.
type grouping struct {
	class
	key   string // the ports
	ports []portRange
	all   []ranged // the addresses
	size  int      // of all addresses with each port
}

// finish makes of what was taken from the rules the lists, the classes, and what each identity adds.
func (b *builder) finish() {
	groups := b.group()
	b.finishPods(groups)
	b.finishBlocks(groups)
	for _, g := range sorted(groups) {
		if g.pods == "" && len(g.all) == 0 {
			continue
		}
		g.open = g.ports
		g.nets = b.addresses(g.all)
		b.classes = append(b.classes, g.class)
	}
	b.content.nets = b.addresses(b.nets)
	if len(b.openings) > 0 {
		b.content.openings = b.ports(b.openings)
	}
}

// group brings the addresses of rules with the same ports together.
func (b *builder) group() map[string]*grouping {
	groups := map[string]*grouping{}
	for _, r := range b.blocks {
		g := groupOf(groups, r.ports)
		g.all = append(g.all, r.ranged)
	}
	for _, g := range groups {
		g.all = []ranged{joined(g.all)}
		g.size = len(g.all[0].ranges) * len(g.ports)
	}
	return groups
}

func groupOf(groups map[string]*grouping, ports []portRange) *grouping {
	ports = mergePorts(slices.Clone(ports))
	key := portsKey(ports)
	if groups[key] == nil {
		groups[key] = &grouping{key: key, ports: ports}
	}
	return groups[key]
}

// portsKey tells ports from others.
func portsKey(ports []portRange) string {
	b := make([]byte, 0, 5*len(ports))
	for _, p := range ports {
		b = append(b, p.protocol, byte(p.first>>8), byte(p.first), byte(p.last>>8), byte(p.last))
	}
	return string(b)
}

func sorted(groups map[string]*grouping) []*grouping {
	out := make([]*grouping, 0, len(groups))
	for _, g := range groups {
		out = append(out, g)
	}
	slices.SortFunc(out, func(a, b *grouping) int { return cmp.Or(cmp.Compare(a.size, b.size), cmp.Compare(a.key, b.key)) })
	return out
}

// finishPods decides for each rule about pods whether its ports are few enough to be entered with each identity.
func (b *builder) finishPods(groups map[string]*grouping) {
	b.bySet = map[*peerSet][]int{}
	for i, r := range b.pods {
		rule := peerRule{sets: r.sets, all: r.all, names: makeNames(r.names)}
		single, wide := singles(r.ranges)
		switch {
		case r.all:
			b.sets[setAny] = struct{}{}
		case len(wide) == 0 && len(single) <= few:
			rule.single = single
		default:
			g := groupOf(groups, r.ranges)
			g.pods = b.setOf(g)
			rule.class = g.pods
			b.sets[g.pods] = struct{}{}
		}
		if !r.all && len(rule.single)+len(rule.names) > 0 {
			b.sets[setPort] = struct{}{}
		}
		if b.action == policy.Deny && !r.all && len(rule.names) > 0 {
			g := groupOf(groups, allOf(rule.names))
			g.pods = b.setOf(g)
			rule.unknown = g.pods
			b.sets[g.pods] = struct{}{}
		}
		b.peers = append(b.peers, rule)
		for _, s := range r.sets {
			b.bySet[s] = append(b.bySet[s], i)
		}
	}
}

// setOf is the set of a class, which no other class of the content has.
func (b *builder) setOf(g *grouping) string {
	if g.pods != "" {
		return g.pods
	}
	for n := 0; ; n++ {
		set := setAny + "." + b.compiler.hash(fmt.Sprintf("%d\n%s", n, g.key))
		if _, taken := b.sets[set]; !taken {
			return set
		}
	}
}

// finishBlocks takes out of the groups the addresses that are few and have few ports: they are entered with each port.
func (b *builder) finishBlocks(groups map[string]*grouping) {
	var boxes []box
	var taken []*grouping
	for _, g := range sorted(groups) {
		if len(g.all) == 0 || len(g.ports) > few || g.size > maxBoxes || len(boxes)+g.size > maxAllBoxes {
			continue
		}
		for _, r := range g.all[0].ranges {
			for _, p := range g.ports {
				boxes = append(boxes, box{r, p})
			}
		}
		taken = append(taken, g)
	}
	cut, ok := disjoint(boxes)
	if !ok {
		return
	}
	for _, g := range taken {
		g.all = nil
	}
	keys := split(cut, func(x box) (netip.Addr, Key) {
		return x.addr.from, intervalKey(rangePart(x.addr), protocolPart(x.port.protocol), portPart(x.port.first, x.port.last))
	})
	b.content.blocks = families{b.list(listBlock4, keys[0]), b.list(listBlock6, keys[1])}
}

// joined is all ranges as one.
func joined(all []ranged) ranged {
	if len(all) == 1 {
		return all[0]
	}
	var ranges []addrRange
	for _, r := range all {
		ranges = append(ranges, r.ranges...)
	}
	return makeRanged(ranges)
}

// addresses are the lists of addresses.
func (b *builder) addresses(all []ranged) families {
	r := joined(all)
	return b.remember("addresses "+r.key, func() families {
		keys := split(r.ranges, func(r addrRange) (netip.Addr, Key) { return r.from, intervalKey(rangePart(r)) })
		return families{b.list(listNet4, keys[0]), b.list(listNet6, keys[1])}
	})
}

// split makes keys, those of each family by themselves.
func split[T any](of []T, key func(T) (netip.Addr, Key)) (keys [2][]Key) {
	for _, x := range of {
		a, k := key(x)
		i := byFamily(a, 0, 1)
		keys[i] = append(keys[i], k)
	}
	return keys
}

// ports is the list of ports.
func (b *builder) ports(ranges []portRange) string {
	ranges = mergePorts(slices.Clone(ranges))
	return b.remember("ports "+portsKey(ranges), func() families {
		var keys []Key
		for _, p := range ranges {
			keys = append(keys, intervalKey(portPart(p.first, p.last), protocolPart(p.protocol)))
		}
		return families{four: b.list(listPorts, keys)}
	}).four
}

// list is a list of the content, none without elements.
func (b *builder) list(kind string, keys []Key) string {
	if len(keys) == 0 {
		return ""
	}
	name := b.compiler.useList(kind, keys, nil)
	b.lists = append(b.lists, name)
	return name
}
