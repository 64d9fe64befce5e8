package ruleset

import (
	"maps"
	"slices"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
)

// Stake is whose policies decide whether a change of labels opens what it would not open if all that was said before it
// were known: the NetworkPolicies of these namespaces, and every ClusterNetworkPolicy.
type Stake struct {
	Namespaces []string // sorted
}

// PodStake says whether a pod with these labels and ports, instead of those that are known of it, may be allowed more by
// the policies of this node's pods, as far as they are known. It may say yes where nothing opens, but never no where
// something does.
func (c *Compiler) PodStake(p identity.Pod) (Stake, bool) {
	is := c.table.Imagine(p)
	// Without its namespace a pod has no identity. What the namespace brings is NamespaceStake's.
	if is == nil || c.table.SameLabels(p) {
		return Stake{}, false
	}
	c.settleChains()
	was := c.table.Match(p.Key(), p.UID)
	concerned := c.peers.opening(was, is)
	if len(is.NamedPorts()) > 0 {
		maps.Copy(concerned, c.byAddress)
	}
	if was == nil {
		maps.Copy(concerned, c.denying())
	}
	spaces := map[string]struct{}{}
	for ch := range concerned {
		ch.spaces(spaces)
	}
	at := len(concerned) > 0
	if was != nil && c.isLocal(p.Key()) && c.subjectOpens(was, is) {
		spaces[p.Namespace], at = struct{}{}, true
	}
	return Stake{slices.Sorted(maps.Keys(spaces))}, at
}

// NamespaceStake says the same of a namespace's labels.
func (c *Compiler) NamespaceStake(n identity.Namespace) (Stake, bool) {
	if c.table.SameNamespace(n) {
		return Stake{}, false
	}
	c.settleChains()
	spaces := map[string]struct{}{}
	for _, ch := range c.chains {
		ch.spaces(spaces)
	}
	return Stake{slices.Sorted(maps.Keys(spaces))}, len(c.chains) > 0
}

// SameLabels says whether a pod with these labels and ports is known.
func (c *Compiler) SameLabels(p identity.Pod) bool { return c.table.SameLabels(p) }

// Known is what is known of a pod but for its addresses.
func (c *Compiler) Known(k identity.PodKey) (identity.Pod, bool) { return c.table.Known(k) }

// KnownNamespace is what is known of a namespace.
func (c *Compiler) KnownNamespace(name string) (identity.Namespace, bool) {
	return c.table.KnownNamespace(name)
}

// settleChains makes the chains those of the policies and attachments that are known.
func (c *Compiler) settleChains() {
	if d := c.dirty; len(d.policies) > 0 || len(d.attachments) > 0 || len(d.departed) > 0 {
		c.settle()
	}
}

// spaces enters the namespaces of a chain's policies.
func (ch *chain) spaces(in map[string]struct{}) {
	for _, p := range ch.policies {
		if ch.tier == policy.NetworkPolicy {
			in[p.Namespace] = struct{}{}
		}
	}
}

func (c *Compiler) isLocal(k identity.PodKey) bool {
	for _, a := range c.attachments {
		if a.Pod == k {
			return true
		}
	}
	return false
}

// subjectOpens says whether a subject may be allowed more as the one than as the other: it is under one policy less, or under
// one more that accepts or passes on what those that it was under did not, or has other ports. Who is under no policy has
// nothing to lose.
func (c *Compiler) subjectOpens(was, is *identity.Identity) bool {
	before, now := c.over(was), c.over(is)
	if len(before) == 0 {
		return false
	}
	for n := range before {
		if _, still := now[n]; !still {
			return true
		}
	}
	for n := range now {
		if _, already := before[n]; !already && c.mayAllow(c.policies[n], before) {
			return true
		}
	}
	return !slices.Equal(was.NamedPorts(), is.NamedPorts())
}

// mayAllow says whether a policy may allow something that others, which hold, do not. A NetworkPolicy adds to others of its
// direction, and is asked instead of the Baseline tier.
func (c *Compiler) mayAllow(p policy.Policy, others map[policy.Name]struct{}) bool {
	for _, d := range []policy.Direction{policy.Ingress, policy.Egress} {
		switch {
		case p.In(d) == nil:
		case p.Tier != policy.NetworkPolicy:
			if slices.ContainsFunc(*p.In(d), func(r policy.Rule) bool { return r.Action != policy.Deny }) {
				return true
			}
		default:
			for n := range others {
				if o := c.policies[n]; o.Tier != policy.Admin && o.In(d) != nil {
					return true
				}
			}
		}
	}
	return false
}

// over is the policies that hold for a pod.
func (c *Compiler) over(subject *identity.Identity) map[policy.Name]struct{} {
	out := map[policy.Name]struct{}{}
	for _, t := range []policy.Tier{policy.Admin, policy.NetworkPolicy, policy.Baseline} {
		for _, d := range []policy.Direction{policy.Ingress, policy.Egress} {
			for _, p := range c.holding(t, d, subject) {
				out[p.Key()] = struct{}{}
			}
		}
	}
	return out
}

// opening are the chains that may allow the one identity less than the other. Either may be nil.
func (x *peerIndex) opening(was, is *identity.Identity) map[*chain]struct{} {
	before, now := x.selecting(was), x.selecting(is)
	out := map[*chain]struct{}{}
	add := func(sets, others map[*peerSet]struct{}, but policy.Action) {
		for s := range sets {
			if _, both := others[s]; both {
				continue
			}
			for ch := range s.users {
				if ch.names(s, but) {
					out[ch] = struct{}{}
				}
			}
		}
	}
	if was != nil && is != nil && !slices.Equal(was.NamedPorts(), is.NamedPorts()) {
		// What names ports means something else, though it selects both.
		add(before, nil, policy.Accept)
		add(now, nil, policy.Deny)
		return out
	}
	add(before, now, policy.Accept) // who is accepted no longer is not allowed more
	add(now, before, policy.Deny)   // nor is who is denied from now on
	return out
}

// names says whether a content of the chain that is for something else than an action has a set.
func (ch *chain) names(s *peerSet, but policy.Action) bool {
	return slices.ContainsFunc(ch.contents, func(x *content) bool { _, has := x.bySet[s]; return has && x.action != but })
}

// selecting are the sets that an identity belongs to, or would belong to.
func (x *peerIndex) selecting(id *identity.Identity) map[*peerSet]struct{} {
	out := map[*peerSet]struct{}{}
	if id == nil {
		return out
	}
	for s := range x.candidates(id) {
		if s.selects(id) {
			out[s] = struct{}{}
		}
	}
	return out
}
