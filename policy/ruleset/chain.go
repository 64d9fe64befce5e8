package ruleset

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
)

// chain is the policies that isolate some local pods in one direction. All pods under the same policies share it, as
// long as their own port names mean the same.
type chain struct {
	name      string
	direction policy.Direction
	policies  []policy.Name // sorted
	resolved  resolution
	users     int // attachments
	content   content
	named     map[netip.Addr][]item // what namedItems gave
}

// addrPod is an address and whose it is.
type addrPod struct {
	addr     netip.Addr
	identity *identity.Identity
}

// naming is an identity that some chain names, and so one that the kernel must know.
type naming struct {
	number uint32
	chains int
}

func chainName(d policy.Direction, policies []policy.Name, r resolution) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", d)
	for _, p := range policies {
		fmt.Fprintf(&b, "%s\n", p)
	}
	b.WriteString(r.String())
	sum := sha256.Sum256([]byte(b.String()))
	return fmt.Sprintf("%s_%x", map[policy.Direction]string{policy.Ingress: "in", policy.Egress: "eg"}[d], sum[:8])
}

// acquire finds or makes the chain for a subject, nil when no policy isolates it.
func (c *Compiler) acquire(d policy.Direction, subject *identity.Identity) *chain {
	isolating := c.isolating(d, subject)
	if len(isolating) == 0 {
		return nil
	}
	names := make([]policy.Name, len(isolating))
	for i, p := range isolating {
		names[i] = p.Key()
	}
	var r resolution
	if d == policy.Ingress {
		r = resolve(subject, isolating)
	}
	name := chainName(d, names, r)
	ch := c.chains[name]
	if ch == nil {
		ch = &chain{name: name, direction: d, policies: names, resolved: r}
		c.chains[name] = ch
		for _, p := range names {
			c.chainsOf[p] = append(c.chainsOf[p], ch)
		}
		c.install(ch, c.build(ch))
	}
	ch.users++
	return ch
}

// isolating is the policies that isolate a pod in a direction, by name.
func (c *Compiler) isolating(d policy.Direction, subject *identity.Identity) []policy.Policy {
	var out []policy.Policy
	for name := range c.policiesIn[subject.Namespace()] {
		if p := c.policies[name]; p.In(d) != nil && selects(p.Subject, subject.Labels()) {
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
	old := ch.content
	c.empty(ch)
	for set := range old.sets {
		c.want.deleteSet(ch.name + set)
	}
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
	old, fresh := ch.content, c.build(ch)
	c.empty(ch)
	c.install(ch, fresh)
	for set := range old.sets {
		if _, still := ch.content.sets[set]; !still {
			c.want.deleteSet(ch.name + set)
		}
	}
}

// install puts a chain with all it needs into the ruleset.
func (c *Compiler) install(ch *chain, fresh content) {
	ch.content = fresh
	for set := range ch.content.sets {
		c.want.putSet(specOf(ch.name, set))
	}
	for _, i := range ch.content.fixed {
		c.want.put(ch.name+i.set, i.key, Value{})
	}
	for id := range ch.content.members() {
		c.contribute(ch, id)
	}
	if len(ch.content.named) > 0 {
		c.byAddress[ch] = struct{}{}
		ch.named = map[netip.Addr][]item{}
		for id := range c.table.Identities() {
			for a := range c.table.Addresses(id) {
				c.name(ch, addrPod{a, id})
			}
		}
	}
	c.want.putChain(Chain{ChainSpec{Name: ch.name}, ch.rules()})
}

// empty takes out of the ruleset what install put there, but for the sets and the chain themselves.
func (c *Compiler) empty(ch *chain) {
	for id := range ch.content.members() {
		c.withdraw(ch, id)
	}
	for _, i := range ch.content.fixed {
		c.want.delete(ch.name+i.set, i.key)
	}
	for a := range ch.named {
		c.unname(ch, a)
	}
	delete(c.byAddress, ch)
	for _, r := range ch.content.peers {
		c.leaveAll(r.sets, ch)
	}
}

// members are the identities that the content names.
func (c *content) members() map[*identity.Identity]struct{} {
	out := map[*identity.Identity]struct{}{}
	for _, r := range c.peers {
		for _, s := range r.sets {
			maps.Copy(out, s.members)
		}
	}
	return out
}

// contribute adds what an identity adds to a chain, and makes the identity known to the kernel.
func (c *Compiler) contribute(ch *chain, id *identity.Identity) {
	n := c.names[id]
	if n == nil {
		n = &naming{number: c.table.Number(id)}
	}
	items := ch.content.items(id, n.number)
	if len(items) == 0 {
		return
	}
	if n.chains++; n.chains == 1 {
		c.names[id] = n
		c.dirty.renamed[id] = struct{}{}
	}
	for _, i := range items {
		c.want.put(ch.name+i.set, i.key, Value{})
	}
}

// withdraw takes away what contribute added.
func (c *Compiler) withdraw(ch *chain, id *identity.Identity) {
	n := c.names[id]
	if n == nil {
		return
	}
	items := ch.content.items(id, n.number)
	if len(items) == 0 {
		return
	}
	if n.chains--; n.chains == 0 {
		delete(c.names, id)
		c.dirty.renamed[id] = struct{}{}
	}
	for _, i := range items {
		c.want.delete(ch.name+i.set, i.key)
	}
}

func (c *Compiler) name(ch *chain, p addrPod) {
	items := ch.content.namedItems(p)
	if len(items) == 0 {
		return
	}
	ch.named[p.addr] = items
	for _, i := range items {
		c.want.put(ch.name+i.set, i.key, Value{})
	}
}

func (c *Compiler) unname(ch *chain, a netip.Addr) {
	for _, i := range ch.named[a] {
		c.want.delete(ch.name+i.set, i.key)
	}
	delete(ch.named, a)
}
