package nft

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
	"github.com/kithnet/kith/policy/random"
	"github.com/kithnet/kith/policy/ruleset"
	"github.com/kithnet/kith/policy/ruleset/walk"
	"k8s.io/apimachinery/pkg/labels"
)

// seeds is how many random changes of each kind are cut everywhere.
const seeds = uint64(100)

// TestCutOpensNothing: wherever a transaction is cut, nothing passes that passes neither before nor after it. One kind
// of thing changes at a time, and one direction decides.
func TestCutOpensNothing(t *testing.T) {
	cuts, denied := 0, 0
	for name, change := range map[string]func(*rand.Rand, policy.Cluster) policy.Cluster{
		"another policy": anotherPolicy, "other labels of pods elsewhere": otherLabels,
	} {
		for seed := range seeds {
			r := random.New(seed)
			c := random.Cluster(r)
			steps, flows := cutEverywhere(t, fmt.Sprintf("%s, seed %d", name, seed), c, change(r, c), flowsOf(r, c))
			cuts, denied = cuts+steps, denied+flows
		}
	}
	t.Logf("%d flows stay denied over %d cuts", denied, cuts)
	if cuts == 0 || denied == 0 {
		t.Error("nothing was cut, or nothing is denied: this shows nothing")
	}
}

// TestNumbersOutliveTheirRules: a policy that denied a pod elsewhere by its address, or as everybody, now denies it by its
// labels, which no other rule of this node names; and back. Wherever that is cut, the pod stays denied: its number is
// there before the rules that deny by it, and goes after them.
func TestNumbersOutliveTheirRules(t *testing.T) {
	here, there := netip.MustParseAddr("10.244.1.16"), netip.MustParseAddr("10.244.2.16")
	labelled := policy.Peer{Namespaces: labels.Everything(), Pods: labels.SelectorFromSet(labels.Set{"app": "a"})}
	deny := func(rule policy.Rule) *policy.Rules {
		rule.Action, rule.AllPorts = policy.Deny, true
		return &policy.Rules{rule}
	}
	with := func(rules *policy.Rules, d policy.Direction) policy.Cluster {
		p := policy.Policy{Tier: policy.Admin, Name: "deny", Namespaces: labels.Everything(), Subject: labels.Everything()}
		if d == policy.Egress {
			p.Egress = rules
		} else {
			p.Ingress = rules
		}
		return policy.Cluster{
			Nodes: []policy.Node{
				{Name: "one", PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}},
				{Name: "two", PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.2.0/24")}},
			},
			Namespaces: []identity.Namespace{{Name: "n"}},
			Pods: []identity.Pod{
				{Namespace: "n", Name: "here", UID: "1", Addresses: []netip.Addr{here}},
				{Namespace: "n", Name: "there", UID: "2", Addresses: []netip.Addr{there}, Labels: map[string]string{"app": "a"}},
			},
			Policies: []policy.Policy{p},
		}
	}
	block := policy.Rule{Peers: []policy.Peer{{Block: &policy.Block{CIDR: netip.PrefixFrom(there, 32)}}}}
	for name, tt := range map[string]struct {
		direction policy.Direction
		unnamed   policy.Rule
		flow      policy.Flow
	}{
		"egress":  {policy.Egress, block, policy.Flow{Source: here, Destination: there, Protocol: identity.TCP, Port: 80}},
		"ingress": {policy.Ingress, policy.Rule{AllPeers: true}, policy.Flow{Source: there, Destination: here, Protocol: identity.TCP, Port: 80}},
	} {
		unnamed, named := with(deny(tt.unnamed), tt.direction), with(deny(policy.Rule{Peers: []policy.Peer{labelled}}), tt.direction)
		for _, change := range [][2]policy.Cluster{{unnamed, named}, {named, unnamed}} {
			if steps, flows := cutEverywhere(t, name, change[0], change[1], []policy.Flow{tt.flow}); steps == 0 || flows != 1 {
				t.Errorf("%s: %d steps, %d flows are denied before and after", name, steps, flows)
			}
		}
	}
}

// TestWhoIsKnownStaysKnown: the rules that deny pods deny what is not known, too. Wherever the write is cut that brings them, or
// takes them away, nobody who is known and allowed before and after is taken for unknown.
func TestWhoIsKnownStaysKnown(t *testing.T) {
	with := func(d policy.Direction, peer policy.Peer) policy.Cluster {
		rules := &policy.Rules{{Action: policy.Deny, AllPorts: true, Peers: []policy.Peer{peer}}}
		p := policy.Policy{Tier: policy.Admin, Name: "deny", Namespaces: labels.Everything(), Subject: labels.Everything(), Egress: rules}
		if d == policy.Ingress {
			p.Egress, p.Ingress = nil, rules
		}
		return policy.Cluster{
			Nodes: []policy.Node{
				{Name: "one", PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}},
				{Name: "two", PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.2.0/24")}},
			},
			Namespaces: []identity.Namespace{{Name: "n"}},
			Pods: []identity.Pod{
				{Namespace: "n", Name: "here", UID: "1", Addresses: []netip.Addr{netip.MustParseAddr("10.244.1.16")}},
				{Namespace: "n", Name: "there", UID: "2", Addresses: []netip.Addr{netip.MustParseAddr("10.244.2.16")}},
			},
			Policies: []policy.Policy{p},
		}
	}
	here, there := netip.MustParseAddr("10.244.1.16"), netip.MustParseAddr("10.244.2.16")
	others := policy.Peer{Namespaces: labels.Everything(), Pods: labels.SelectorFromSet(labels.Set{"app": "a"})}
	outside := policy.Peer{Block: &policy.Block{CIDR: netip.MustParsePrefix("203.0.113.0/24")}}
	for d, f := range map[policy.Direction]policy.Flow{
		policy.Egress:  {Source: here, Destination: there, Protocol: identity.TCP, Port: 80},
		policy.Ingress: {Source: there, Destination: here, Protocol: identity.TCP, Port: 80},
	} {
		for _, change := range [][2]policy.Cluster{{with(d, outside), with(d, others)}, {with(d, others), with(d, outside)}} {
			paths := walk.Compile(change[0])
			steps := stepsOf(paths.Ruleset("one"), walk.Compile(change[1]).Ruleset("one"))
			for i, s := range steps {
				s.on(paths.Ruleset("one"))
				if len(deniedOf(t, paths, []policy.Flow{f})) > 0 {
					t.Errorf("%s: %v is denied after step %d of %d: %+v", d, f, i+1, len(steps), s)
				}
			}
		}
	}
}

// TestWaysAreThereFirst: a policy that denied a pod all now denies it by many rules, each for ports of its own, and back.
// Wherever that is cut, the pod stays denied: the chains that the rules send to say what they are to say before any does.
func TestWaysAreThereFirst(t *testing.T) {
	here, there := netip.MustParseAddr("10.244.1.16"), netip.MustParseAddr("10.244.2.16")
	with := func(rules ...policy.Rule) policy.Cluster {
		return policy.Cluster{
			Nodes:      []policy.Node{{Name: "one", PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}}},
			Namespaces: []identity.Namespace{{Name: "n"}},
			Pods:       []identity.Pod{{Namespace: "n", Name: "here", UID: "1", Addresses: []netip.Addr{here}}},
			Policies: []policy.Policy{{
				Tier: policy.Admin, Name: "deny", Namespaces: labels.Everything(), Subject: labels.Everything(), Egress: (*policy.Rules)(&rules),
			}},
		}
	}
	var many []policy.Rule
	peers := []policy.Peer{{Block: &policy.Block{CIDR: netip.PrefixFrom(there, 32)}}}
	for i := range uint16(8) {
		// More networks than are entered with each port, and for each rule others.
		peers = append(peers, policy.Peer{Block: &policy.Block{CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(2 * i)}), 32)}})
		rule := policy.Rule{Action: policy.Deny, Peers: slices.Clone(peers)}
		for n := range uint16(9) {
			rule.Ports = append(rule.Ports, policy.Port{Protocol: identity.TCP, First: 80 + 100*i + 2*n, Last: 80 + 100*i + 2*n})
		}
		many = append(many, rule)
	}
	all := with(policy.Rule{Action: policy.Deny, Peers: peers, AllPorts: true})
	flow := policy.Flow{Source: here, Destination: there, Protocol: identity.TCP, Port: 80}
	for _, change := range [][2]policy.Cluster{{all, with(many...)}, {with(many...), all}} {
		if steps, flows := cutEverywhere(t, "ways", change[0], change[1], []policy.Flow{flow}); steps == 0 || flows != 1 {
			t.Errorf("%d steps, %d flows are denied before and after", steps, flows)
		}
	}
}

// cutEverywhere does what makes one cluster's rules on its first node the other's, step by step, and looks after each that
// those of the flows are denied that are denied before and after. It returns how many steps and such flows there are.
func cutEverywhere(t *testing.T, name string, before, after policy.Cluster, flows []policy.Flow) (int, int) {
	t.Helper()
	node := before.Nodes[0].Name
	cut, whole := walk.Compile(before), walk.Compile(before)
	flows = deniedOf(t, cut, flows)
	steps := stepsOf(cut.Ruleset(node), walk.Compile(after).Ruleset(node))
	for _, s := range steps {
		s.on(whole.Ruleset(node))
	}
	flows = deniedOf(t, whole, flows)
	for i, s := range steps {
		s.on(cut.Ruleset(node))
		if left := deniedOf(t, cut, flows); len(left) < len(flows) {
			t.Fatalf("%s: of %v only %v are denied after step %d of %d: %+v", name, flows, left, i+1, len(steps), s)
		}
	}
	return len(steps), len(flows)
}

// flowsOf is flows that the first node decides in one direction only.
func flowsOf(r *rand.Rand, c policy.Cluster) []policy.Flow {
	var flows []policy.Flow
	for range 60 {
		if f := random.Flow(r, c); isFirst(c, f.Source) != isFirst(c, f.Destination) {
			flows = append(flows, f)
		}
	}
	return flows
}

// isFirst says that an address is of the pods of the first node.
func isFirst(c policy.Cluster, a netip.Addr) bool {
	return slices.ContainsFunc(c.Nodes[0].PodCIDRs, func(p netip.Prefix) bool { return p.Contains(a) })
}

// deniedOf is the flows that do not pass.
func deniedOf(t *testing.T, paths *walk.Paths, flows []policy.Flow) []policy.Flow {
	t.Helper()
	var denied []policy.Flow
	for _, f := range flows {
		passes, _, err := paths.Flow(f)
		if err != nil {
			t.Fatal(err)
		}
		if !passes {
			denied = append(denied, f)
		}
	}
	return denied
}

// anotherPolicy gives a policy other rules, or takes it away.
func anotherPolicy(r *rand.Rand, c policy.Cluster) policy.Cluster {
	if len(c.Policies) == 0 {
		return c
	}
	i := r.IntN(len(c.Policies))
	c.Policies = slices.Clone(c.Policies)
	if r.IntN(3) > 0 {
		for range 20 {
			for _, p := range random.Cluster(r).Policies {
				if was := &c.Policies[i]; p.Tier == was.Tier {
					was.Ingress, was.Egress = p.Ingress, p.Egress
					return c
				}
			}
		}
	}
	c.Policies = slices.Delete(c.Policies, i, i+1)
	return c
}

// otherLabels gives pods that have no address of the first node the labels of others.
func otherLabels(r *rand.Rand, c policy.Cluster) policy.Cluster {
	c.Pods = slices.Clone(c.Pods)
	for i, p := range c.Pods {
		if len(p.Addresses) > 0 && !isFirst(c, p.Addresses[0]) {
			c.Pods[i].Labels = random.Cluster(r).Pods[0].Labels
		}
	}
	return c
}

// stepsOf cuts what makes one ruleset of another as finely as it may be.
func stepsOf(have, want ruleset.Ruleset) []step {
	specs := map[string]ruleset.SetSpec{}
	for _, r := range []ruleset.Ruleset{have, want} {
		for name, s := range r.Sets {
			specs[name] = s.SetSpec
		}
	}
	var out []step
	for _, s := range stages(ruleset.Diff(have, want), specs) {
		out = append(out, step{sets: s.sets, chains: s.chains})
		for n, c := range s.changes {
			if n > 0 && c.tied {
				last := &out[len(out)-1]
				last.changes = append(last.changes, c)
				continue
			}
			out = append(out, step{changes: []change{c}})
		}
		for _, c := range s.rules {
			out = append(out, step{rules: []ruleset.Chain{c}})
		}
		out = append(out, step{deleteChains: s.deleteChains, deleteSets: s.deleteSets})
	}
	return slices.DeleteFunc(out, func(s step) bool { return reflect.DeepEqual(s, step{}) })
}

// step is a part of a stage that is never cut.
type step stage

// on does a step to a ruleset, as the kernel would.
func (s step) on(r ruleset.Ruleset) {
	for _, spec := range s.sets {
		r.Sets[spec.Name] = &ruleset.Set{SetSpec: spec, Elements: map[ruleset.Key]ruleset.Value{}}
	}
	for _, spec := range s.chains {
		r.Chains[spec.Name] = &ruleset.Chain{ChainSpec: spec}
	}
	for _, c := range s.changes {
		if c.delete {
			delete(r.Sets[c.Set].Elements, c.Key)
		} else {
			r.Sets[c.Set].Elements[c.Key] = c.Value
		}
	}
	for _, c := range s.rules {
		r.Chains[c.Name] = &c
	}
	for _, name := range s.deleteChains {
		delete(r.Chains, name)
	}
	for _, name := range s.deleteSets {
		delete(r.Sets, name)
	}
}
