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

// The sets of identities that a chain may have, by the end of their name. They change with the pods of the cluster, and so
// have no intervals.
const (
	setAny   = "_any"   // identity, for rules without ports; with a hash of ports behind it, for those of a class
	setPort  = "_port"  // identity . protocol . port
	setName4 = "_name4" // address . protocol . port: pods in a block that have a port of a name
	setName6 = "_name6"
)

// few is how many ports a rule may have for each of its peers to be entered with each of them. With more, the peers are one
// set and the ports another, and what the policy costs grows with their sum.
const few = 4

// specOf is one of these sets of a chain, without elements.
func specOf(chain, set string) SetSpec {
	s := SetSpec{Name: chain + set, Key: []Type{TypeClassID}}
	switch set {
	case setPort:
		s.Key = []Type{TypeClassID, TypeInetProto, TypeInetService}
	case setName4:
		s.Key = []Type{TypeIPv4Addr, TypeInetProto, TypeInetService}
	case setName6:
		s.Key = []Type{TypeIPv6Addr, TypeInetProto, TypeInetService}
	}
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
	text     string        // what the prefix stands for
	open     bool          // some rule matches everything
	peers    []peerRule
	bySet    map[*peerSet][]int // the peers that have a set
	named    []namedBlock
	byName   []domainRule
	depends  bool // on the nodes' addresses
	sets     map[string]struct{}
	inBlock  map[netip.Addr][]item // what namedItems gave

	nets     families // lists for rules without ports
	blocks   families // lists for rules with few addresses and ports
	openings string   // the list of ports for rules without peers; may be empty
	classes  []class
	ways     *ways    // to the classes; none: they are asked for one after the other
	lists    []string // all that it has, one as often as it is used
}

// class is the rules with the same ports, where these are many: a peer and a port are looked up one after the other.
type class struct {
	ports string // the list; empty where there are ways
	pods  string // the set of identities; empty: no peer selects pods
	nets  families
	open  []portRange // the ports
}

// peerRule is rules that name the same pods.
type peerRule struct {
	sets   []*peerSet
	all    bool        // all ports
	single []portRange // each of these ports, and
	class  string      // those of a class, by its set; may be empty, and
	names  nameSet     // what each pod means by these names
	// The set of the class of every port of the names' protocols, where what is not known is denied: nobody knows what its
	// ports are called.
	unknown string
}

// namedBlock matches a named port of the pods that have an address in these ranges, which are sorted.
type namedBlock struct {
	ranges []addrRange
	names  nameSet
}

// build makes a content of a run of rules. It enters the chain as user of the peer sets.
func (c *Compiler) build(ch *chain, g run) *content {
	b := builder{compiler: c, chain: ch, content: content{action: g.action, sets: map[string]struct{}{}}}
	for _, r := range g.rules {
		b.rule(r.policy, r.rule)
		if n := len(b.policies); n == 0 || b.policies[n-1] != r.policy.Key() {
			b.policies = append(b.policies, r.policy.Key())
		}
	}
	if b.open {
		for _, r := range b.pods {
			c.leaveAll(r.sets, ch)
		}
		for _, name := range b.lists {
			c.leaveList(name)
		}
		return &content{action: g.action, policies: b.policies, open: true}
	}
	b.finish()
	b.prefix = ch.name
	if ch.tier != policy.NetworkPolicy {
		b.text = g.text(b.named)
		b.prefix = ch.prefix(g.action, b.text, c.hash)
	}
	b.finishClasses()
	return &b.content
}

// prefix is that of the sets of an action of the chain. Of its contents those share it that say the same.
func (ch *chain) prefix(a policy.Action, text string, hash func(string) string) string {
	for n := 0; ; n++ {
		prefix := fmt.Sprintf("%s_%s_%s", ch.name, actionName(a), hash(fmt.Sprintf("%d\n%s", n, text)))
		if !slices.ContainsFunc(ch.contents, func(x *content) bool { return x.prefix == prefix && x.text != text }) {
			return prefix
		}
	}
}

func (c *Compiler) leaveAll(sets []*peerSet, ch *chain) {
	for _, s := range sets {
		c.peers.leave(s, ch)
	}
}

// builder makes a content of rules. Rules about the same peers become one, and then rules about the same ports.
type builder struct {
	content
	compiler *Compiler
	chain    *chain
	pods     []podRule
	podsOf   map[string]int // in pods, by the peers
	nets     []ranged
	blocks   []blockRule
	blocksOf map[string]int // in blocks, by the addresses
	openings []portRange
}

// podRule is what rules say of some pods.
type podRule struct {
	sets []*peerSet
	ports
}

// blockRule is what rules say of some addresses.
type blockRule struct {
	ranged
	ports []portRange
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
			b.rulePods(p, []policy.Peer{everyone}, withoutRanges(ports))
		}
	default:
		b.rulePods(p, r.Peers, ports)
		b.ruleBlocks(r.Peers, ports)
		b.ruleDomains(r.Peers, ports)
	}
}

func withoutRanges(p ports) ports { return ports{names: p.names} }

// rulePods takes the peers of a rule that select pods.
func (b *builder) rulePods(p policy.Policy, peers []policy.Peer, ports ports) {
	var sets []*peerSet
	for _, peer := range peers {
		if peer.OfPods() {
			sets = append(sets, b.compiler.peers.use(p.Namespace, peer, b.chain, b.compiler.table))
		}
	}
	if len(sets) == 0 {
		return
	}
	slices.SortFunc(sets, func(s, o *peerSet) int { return strings.Compare(s.name, o.name) })
	names := make([]string, len(sets))
	for i, s := range sets {
		names[i] = s.name
	}
	at, known := enter(&b.podsOf, strings.Join(slices.Compact(names), "\n\n"), len(b.pods))
	if !known {
		b.pods = append(b.pods, podRule{sets: sets})
	} else {
		b.compiler.leaveAll(sets, b.chain)
	}
	r := &b.pods[at].ports
	r.all, r.ranges, r.names = r.all || ports.all, append(r.ranges, ports.ranges...), append(r.names, ports.names...)
}

// enter finds the place of a key, or enters one.
func enter(m *map[string]int, key string, at int) (place int, known bool) {
	if *m == nil {
		*m = map[string]int{}
	}
	if place, known = (*m)[key]; !known {
		(*m)[key], place = at, at
	}
	return place, known
}

// ruleBlocks takes the peers of a rule that are addresses.
func (b *builder) ruleBlocks(peers []policy.Peer, ports ports) {
	b.depends = b.depends || slices.ContainsFunc(peers, func(p policy.Peer) bool { return p.Block != nil || p.Nodes != nil })
	r := b.compiler.ranged(peers)
	if len(r.ranges) == 0 {
		return
	}
	if ports.all {
		b.nets = append(b.nets, r)
		return
	}
	if len(ports.ranges) > 0 {
		at, known := enter(&b.blocksOf, r.key, len(b.blocks))
		if !known {
			b.blocks = append(b.blocks, blockRule{ranged: r})
		}
		b.blocks[at].ports = append(b.blocks[at].ports, ports.ranges...)
	}
	if len(ports.names) > 0 {
		b.named = append(b.named, namedBlock{r.ranges, makeNames(ports.names)})
		for _, r := range r.ranges {
			b.sets[byFamily(r.from, setName4, setName6)] = struct{}{}
		}
	}
}

// rangesKey tells ranges from others.
func rangesKey(ranges []addrRange) string {
	b := make([]byte, 0, 33*len(ranges))
	for _, r := range ranges {
		from, to := r.from.As16(), r.to.As16()
		b = append(append(append(b, byte(r.from.BitLen())), from[:]...), to[:]...)
	}
	return string(b)
}

func (r peerRule) selects(id *identity.Identity) bool {
	return slices.ContainsFunc(r.sets, func(s *peerSet) bool { _, ok := s.members[id]; return ok })
}

// selecting are the rules that select an identity. Either all rules are looked at or all sets that have the identity.
func (c *Compiler) selecting(x *content, id *identity.Identity) []int {
	sets := c.peers.of[id]
	var out []int
	if len(x.peers) <= len(sets) {
		for i, r := range x.peers {
			if r.selects(id) {
				out = append(out, i)
			}
		}
		return out
	}
	for _, s := range sets {
		out = append(out, x.bySet[s]...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// items is what an identity under a number adds to the chain's sets. It must be the same when it is taken away, so it
// depends on nothing that changes in between.
func (c *Compiler) items(x *content, id *identity.Identity, number uint32) []item {
	var items []item
	for _, i := range c.selecting(x, id) {
		r := x.peers[i]
		if r.all {
			return r.items(number, nil)
		}
		items = append(items, r.items(number, r.names.in(id))...)
	}
	return items
}

// items is what the rule adds for a number and what its names stand for.
func (r peerRule) items(number uint32, named []portRange) []item {
	if r.all {
		return []item{{setAny, exactKey(numberPart(number))}}
	}
	var items []item
	if r.class != "" {
		items = append(items, item{r.class, exactKey(numberPart(number))})
	}
	for _, p := range slices.Concat(r.single, named) {
		items = append(items, item{setPort, exactKey(numberPart(number), protocolPart(p.protocol), portPart(p.first, p.first))})
	}
	return items
}

// namedItems is what an address with an identity adds: the named ports of a pod that lies in a block.
func (x *content) namedItems(p addrPod) []item {
	var items []item
	for _, b := range x.named {
		if !within(b.ranges, p.addr) {
			continue
		}
		for _, n := range b.names.in(p.identity) {
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
