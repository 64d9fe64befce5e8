package random

import (
	"slices"

	"github.com/kithnet/kith/policy"
)

// Shrink takes out of a cluster whatever it can while fails still says yes: what is left is small enough to read.
func Shrink(c policy.Cluster, fails func(policy.Cluster) bool) policy.Cluster {
	for {
		smaller, ok := shrinkOnce(c, fails)
		if !ok {
			return c
		}
		c = smaller
	}
}

// shrinkOnce tries the large parts first.
func shrinkOnce(c policy.Cluster, fails func(policy.Cluster) bool) (policy.Cluster, bool) {
	for _, without := range []func(policy.Cluster, int) (policy.Cluster, bool){
		func(c policy.Cluster, i int) (policy.Cluster, bool) {
			var ok bool
			c.Policies, ok = remove(c.Policies, i)
			return c, ok
		},
		func(c policy.Cluster, i int) (policy.Cluster, bool) {
			var ok bool
			c.Pods, ok = remove(c.Pods, i)
			return c, ok
		},
		func(c policy.Cluster, i int) (policy.Cluster, bool) {
			var ok bool
			c.Answers, ok = remove(c.Answers, i)
			return c, ok
		},
		withoutPart,
	} {
		for i := 0; ; i++ {
			smaller, ok := without(c, i)
			if !ok {
				break
			}
			if fails(smaller) {
				return smaller, true
			}
		}
	}
	return c, false
}

func remove[T any](all []T, i int) ([]T, bool) {
	if i >= len(all) {
		return nil, false
	}
	return slices.Delete(slices.Clone(all), i, i+1), true
}

// withoutPart takes the i-th part out of all policies' parts: a direction, a rule, a peer or a port.
func withoutPart(c policy.Cluster, i int) (policy.Cluster, bool) {
	c.Policies = slices.Clone(c.Policies)
	for n := range c.Policies {
		p := &c.Policies[n]
		for _, rules := range []**policy.Rules{&p.Ingress, &p.Egress} {
			if *rules == nil {
				continue
			}
			if i == 0 {
				*rules = nil
				return c, true
			}
			i--
			fewer, left := withoutPartOf(**rules, i)
			if left < 0 {
				*rules = &fewer
				return c, true
			}
			i = left
		}
	}
	return c, false
}

// withoutPartOf returns how many parts are still to be passed by, or -1 when the part was here.
func withoutPartOf(rules policy.Rules, i int) (policy.Rules, int) {
	for n, r := range rules {
		if i == 0 {
			return slices.Delete(slices.Clone(rules), n, n+1), -1
		}
		i--
		if i < len(r.Peers)+len(r.Ports) {
			fewer := slices.Clone(rules)
			if i < len(r.Peers) {
				fewer[n].Peers, _ = remove(r.Peers, i)
			} else {
				fewer[n].Ports, _ = remove(r.Ports, i-len(r.Peers))
			}
			return fewer, -1
		}
		i -= len(r.Peers) + len(r.Ports)
	}
	return rules, i
}
