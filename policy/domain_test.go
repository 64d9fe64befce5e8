package policy_test

import (
	"testing"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
)

// TestDomainMatches has the API's examples, and what could pass for them.
func TestDomainMatches(t *testing.T) {
	for rule, names := range map[string]map[string]bool{
		"kubernetes.io": {
			"kubernetes.io": true, "Kubernetes.IO.": true, "www.kubernetes.io": false, "blog.kubernetes.io": false,
			"my-kubernetes.io": false, "wikipedia.org": false, "\u212aubernetes.io": false,
		},
		"blog.kubernetes.io": {"blog.kubernetes.io": true, "www.kubernetes.io": false, "kubernetes.io": false},
		"*.kubernetes.io": {
			"www.kubernetes.io": true, "latest.blog.kubernetes.io": true, "kubernetes.io": false, ".kubernetes.io": false,
			"my-kubernetes.io": false, "wikipedia.org": false, "kubernetes.io.wikipedia.org": false,
		},
	} {
		for name, want := range names {
			if got := policy.MakeDomain(rule).Matches(policy.MakeDomain(name)); got != want {
				t.Errorf("%s means %s: %t, want %t", rule, name, got, want)
			}
		}
	}
}

// TestDecideDomains: a name means what this pod was told, and nothing for a pod that was not.
func TestDecideDomains(t *testing.T) {
	const bar, outside = "10.244.2.5", "203.0.113.7"
	rules := []policy.Rule{
		{Action: policy.Accept, Peers: []policy.Peer{{Domains: []policy.Domain{"*.example.com"}}}, Ports: []policy.Port{port(443, 443)}},
		{Action: policy.Deny, Peers: []policy.Peer{{Block: &policy.Block{CIDR: prefix("0.0.0.0/0")}}}, AllPorts: true},
	}
	answer := func(pod, name, address string) policy.Answer {
		return policy.Answer{Pod: identity.PodKey{Namespace: "coffee", Name: pod}, Name: policy.Domain(name), Address: addr(address)}
	}
	const accepts, maybe = "Admin egress rule 0 of a accepts it", "Admin egress rule 0 of a accepts only what its domain names were said to be, Admin egress rule 1 of a denies it"
	for name, tt := range map[string]struct {
		told   policy.Answer
		port   uint16
		reason string
	}{
		"told":            {answer("bar", "www.example.com", outside), 443, accepts},
		"another port":    {answer("bar", "www.example.com", outside), 80, "Admin egress rule 1 of a denies it"},
		"another name":    {answer("bar", "example.com", outside), 443, maybe},
		"another address": {answer("bar", "www.example.com", "203.0.113.8"), 443, maybe},
		"another pod":     {answer("shop", "www.example.com", outside), 443, maybe},
	} {
		t.Run(name, func(t *testing.T) {
			c := cluster()
			c.Policies, c.Answers = []policy.Policy{over(t, policy.Admin, "a", policy.Egress, rules...)}, []policy.Answer{tt.told}
			got := policy.Decide(c, policy.Flow{Source: addr(bar), Destination: addr(outside), Protocol: identity.TCP, Port: tt.port}).Egress
			if got.Reason != tt.reason || got.Allowed != (tt.reason == accepts) {
				t.Errorf("allowed is %t: %s; want %s", got.Allowed, got.Reason, tt.reason)
			}
		})
	}
}
