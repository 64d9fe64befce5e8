package walk

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
	"github.com/kithnet/kith/policy/random"
	"github.com/kithnet/kith/policy/ruleset"
)

// change is a cluster before and after a change of labels, and whether a node has anything at stake in it. Fresh is a pod
// that was not there before: only what others let it do counts, since what it is under itself is known before it starts.
type change struct {
	before, after policy.Cluster
	fresh         []netip.Addr
	at            func(*ruleset.Compiler) bool
}

func randomChange(r *rand.Rand) change {
	c := change{before: random.Cluster(r)}
	other := random.Cluster(r)
	c.after = c.before
	c.after.Namespaces, c.after.Pods = slices.Clone(c.before.Namespaces), slices.Clone(c.before.Pods)
	if r.IntN(3) == 0 {
		n := &c.after.Namespaces[r.IntN(len(c.after.Namespaces))]
		n.Labels = other.Namespaces[0].Labels
		c.at = func(c *ruleset.Compiler) bool { _, at := c.NamespaceStake(*n); return at }
		return c
	}
	i := r.IntN(len(c.after.Pods))
	p := &c.after.Pods[i]
	p.Labels, p.Ports = other.Pods[0].Labels, other.Pods[0].Ports
	if r.IntN(2) == 0 {
		c.before.Pods = slices.Delete(slices.Clone(c.before.Pods), i, i+1)
		c.fresh = p.Addresses
	}
	c.at = func(c *ruleset.Compiler) bool { _, at := c.PodStake(*p); return at }
	return c
}

// opens says whether a flow is allowed after the change and was not before.
func (c change) opens(f policy.Flow) bool {
	before, after := policy.Decide(c.before, f), policy.Decide(c.after, f)
	egress := after.Egress.Allowed && !before.Egress.Allowed && !slices.Contains(c.fresh, f.Source)
	ingress := after.Ingress.Allowed && !before.Ingress.Allowed && !slices.Contains(c.fresh, f.Destination)
	return egress || ingress
}

// TestNothingIsAtStake: where no node has anything at stake in a change of labels, nothing is allowed after it that was not
// allowed before.
func TestNothingIsAtStake(t *testing.T) {
	quiet := 0
	const namedPorts = 3159 // is of a pod whose named ports change, which seldom tells
	for s := range uint64(1501) {
		if s == 1500 {
			s = namedPorts
		}
		r := random.New(s)
		c := randomChange(r)
		if slices.ContainsFunc(c.before.Nodes, func(n policy.Node) bool { return c.at(ruleset.CompilerOf(Input(c.before, n.Name))) }) {
			continue
		}
		quiet++
		for range 60 {
			if f := random.Flow(r, c.after); c.opens(f) {
				t.Fatalf("seed %d: %s → %s, protocol %s, port %d is allowed by a change of labels that nobody waits for\nbefore: %s\nafter: %s",
					s, f.Source, f.Destination, f.Protocol, f.Port, random.Describe(c.before), random.Describe(c.after))
			}
		}
	}
	if quiet < 300 {
		t.Errorf("in only %d cases nothing was at stake: this shows little", quiet)
	}
}

// TestStakeNamesTheNamespaces: what is asked for is the policies of the pods of which a change decides.
func TestStakeNamesTheNamespaces(t *testing.T) {
	for s := range uint64(400) {
		r := random.New(s)
		c := random.Cluster(r)
		p := c.Pods[r.IntN(len(c.Pods))]
		p.Labels = random.Cluster(r).Pods[0].Labels
		for _, n := range c.Nodes {
			in := Input(c, n.Name)
			stake, _ := ruleset.CompilerOf(in).PodStake(p)
			local := map[string]bool{}
			for _, a := range in.Attachments {
				local[a.Pod.Namespace] = true
			}
			for _, namespace := range stake.Namespaces {
				if !local[namespace] {
					t.Errorf("seed %d, node %s: policies of %s are at stake, where no pod of the node is: %v", s, n.Name, namespace, slices.Collect(maps.Keys(local)))
				}
			}
		}
	}
}

// TestWhoIsDeniedNoLongerIsAtStake: a pod leaves what a policy denies, and joins nothing.
func TestWhoIsDeniedNoLongerIsAtStake(t *testing.T) {
	denied := policy.Peer{Namespaces: labels.Everything(), Pods: labels.SelectorFromSet(labels.Set{"z": "1"})}
	node := policy.Node{Name: "n1", PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}}
	c := policy.Cluster{
		Nodes: []policy.Node{node}, Namespaces: []identity.Namespace{{Name: "a"}},
		Pods: []identity.Pod{
			{Namespace: "a", Name: "subject", UID: "1", Addresses: []netip.Addr{netip.MustParseAddr("10.244.1.7")}},
			{Namespace: "a", Name: "peer", UID: "2", Labels: map[string]string{"z": "1"}},
		},
		Policies: []policy.Policy{{
			Tier: policy.Admin, Name: "p", Namespaces: labels.Everything(), Subject: labels.Everything(),
			Ingress: &policy.Rules{{Action: policy.Deny, Peers: []policy.Peer{denied}, AllPorts: true}},
		}},
	}
	compiler := ruleset.CompilerOf(Input(c, node.Name))
	if _, at := compiler.PodStake(identity.Pod{Namespace: "a", Name: "peer", UID: "2"}); !at {
		t.Error("nothing is at stake")
	}
}

// TestUnchangedIsNotAtStake: a change of a pod's status, which is most changes, is nobody's concern.
func TestUnchangedIsNotAtStake(t *testing.T) {
	for s := range uint64(50) {
		c := random.Cluster(random.New(s))
		compiler := ruleset.CompilerOf(Input(c, c.Nodes[0].Name))
		for _, p := range c.Pods {
			p.Addresses = nil
			if _, at := compiler.PodStake(p); at && compiler.SameLabels(p) {
				t.Fatalf("seed %d: pod %s", s, p.Key())
			}
		}
		for _, n := range c.Namespaces {
			if _, at := compiler.NamespaceStake(identity.Namespace{Name: n.Name, Labels: n.Labels}); at {
				t.Fatalf("seed %d: namespace %s", s, n.Name)
			}
		}
	}
}
