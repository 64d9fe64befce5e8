package ruleset

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
	"k8s.io/apimachinery/pkg/labels"
)

// The sets that a chain may have, by the end of their name.
const (
	setAny    = "_any"   // identity, for rules without ports
	setPort   = "_port"  // identity . protocol . port
	setRange  = "_range" // the same with intervals
	setNet4   = "_net4"  // addresses with intervals, for rules without ports
	setNet6   = "_net6"
	setBlock4 = "_block4" // address . protocol . port with intervals
	setBlock6 = "_block6"
	setName4  = "_name4" // address . protocol . port: pods in a block that have a port of a name
	setName6  = "_name6"
	setOpen   = "_open" // protocol . port with intervals, for rules without peers
	setTo     = "_to"   // the same for a rule with domain names; its number follows
)

// specOf is one of these sets of a chain, without elements.
func specOf(chain, set string) SetSpec {
	s := SetSpec{Name: chain + set}
	if strings.HasPrefix(set, setTo) {
		set = setOpen
	}
	switch set {
	case setAny:
		s.Key = []Type{TypeClassID}
	case setPort, setRange:
		s.Key = []Type{TypeClassID, TypeInetProto, TypeInetService}
	case setNet4:
		s.Key = []Type{TypeIPv4Addr}
	case setNet6:
		s.Key = []Type{TypeIPv6Addr}
	case setBlock4, setName4:
		s.Key = []Type{TypeIPv4Addr, TypeInetProto, TypeInetService}
	case setBlock6, setName6:
		s.Key = []Type{TypeIPv6Addr, TypeInetProto, TypeInetService}
	case setOpen:
		s.Key = []Type{TypeInetProto, TypeInetService}
	}
	s.Interval = slices.Contains([]string{setRange, setNet4, setNet6, setBlock4, setBlock6, setOpen}, set)
	return s
}

// item is an element of one of a chain's sets.
type item struct {
	set string // one of the names above
	key Key
}

// content is what neighbouring rules of one action in a chain come to, but for the identities that its peers select.
type content struct {
	action   policy.Action
	policies []policy.Name // whose rules they are
	prefix   string        // of its sets' names
	open     bool          // some rule matches everything
	peers    []peerRule
	fixed    []item
	named    []namedBlock
	byName   []domainRule
	blocks   bool // depends on the nodes' addresses
	sets     map[string]struct{}
	inBlock  map[netip.Addr][]item // what namedItems gave
}

// peerRule is a rule that names pods.
type peerRule struct {
	sets  []*peerSet
	ports ports
}

// namedBlock matches a named port of the pods that have an address in these ranges.
type namedBlock struct {
	ranges []addrRange
	names  []portName
}

// builder makes a content of rules.
type builder struct {
	content
	compiler *Compiler
	chain    *chain
	nets     []addrRange
	boxes    []box
	openings []portRange
}

// build makes a content of a run of rules. It enters the chain as user of the peer sets.
func (c *Compiler) build(ch *chain, g run) *content {
	b := builder{compiler: c, chain: ch, content: content{action: g.action, sets: map[string]struct{}{}}}
	for _, r := range g.rules {
		b.rule(r.policy, r.rule)
		if name := r.policy.Key(); !slices.Contains(b.policies, name) {
			b.policies = append(b.policies, name)
		}
	}
	if b.open {
		for _, r := range b.peers {
			c.leaveAll(r.sets, ch)
		}
		return &content{action: g.action, policies: b.policies, open: true}
	}
	b.finish()
	b.prefix = ch.name
	if ch.tier != policy.NetworkPolicy {
		b.prefix = fmt.Sprintf("%s_%s_%s", ch.name, actionName(g.action), g.sum(b.fixed))
	}
	return &b.content
}

func (c *Compiler) leaveAll(sets []*peerSet, ch *chain) {
	for _, s := range sets {
		c.peers.leave(s, ch)
	}
}

func (b *builder) rule(p policy.Policy, r policy.Rule) {
	ports := rulePorts(r, b.chain.resolved)
	switch {
	case !ports.all && len(ports.ranges)+len(ports.names) == 0:
		return
	case r.AllPeers && ports.all:
		b.open = true
	case r.AllPeers:
		b.openings = append(b.openings, ports.ranges...)
		if len(ports.names) > 0 {
			everyone := policy.Peer{Namespaces: labels.Everything(), Pods: labels.Everything()}
			b.pods(p, []policy.Peer{everyone}, withoutRanges(ports))
		}
	default:
		b.pods(p, r.Peers, ports)
		b.block(r.Peers, ports)
		b.domain(r.Peers, ports)
	}
}

func withoutRanges(p ports) ports { return ports{names: p.names} }

// pods takes the peers of a rule that select pods.
func (b *builder) pods(p policy.Policy, peers []policy.Peer, ports ports) {
	rule := peerRule{ports: ports}
	for _, peer := range peers {
		if peer.OfPods() {
			rule.sets = append(rule.sets, b.compiler.peers.use(p.Namespace, peer, b.chain, b.compiler.table))
		}
	}
	if len(rule.sets) == 0 {
		return
	}
	b.peers = append(b.peers, rule)
	single, wide := singles(ports.ranges)
	if ports.all {
		b.sets[setAny] = struct{}{}
	}
	if len(single)+len(ports.names) > 0 {
		b.sets[setPort] = struct{}{}
	}
	if len(wide) > 0 {
		b.sets[setRange] = struct{}{}
	}
}

// block takes the peers of a rule that are addresses.
func (b *builder) block(peers []policy.Peer, ports ports) {
	var ranges []addrRange
	for _, peer := range peers {
		if peer.Block != nil || peer.Nodes != nil {
			b.blocks = true
			ranges = append(ranges, peerRanges(peer, b.compiler.network.Nodes)...)
		}
	}
	if len(ranges) == 0 {
		return
	}
	ranges = mergeRanges(ranges)
	if ports.all {
		b.nets = append(b.nets, ranges...)
		return
	}
	for _, r := range ranges {
		for _, p := range ports.ranges {
			b.boxes = append(b.boxes, box{r, p})
		}
	}
	if len(ports.names) > 0 {
		b.named = append(b.named, namedBlock{ranges, ports.names})
		for _, r := range ranges {
			b.sets[byFamily(r.from, setName4, setName6)] = struct{}{}
		}
	}
}

// finish makes the elements that depend on no identity.
func (b *builder) finish() {
	for _, r := range mergeRanges(b.nets) {
		b.fix(byFamily(r.from, setNet4, setNet6), intervalKey(rangePart(r)))
	}
	for _, x := range disjoint(b.boxes) {
		k := intervalKey(rangePart(x.addr), protocolPart(x.port.protocol), portPart(x.port.first, x.port.last))
		b.fix(byFamily(x.addr.from, setBlock4, setBlock6), k)
	}
	for _, p := range mergePorts(b.openings) {
		b.fix(setOpen, intervalKey(protocolPart(p.protocol), portPart(p.first, p.last)))
	}
}

func (b *builder) fix(set string, k Key) {
	b.fixed = append(b.fixed, item{set, k})
	b.sets[set] = struct{}{}
}

// items is what an identity under a number adds to the chain's sets. It must be the same when it is taken away, so it
// depends on nothing that changes in between.
func (c *content) items(id *identity.Identity, number uint32) []item {
	var open []portRange
	for _, r := range c.peers {
		if !r.selects(id) {
			continue
		}
		if r.ports.all {
			return []item{{setAny, exactKey(numberPart(number))}}
		}
		open = append(open, r.ports.in(id)...)
	}
	return portItems(c, number, open)
}

func (r peerRule) selects(id *identity.Identity) bool {
	return slices.ContainsFunc(r.sets, func(s *peerSet) bool { _, ok := s.members[id]; return ok })
}

// portItems splits by rule, not by what the rules come to together, where that would need a set that the chain does
// not have: named ports never make a range.
func portItems(c *content, number uint32, open []portRange) []item {
	single, wide := singles(open)
	items := make([]item, 0, len(single)+len(wide))
	for _, p := range single {
		items = append(items, item{setPort, exactKey(numberPart(number), protocolPart(p.protocol), portPart(p.first, p.first))})
	}
	for _, p := range wide {
		items = append(items, item{setRange, intervalKey(numberPart(number), protocolPart(p.protocol), portPart(p.first, p.last))})
	}
	return items
}

// namedItems is what an address with an identity adds: the named ports of a pod that lies in a block.
func (c *content) namedItems(p addrPod) []item {
	var items []item
	for _, b := range c.named {
		if !slices.ContainsFunc(b.ranges, func(r addrRange) bool { return r.contains(p.addr) }) {
			continue
		}
		for _, n := range (ports{names: b.names}).in(p.identity) {
			k := exactKey(addrPart(p.addr), protocolPart(n.protocol), portPart(n.first, n.first))
			items = append(items, item{byFamily(p.addr, setName4, setName6), k})
		}
	}
	return items
}

func byFamily[T any](a netip.Addr, v4, v6 T) T {
	if a.Is4() {
		return v4
	}
	return v6
}
