package ruleset

import (
	"fmt"
	"slices"
	"strings"

	"github.com/kithnet/kith/policy"
)

// run is rules of one action that stand next to each other: among themselves their order does not matter.
type run struct {
	action policy.Action
	rules  []ruleOf
}

type ruleOf struct {
	policy policy.Policy
	rule   policy.Rule
}

// runs cuts a chain's rules, in the order in which they are asked, where the action changes. The rules of all
// NetworkPolicies are one run, also if there is none in it.
func (c *Compiler) runs(ch *chain) []run {
	policies := make([]policy.Policy, len(ch.policies))
	for i, name := range ch.policies {
		policies[i] = c.policies[name]
	}
	slices.SortFunc(policies, policy.Policy.Compare)
	var out []run
	if ch.tier == policy.NetworkPolicy {
		out = append(out, run{})
	}
	for _, p := range policies {
		for _, r := range *p.In(ch.direction) {
			if ch.tier != policy.NetworkPolicy {
				if idle(r) {
					continue
				}
				if len(out) == 0 || out[len(out)-1].action != r.Action {
					out = append(out, run{action: r.Action})
				}
			}
			out[len(out)-1].rules = append(out[len(out)-1].rules, ruleOf{p, r})
		}
	}
	return out
}

// idle says that a rule matches nothing.
func idle(r policy.Rule) bool {
	return !r.AllPeers && len(r.Peers) == 0 || !r.AllPorts && len(r.Ports) == 0
}

// text is what the rules say of pods, and where named ports are looked for. Sets that bear a hash of it in their name never
// change what they stand for: a changed policy fills new ones before its chain's rules change.
func (g run) text(named []namedBlock) string {
	var b strings.Builder
	for _, r := range g.rules {
		if !r.rule.AllPeers && !slices.ContainsFunc(r.rule.Peers, policy.Peer.OfPods) && len(named) == 0 {
			continue
		}
		for _, p := range r.rule.Peers {
			if p.OfPods() {
				fmt.Fprintf(&b, "%t %s\n%s\n", p.OwnNamespace, selectorName(p.Namespaces), selectorName(p.Pods))
			}
		}
		fmt.Fprintf(&b, "%t %t %v\n", r.rule.AllPeers, r.rule.AllPorts, r.rule.Ports)
	}
	for _, n := range named {
		fmt.Fprintf(&b, "%x\n", rangesKey(n.ranges))
	}
	return b.String()
}

// Restrains says that the element is of a set whose rules deny, or pass to those who may: it must be in the kernel before
// what it is about, and go after it.
func (c ElementChange) Restrains() bool {
	return strings.Contains(c.Set, "_"+actionName(policy.Deny)+"_") || strings.Contains(c.Set, "_"+actionName(policy.Pass)+"_")
}

// Decides says that the set is one chain's, whose rules accept or deny what is in it: they never pass it on.
func (s SetSpec) Decides() bool {
	if strings.Contains(s.Name, "_"+actionName(policy.Pass)+"_") {
		return false
	}
	for _, title := range [...]string{"in_", "eg_", "admin_in_", "admin_eg_", "baseline_in_", "baseline_eg_"} {
		if strings.HasPrefix(s.Name, title) {
			return true
		}
	}
	return false
}

func actionName(a policy.Action) string { return [...]string{"accept", "deny", "pass"}[a] }
