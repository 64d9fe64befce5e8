package random

import (
	"testing"

	"github.com/kithnet/kith/policy"
)

// TestShrink: a cluster that fails because of one rule's one peer is left with little else.
func TestShrink(t *testing.T) {
	for seed := range uint64(30) {
		c := Cluster(New(seed))
		nodes := func(c policy.Cluster) int {
			n := 0
			for _, p := range c.Policies {
				for _, rules := range []*policy.Rules{p.Ingress, p.Egress} {
					if rules == nil {
						continue
					}
					for _, r := range *rules {
						for _, peer := range r.Peers {
							if peer.Nodes != nil {
								n++
							}
						}
					}
				}
			}
			return n
		}
		if nodes(c) == 0 {
			continue
		}
		before := Describe(c)
		small := Shrink(c, func(c policy.Cluster) bool { return nodes(c) > 0 })
		if nodes(small) != 1 || len(small.Policies) != 1 || len(small.Pods) != 0 {
			t.Errorf("seed %d: left is\n%s", seed, Describe(small))
		}
		if Describe(c) != before {
			t.Errorf("seed %d: the cluster itself was changed", seed)
		}
	}
}
