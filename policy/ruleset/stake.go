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
	concerned := c.peers.differing(was, is)
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
	if was != nil && c.isLocal(p.Key()) && c.subjectDiffers(was, is) {
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

// subjectDiffers says whether a subject is under other policies, or has other ports, as the one than as the other. Who is
// under no policy has nothing to lose.
func (c *Compiler) subjectDiffers(was, is *identity.Identity) bool {
	before := c.over(was)
	return len(before) > 0 && (!maps.Equal(before, c.over(is)) || !slices.Equal(was.NamedPorts(), is.NamedPorts()))
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

// differing are the chains that name the one identity otherwise than the other. Either may be nil.
func (x *peerIndex) differing(was, is *identity.Identity) map[*chain]struct{} {
	before, now := x.selecting(was), x.selecting(is)
	out := map[*chain]struct{}{}
	add := func(sets, others map[*peerSet]struct{}) {
		for s := range sets {
			if _, both := others[s]; both {
				continue
			}
			for ch := range s.users {
				out[ch] = struct{}{}
			}
		}
	}
	add(before, now)
	add(now, before)
	return out
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
