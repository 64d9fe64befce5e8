package walk

import (
	"flag"
	"fmt"
	"strings"
	"testing"

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
			want := policy.Decide(c, f)
			got, trace, err := paths.Flow(f)
			if err != nil || got != want.Allowed {
				t.Fatalf("seed %d, flow %+v: ruleset delivers: %t (%s) %v\nspecification: %+v\n%s", s, f, got, trace, err, want, describe(c))
			}
			if got {
				allowed++
			}
		}
	}
	t.Logf("%d clusters from seed %d, %d flows each, %d allowed", *clusters, *seed, *flows, allowed)
}

// describe is a cluster for people.
func describe(c policy.Cluster) string {
	var b strings.Builder
	for _, n := range c.Nodes {
		fmt.Fprintf(&b, "node %s %v %v mesh %v\n", n.Name, n.Labels, n.Addresses, n.Mesh)
	}
	for _, n := range c.Namespaces {
		fmt.Fprintf(&b, "namespace %s %v\n", n.Name, n.Labels)
	}
	for _, p := range c.Pods {
		fmt.Fprintf(&b, "pod %s %v %v %v created %d\n", p.Key(), p.Addresses, p.Labels, p.Ports, p.Created.Unix())
	}
	for _, p := range c.Policies {
		fmt.Fprintf(&b, "policy %s (%s %d) on %q of namespaces %q\n", p.Key(), p.Tier, p.Priority, p.Subject, p.Namespaces)
		for _, d := range []policy.Direction{policy.Ingress, policy.Egress} {
			if rules := p.In(d); rules != nil {
				fmt.Fprintf(&b, "  %s\n", d)
				describeRules(&b, *rules)
			}
		}
	}
	return b.String()
}

func describeRules(b *strings.Builder, rules policy.Rules) {
	for i, r := range rules {
		fmt.Fprintf(b, "    %d: %s all peers %t, all ports %t, ports %v\n", i, r.Action, r.AllPeers, r.AllPorts, r.Ports)
		for _, p := range r.Peers {
			if p.Block != nil {
				fmt.Fprintf(b, "       block %s except %v\n", p.Block.CIDR, p.Block.Except)
				continue
			}
			if p.Nodes != nil {
				fmt.Fprintf(b, "       nodes %v\n", p.Nodes)
				continue
			}
			fmt.Fprintf(b, "       own namespace %t, namespaces %v, pods %v\n", p.OwnNamespace, p.Namespaces, p.Pods)
		}
	}
}
