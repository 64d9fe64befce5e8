package walk

import (
	"flag"
	"fmt"
	"net/netip"
	"testing"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
	"github.com/kithnet/kith/policy/random"
)

var (
	clusters = flag.Int("clusters", 150, "how many random clusters")
	flows    = flag.Int("flows", 60, "how many random flows in each")
	seed     = flag.Uint64("seed", 1, "the first cluster's seed")
)

// TestDecideIsWhatTheRulesetDoes compares the specification with the compiled rules.
func TestDecideIsWhatTheRulesetDoes(t *testing.T) {
	allowed := 0
	for s := *seed; s < *seed+uint64(*clusters); s++ {
		r := random.New(s)
		c := random.Cluster(r)
		paths := Compile(c)
		for range *flows {
			f := random.Flow(r, c)
			got, _, err := paths.Flow(f)
			if err != nil || got != policy.Decide(c, f).Allowed {
				t.Fatalf("seed %d: %s", s, difference(c, f))
			}
			if got {
				allowed++
			}
		}
	}
	t.Logf("%d clusters from seed %d, %d flows each, %d allowed", *clusters, *seed, *flows, allowed)
}

// TestForgedStatusesMoveNothing: what statuses name of others' addresses changes no verdict.
func TestForgedStatusesMoveNothing(t *testing.T) {
	for s := *seed; s < *seed+uint64(*clusters)/3; s++ {
		r := random.New(s)
		c := random.Cluster(r)
		screen, homes := identity.NewScreen(), map[string][]netip.Prefix{}
		for _, n := range c.Nodes {
			homes[n.Name] = n.PodCIDRs
		}
		screen.SetHomes(homes)
		with := c
		with.Pods = screen.Pods(random.Forged(r, c))
		paths := Compile(with)
		for range *flows {
			f := random.Flow(r, c)
			got, trace, err := paths.Flow(f)
			want := policy.Decide(c, f).Allowed
			if err != nil || got != want || policy.Decide(with, f).Allowed != want {
				t.Fatalf("seed %d: %v: %t by %s (%v), specified %t\n%s", s, f, got, trace, err, want, random.Describe(with))
			}
		}
	}
}

// difference shrinks a case in which the rules do not what the specification says, and describes it.
func difference(c policy.Cluster, f policy.Flow) string {
	c = random.Shrink(c, func(c policy.Cluster) bool {
		got, _, err := Compile(c).Flow(f)
		return err != nil || got != policy.Decide(c, f).Allowed
	})
	got, trace, err := Compile(c).Flow(f)
	v := policy.Decide(c, f)
	return fmt.Sprintf("%s → %s, protocol %s, port %d: the ruleset delivers: %t (%s) %v\nspecification: %t (egress: %s; ingress: %s)\n%s",
		f.Source, f.Destination, f.Protocol, f.Port, got, trace, err, v.Allowed, v.Egress.Reason, v.Ingress.Reason, random.Describe(c))
}
