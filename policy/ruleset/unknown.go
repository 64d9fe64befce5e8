package ruleset

import (
	"slices"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
)

// Unknown is the priority of what nobody knows.
const Unknown = identity.Unknown

// closes says whether the content denies pods. It then denies, too, what is in the cluster and may be any pod, since the
// kernel has no identity for its address.
func (x *content) closes() bool { return x.action == policy.Deny && x.namesPods() }

// unknownRules give the number Unknown to the other end where it is in the cluster, is no node, and has no identity.
func unknownRules(other4, other6 Field) []Rule {
	return []Rule{
		rule(PriorityIsNone{}, isIn(setCluster4, other4), notIn(other4, setNodes4), PriorityUnknown{}),
		rule(PriorityIsNone{}, isIn(setCluster6, other6), notIn(other6, setNodes6), PriorityUnknown{}),
	}
}

// unknownItems is what Unknown adds to the sets of a content that closes: it is a member of all.
func (x *content) unknownItems() []item {
	var items []item
	for _, r := range x.peers {
		items = append(items, r.items(identity.Unknown, nil)...)
		if r.unknown != "" {
			items = append(items, item{r.unknown, exactKey(numberPart(identity.Unknown))})
		}
	}
	return items
}

// close begins to count a content that closes.
func (c *Compiler) close(x *content) {
	if !x.closes() {
		return
	}
	c.closing++
	for _, i := range x.unknownItems() {
		c.want.put(x.prefix+i.set, i.key, Value{})
	}
}

// unclose takes back what close did.
func (c *Compiler) unclose(x *content) {
	if !x.closes() {
		return
	}
	c.closing--
	for _, i := range x.unknownItems() {
		c.want.delete(x.prefix+i.set, i.key)
	}
}

// denying are the chains that deny what is not known: who becomes known may be denied no longer.
func (c *Compiler) denying() map[*chain]struct{} {
	out := map[*chain]struct{}{}
	if c.closing == 0 {
		return out
	}
	for _, ch := range c.chains {
		if slices.ContainsFunc(ch.contents, (*content).closes) {
			out[ch] = struct{}{}
		}
	}
	return out
}

// settleUnknown lets the kernel know the identity of every address while a content closes: one without is unknown.
func (c *Compiler) settleUnknown(changes identity.Changes) {
	all := c.closing > 0
	switch {
	case all != c.namesAll:
		for id := range c.table.Identities() {
			c.dirty.renamed[id] = struct{}{}
		}
	case all:
		for id := range changes.Renumbered {
			c.dirty.renamed[id] = struct{}{}
		}
	}
	c.namesAll = all
}
