package ruleset

import (
	"maps"
	"testing"

	"github.com/kithnet/kith/policy"
	"k8s.io/apimachinery/pkg/labels"
)

// TestOnePolicyMore: a pod that is isolated gets a label by which one more policy is for it. That is at stake unless this one
// can only deny: a quarantine by a label waits for nobody.
func TestOnePolicyMore(t *testing.T) {
	everyone := policy.Peer{Namespaces: labels.Everything(), Pods: labels.Everything()}
	act := func(a policy.Action) *policy.Rules {
		return isolate(policy.Rule{Action: a, Peers: []policy.Peer{everyone}, AllPorts: true})
	}
	over := func(rules *policy.Rules) policy.Policy {
		return policy.Policy{Name: "more", Namespaces: labels.Everything(), Subject: selector(t, "more"), Tier: policy.Admin, Ingress: rules}
	}
	for name, c := range map[string]struct {
		before, more policy.Policy
		want         bool
	}{
		"of the same direction":          {policy.Policy{Ingress: isolate()}, policy.Policy{Namespace: "coffee", Name: "more", Subject: selector(t, "more"), Ingress: act(policy.Accept)}, true},
		"of the other direction":         {policy.Policy{Ingress: isolate()}, policy.Policy{Namespace: "coffee", Name: "more", Subject: selector(t, "more"), Egress: act(policy.Accept)}, false},
		"instead of the Baseline tier":   {policy.Policy{Tier: policy.Baseline, Namespaces: labels.Everything(), Ingress: act(policy.Deny)}, policy.Policy{Namespace: "coffee", Name: "more", Subject: selector(t, "more"), Ingress: isolate()}, true},
		"of the Admin tier, that denies": {policy.Policy{Ingress: isolate()}, over(act(policy.Deny)), false},
		"that accepts":                   {policy.Policy{Ingress: isolate()}, over(act(policy.Accept)), true},
		"that passes on":                 {policy.Policy{Tier: policy.Baseline, Namespaces: labels.Everything(), Ingress: act(policy.Deny)}, over(act(policy.Pass)), true},
	} {
		t.Run(name, func(t *testing.T) {
			in := coffee()
			c.before.Name, c.before.Subject = "before", labels.Everything()
			if c.before.Tier == policy.NetworkPolicy {
				c.before.Namespace = "coffee"
			}
			in.Policies = []policy.Policy{c.before, c.more}
			p := in.Pods[1]
			p.Labels = maps.Clone(p.Labels)
			p.Labels["more"] = "yes"
			if _, got := CompilerOf(in).PodStake(p); got != c.want {
				t.Errorf("at stake: %t, want %t", got, c.want)
			}
		})
	}
}
