package ruleset

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
)

// chain is the policies of one tier that hold for some local pods in one direction. All pods under the same policies
// share it, as long as their own port names mean the same.
type chain struct {
	name      string
	tier      policy.Tier
	direction policy.Direction
	policies  []policy.Name // sorted
	resolved  resolution
	users     int // attachments
	contents  []*content
}

// addrPod is an address and whose it is.
type addrPod struct {
	addr     netip.Addr
	identity *identity.Identity
}

// naming is an identity that some rule names, and so one that the kernel must know.
type naming struct {
	number   uint32
	contents int
}

// title is the beginning of a chain's name.
func (ch *chain) title() string {
	s := [...]string{policy.NetworkPolicy: "", policy.Admin: "admin_", policy.Baseline: "baseline_"}[ch.tier]
	return s + [...]string{policy.Ingress: "in", policy.Egress: "eg"}[ch.direction]
}

// text is all that tells the chain from others of its title.
func (ch *chain) text() string {
	var b strings.Builder
	for _, p := range ch.policies {
		fmt.Fprintf(&b, "%s\n", p)
	}
	b.WriteString(ch.resolved.String())
	return b.String()
}

// nameChain gives a chain its name, or finds the one that is the same. Two chains of which the hash is the same do not
// share a name, nor each other's rules.
func (c *Compiler) nameChain(ch *chain) (known *chain) {
	text := ch.text()
	for n := 0; ; n++ {
		ch.name = fmt.Sprintf("%s_%s", ch.title(), c.hash(fmt.Sprintf("%d\n%s", n, text)))
		known = c.chains[ch.name]
		if known == nil || known.text() == text {
			return known
		}
	}
}

// acquire finds or makes the chain of a tier for a subject, nil when none of its policies holds for it.
func (c *Compiler) acquire(t policy.Tier, d policy.Direction, subject *identity.Identity) *chain {
	holding := c.holding(t, d, subject)
	if len(holding) == 0 {
		return nil
	}
	ch := &chain{tier: t, direction: d}
	for _, p := range holding {
		ch.policies = append(ch.policies, p.Key())
	}
	if d == policy.Ingress {
		ch.resolved = resolve(subject, holding)
	}
	known := c.nameChain(ch)
	if known != nil {
		known.users++
		return known
	}
	c.chains[ch.name] = ch
	for _, p := range ch.policies {
		c.chainsOf[p] = append(c.chainsOf[p], ch)
	}
	c.install(ch)
	ch.users++
	return ch
}

// holding is the policies of a tier that hold for a pod in a direction, by name.
func (c *Compiler) holding(t policy.Tier, d policy.Direction, subject *identity.Identity) []policy.Policy {
	namespace := ""
	if t == policy.NetworkPolicy {
		namespace = subject.Namespace()
	}
	var out []policy.Policy
	for name := range c.policiesIn[namespace] {
		p := c.policies[name]
		if p.Tier == t && p.In(d) != nil && p.Selects(subject.Namespace(), subject.NamespaceLabels(), subject.Labels()) {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b policy.Policy) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// release lets go of a chain. It stays until the end of settle, because another may want it.
func (c *Compiler) release(ch *chain) {
	if ch == nil {
		return
	}
	if ch.users--; ch.users == 0 {
		c.dirty.unused[ch] = struct{}{}
	}
}

// drop takes a chain that nobody uses out of the ruleset.
func (c *Compiler) drop(ch *chain) {
	old := ch.contents
	c.empty(ch)
	c.deleteSets(old)
	c.want.deleteChain(ch.name)
	delete(c.chains, ch.name)
	for _, p := range ch.policies {
		c.chainsOf[p] = slices.DeleteFunc(c.chainsOf[p], func(o *chain) bool { return o == ch })
		if len(c.chainsOf[p]) == 0 {
			delete(c.chainsOf, p)
		}
	}
}

// rebuild makes a chain anew after one of its policies, or the nodes, changed. What stays the same cancels out.
func (c *Compiler) rebuild(ch *chain) {
	old := ch.contents
	c.empty(ch)
	c.install(ch)
	c.deleteSets(old, ch.contents...)
}

// deleteSets deletes the sets of contents that others do not have.
func (c *Compiler) deleteSets(of []*content, others ...*content) {
	for _, x := range of {
		for set := range x.sets {
			if !slices.ContainsFunc(others, func(o *content) bool { _, has := o.sets[set]; return has && o.prefix == x.prefix }) {
				c.want.deleteSet(x.prefix + set)
			}
		}
	}
}

// install puts a chain with all it needs into the ruleset.
func (c *Compiler) install(ch *chain) {
	ch.contents = nil
	for _, g := range c.runs(ch) {
		x := c.build(ch, g)
		ch.contents = append(ch.contents, x)
		c.fill(x)
		if x.open {
			break // nothing gets past it
		}
	}
	c.want.putChain(Chain{ChainSpec{Name: ch.name}, ch.rules()})
	for _, x := range ch.contents {
		for _, way := range x.chains() {
			c.want.putChain(way)
		}
		if len(x.named) > 0 {
			c.byAddress[ch] = struct{}{}
		}
	}
}

func (c *Compiler) fill(x *content) {
	for set := range x.sets {
		c.want.putSet(specOf(x.prefix, set))
	}
	c.learn(x)
	c.close(x)
	for id := range x.members() {
		c.contribute(x, id)
	}
	if len(x.named) > 0 {
		x.inBlock = map[netip.Addr][]item{}
		for id := range c.table.Identities() {
			for a := range c.table.Addresses(id) {
				c.name(x, addrPod{a, id})
			}
		}
	}
}

// empty takes out of the ruleset what install put there, but for the sets and the chain themselves.
func (c *Compiler) empty(ch *chain) {
	for _, x := range ch.contents {
		c.forget(x)
		c.unclose(x)
		for id := range x.members() {
			c.withdraw(x, id)
		}
		for _, name := range x.lists {
			c.leaveList(name)
		}
		for _, way := range x.chains() {
			c.want.deleteChain(way.Name)
		}
		for a := range x.inBlock {
			c.unname(x, a)
		}
		for _, r := range x.peers {
			c.leaveAll(r.sets, ch)
		}
	}
	delete(c.byAddress, ch)
}

// chains are those of the content's ways.
func (x *content) chains() []Chain {
	if x.ways == nil {
		return nil
	}
	return x.ways.chains
}

// members are the identities that the content names.
func (x *content) members() map[*identity.Identity]struct{} {
	out := map[*identity.Identity]struct{}{}
	for _, r := range x.peers {
		for _, s := range r.sets {
			maps.Copy(out, s.members)
		}
	}
	return out
}

// contribute adds what an identity adds to a content, and makes the identity known to the kernel.
func (c *Compiler) contribute(x *content, id *identity.Identity) {
	n := c.names[id]
	if n == nil {
		n = &naming{number: c.table.Number(id)}
	}
	items := c.items(x, id, n.number)
	if len(items) == 0 {
		return
	}
	if n.contents++; n.contents == 1 {
		c.names[id] = n
		c.dirty.renamed[id] = struct{}{}
	}
	for _, i := range items {
		c.want.put(x.prefix+i.set, i.key, Value{})
	}
}

// withdraw takes away what contribute added.
func (c *Compiler) withdraw(x *content, id *identity.Identity) {
	n := c.names[id]
	if n == nil {
		return
	}
	items := c.items(x, id, n.number)
	if len(items) == 0 {
		return
	}
	if n.contents--; n.contents == 0 {
		delete(c.names, id)
		c.dirty.renamed[id] = struct{}{}
	}
	for _, i := range items {
		c.want.delete(x.prefix+i.set, i.key)
	}
}

func (c *Compiler) name(x *content, p addrPod) {
	items := x.namedItems(p)
	if len(items) == 0 {
		return
	}
	x.inBlock[p.addr] = items
	for _, i := range items {
		c.want.put(x.prefix+i.set, i.key, Value{})
	}
}

func (c *Compiler) unname(x *content, a netip.Addr) {
	for _, i := range x.inBlock[a] {
		c.want.delete(x.prefix+i.set, i.key)
	}
	delete(x.inBlock, a)
}
