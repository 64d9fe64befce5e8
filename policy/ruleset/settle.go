package ruleset

import (
	"net/netip"
	"reflect"
	"slices"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
)

func newDirt() dirt {
	return dirt{
		policies: map[policy.Name]*policy.Policy{}, attachments: map[string]struct{}{},
		renamed: map[*identity.Identity]struct{}{}, unused: map[*chain]struct{}{}, idle: map[string]struct{}{}, memo: newMemo(),
	}
}

// settle brings the wanted ruleset up to date with everything that happened. The order matters: identities first,
// so that chains are right before attachments choose among them, and addresses last, when it is known which identities
// any chain names.
func (c *Compiler) settle() {
	changes := c.table.TakeChanges()
	c.settleIdentities(changes)
	stale := c.staleChains()
	c.settleDirt(changes)
	for _, a := range c.dirty.departed {
		c.clear(a)
	}
	c.settleAttachments()
	for ch := range stale {
		if ch.users > 0 {
			c.rebuild(ch)
		}
	}
	for ch := range c.dirty.unused {
		if ch.users == 0 {
			c.drop(ch)
		}
	}
	c.dropLists()
	if c.dirty.network {
		c.fillNetwork()
	}
	c.settleAddresses(changes)
	c.settleLimits()
	c.settleProved()
	c.dirty = newDirt()
}

// settleIdentities takes out what went or has another number before it puts in what came: a number may have moved from
// one to the other.
func (c *Compiler) settleIdentities(changes identity.Changes) {
	for _, ids := range []map[*identity.Identity]struct{}{changes.Gone, changes.Renumbered} {
		for id := range ids {
			c.each(id, c.withdraw)
		}
	}
	for id := range changes.Gone {
		c.peers.disappear(id)
	}
	for id := range changes.Appeared {
		c.peers.appear(id)
	}
	for _, ids := range []map[*identity.Identity]struct{}{changes.Appeared, changes.Renumbered} {
		for id := range ids {
			c.each(id, c.contribute)
		}
	}
}

// each does something with an identity and every content that may name it.
func (c *Compiler) each(id *identity.Identity, do func(*content, *identity.Identity)) {
	for ch := range c.peers.users(id) {
		for _, x := range ch.contents {
			do(x, id)
		}
	}
}

// note remembers a policy as it was before it changed.
func (d *dirt) note(n policy.Name, policies map[policy.Name]policy.Policy) {
	if _, noted := d.policies[n]; noted {
		return
	}
	d.policies[n] = nil
	if was, ok := policies[n]; ok {
		d.policies[n] = &was
	}
}

// manyPolicies is how many that change at once are not looked at one by one.
const manyPolicies = 64

// settleDirt marks the attachments whose pods changed, or of whose policies one.
func (c *Compiler) settleDirt(changes identity.Changes) {
	byNamespace := map[string][]policy.Name{}
	for p := range c.dirty.policies {
		byNamespace[p.Namespace] = append(byNamespace[p.Namespace], p)
	}
	for name, a := range c.attachments {
		_, pod := changes.Pods[a.Pod]
		// A ClusterNetworkPolicy may be for any.
		if pod || c.concerned(a, byNamespace[""]) || c.concerned(a, byNamespace[a.Pod.Namespace]) {
			c.dirty.attachments[name] = struct{}{}
		}
	}
}

// concerned says whether one of the policies, which changed, holds or held for an attachment's pod, or may have.
func (c *Compiler) concerned(a *attached, changed []policy.Name) bool {
	if len(changed) > manyPolicies {
		return true
	}
	subject := c.table.Match(a.Pod, a.UID)
	for _, n := range changed {
		for _, ch := range c.chainsOf[n] {
			if slices.Contains(a.chains(), ch) {
				return true
			}
		}
		p, ok := c.policies[n]
		if ok && subject != nil && p.Selects(subject.Namespace(), subject.NamespaceLabels(), subject.Labels()) {
			return true
		}
	}
	return false
}

// settleAttachments clears all before it attaches any: an address may have gone from one to another of them.
func (c *Compiler) settleAttachments() {
	for name := range c.dirty.attachments {
		if a := c.attachments[name]; a != nil {
			c.clear(a)
		}
	}
	for name := range c.dirty.attachments {
		if a := c.attachments[name]; a != nil {
			c.attach(a)
		}
	}
}

// staleChains are the chains of a policy that changed, and when the nodes changed those with blocks.
func (c *Compiler) staleChains() map[*chain]struct{} {
	stale := map[*chain]struct{}{}
	for n, was := range c.dirty.policies {
		is, there := c.policies[n]
		for _, ch := range c.chainsOf[n] {
			if !there || was == nil || !alike(*was, is, ch.direction) {
				stale[ch] = struct{}{}
			}
		}
	}
	if c.dirty.network {
		for _, ch := range c.chains {
			if slices.ContainsFunc(ch.contents, func(x *content) bool { return x.depends }) {
				stale[ch] = struct{}{}
			}
		}
	}
	return stale
}

// alike says that a policy says the same as before to a chain of a direction.
func alike(was, is policy.Policy, d policy.Direction) bool {
	return was.Tier == is.Tier && was.Priority == is.Priority && reflect.DeepEqual(was.In(d), is.In(d))
}

// settleAddresses tells the kernel the identity of each address that may have another, or whose identity came to be
// named or ceased to be.
func (c *Compiler) settleAddresses(changes identity.Changes) {
	c.settleUnknown(changes)
	for a := range changes.Addresses {
		c.settleAddress(a)
		for ch := range c.byAddress {
			for _, x := range ch.contents {
				c.unname(x, a)
				if id := c.table.Lookup(a); id != nil {
					c.name(x, addrPod{a, id})
				}
			}
		}
	}
	for id := range c.dirty.renamed {
		for a := range c.table.Addresses(id) {
			c.settleAddress(a)
		}
	}
}

func (c *Compiler) settleAddress(a netip.Addr) {
	set := byFamily(a, mapIdentity4, mapIdentity6)
	id := c.table.Lookup(a)
	if id != nil && (c.namesAll || c.names[id] != nil) {
		c.want.put(set, exactKey(addrPart(a)), Value{Priority: c.table.Number(id)})
		return
	}
	c.want.delete(set, exactKey(addrPart(a)))
}
