package ruleset

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
	"github.com/kithnet/kith/policy/random"
	"k8s.io/apimachinery/pkg/labels"
)

// event is one thing told to a compiler.
type event func(*Compiler)

// attachTo is an attachment for every pod with an address of the cluster's first node.
func attachTo(c policy.Cluster) []Attachment {
	var out []Attachment
	for i, p := range c.Pods {
		a := Attachment{Pod: p.Key(), UID: p.UID, Interface: fmt.Sprintf("kith-%010x", i), MAC: MAC{2, 5: byte(i)}}
		for _, addr := range p.Addresses {
			if c.Nodes[0].PodCIDRs[0].Contains(addr) || c.Nodes[0].PodCIDRs[1].Contains(addr) {
				a.Addresses = append(a.Addresses, addr)
			}
		}
		if len(a.Addresses) > 0 {
			out = append(out, a)
		}
	}
	return out
}

func inputOf(c policy.Cluster) Input {
	return Input{
		Pods: c.Pods, Namespaces: c.Namespaces, Policies: c.Policies, Attachments: attachTo(c),
		Network: Network{Node: c.Nodes[0].Name, Nodes: c.Nodes},
	}
}

// events tells a compiler an input, each thing first as something else, so that the last telling counts.
func events(in Input, r *rand.Rand) []event {
	var es []event
	add := func(before, after event) {
		at := r.IntN(len(es) + 1)
		es = append(es[:at:at], append([]event{before}, es[at:]...)...)
		at += 1 + r.IntN(len(es)-at)
		es = append(es[:at:at], append([]event{after}, es[at:]...)...)
	}
	for _, p := range in.Pods {
		old := p
		old.Labels, old.Addresses = map[string]string{"app": "b"}, in.Pods[r.IntN(len(in.Pods))].Addresses
		wrong := event(func(c *Compiler) { c.PutPod(old) })
		if r.IntN(3) == 0 {
			wrong = func(c *Compiler) { c.DeletePod(p.Key()) }
		}
		add(wrong, func(c *Compiler) { c.PutPod(p) })
	}
	for _, n := range in.Namespaces {
		wrong := event(func(c *Compiler) {
			c.PutNamespace(identity.Namespace{Name: n.Name, Labels: map[string]string{"team": "b"}})
		})
		if r.IntN(3) == 0 {
			wrong = func(c *Compiler) { c.DeleteNamespace(n.Name) }
		}
		add(wrong, func(c *Compiler) { c.PutNamespace(n) })
	}
	for _, p := range in.Policies {
		old := in.Policies[r.IntN(len(in.Policies))]
		old.Namespace, old.Name = p.Namespace, p.Name
		add(func(c *Compiler) { c.PutPolicy(old) }, func(c *Compiler) { c.PutPolicy(p) })
	}
	for _, a := range in.Attachments {
		old := a
		old.Addresses = in.Attachments[r.IntN(len(in.Attachments))].Addresses
		add(func(c *Compiler) { c.PutAttachment(old) }, func(c *Compiler) { c.PutAttachment(a) })
	}
	gone := identity.Pod{Namespace: "ns0", Name: "gone", UID: "x", Labels: map[string]string{"app": "c"}, Addresses: in.Pods[0].Addresses}
	add(func(c *Compiler) { c.PutPod(gone) }, func(c *Compiler) { c.DeletePod(gone.Key()) })
	stray := policy.Policy{Namespace: "ns0", Name: "stray", Subject: in.Policies[0].Subject, Ingress: &policy.Rules{{AllPeers: true, AllPorts: true}}}
	add(func(c *Compiler) { c.PutPolicy(stray) }, func(c *Compiler) { c.DeletePolicy(stray.Key()) })
	lost := Attachment{Pod: gone.Key(), Interface: "kith-lost", Addresses: []netip.Addr{netip.MustParseAddr("10.244.1.99")}}
	add(func(c *Compiler) { c.PutAttachment(lost) }, func(c *Compiler) { c.DeleteAttachment(lost.Interface) })
	add(func(c *Compiler) { c.SetNetwork(Network{Node: "node2"}) }, func(c *Compiler) { c.SetNetwork(in.Network) })
	return es
}

// TestEventOrder tells the same cluster in many orders, doubled and with something else before: the ruleset is that of
// Compile, and so is the sum of the transactions.
func TestEventOrder(t *testing.T) {
	for seed := range uint64(80) {
		r := random.New(seed)
		cluster := random.Cluster(r)
		in := inputOf(cluster)
		if len(in.Policies) == 0 || len(in.Attachments) == 0 {
			continue
		}
		want := Compile(in)
		c := NewCompiler()
		kernel := Ruleset{Sets: map[string]*Set{}, Chains: map[string]*Chain{}}
		for _, e := range events(in, r) {
			e(c)
			if r.IntN(3) == 0 {
				e(c)
			}
			if r.IntN(3) > 0 {
				apply(t, kernel, c.Commit())
			}
		}
		apply(t, kernel, c.Commit())
		if d := cmp.Diff(strings.Split(want.String(), "\n"), strings.Split(c.Ruleset().String(), "\n")); d != "" {
			t.Fatalf("seed %d: event by event differs from Compile (-compile +events):\n%s", seed, d)
		}
		if d := cmp.Diff(strings.Split(want.String(), "\n"), strings.Split(kernel.String(), "\n")); d != "" {
			t.Fatalf("seed %d: the sum of the transactions differs from Compile (-compile +sum):\n%s", seed, d)
		}
		if tx := c.Commit(); !tx.Empty() {
			t.Fatalf("seed %d: a commit after nothing is\n%s", seed, tx)
		}
		if tx := Diff(kernel, want); !tx.Empty() {
			t.Fatalf("seed %d: Diff of equals is\n%s", seed, tx)
		}
	}
}

// TestDiff: what Diff says makes one ruleset of another.
func TestDiff(t *testing.T) {
	for seed := range uint64(60) {
		r := random.New(seed)
		a, b := Compile(inputOf(random.Cluster(r))), Compile(inputOf(random.Cluster(r)))
		apply(t, a, Diff(a, b))
		if d := cmp.Diff(b.String(), a.String()); d != "" {
			t.Fatalf("seed %d: (-want +got)\n%s", seed, d)
		}
	}
}

// TestDiffReplaces what has another shape.
func TestDiffReplaces(t *testing.T) {
	want := Compile(coffee())
	have := Compile(coffee())
	have.Sets[setOwn4].Interval = false
	tx := Diff(have, want)
	if !tx.Replace {
		t.Error("a set of another shape: Replace is not set")
	}
	if len(tx.AddSets) != len(want.Sets) || len(tx.AddChains) != len(want.Chains) {
		t.Errorf("Replace brings %d sets and %d chains, want %d and %d", len(tx.AddSets), len(tx.AddChains), len(want.Sets), len(want.Chains))
	}
}

// apply does to a ruleset what a kernel would, and fails where a kernel would refuse.
func apply(t *testing.T, r Ruleset, tx Transaction) {
	t.Helper()
	for _, s := range tx.AddSets {
		if r.Sets[s.Name] != nil {
			t.Fatalf("add set %s: exists", s.Name)
		}
		r.Sets[s.Name] = &Set{SetSpec: s, Elements: map[Key]Value{}}
	}
	for _, c := range tx.AddChains {
		if r.Chains[c.Name] != nil {
			t.Fatalf("add chain %s: exists", c.Name)
		}
		r.Chains[c.Name] = &Chain{ChainSpec: c}
	}
	for _, e := range tx.DeleteElements {
		if v, ok := r.Sets[e.Set].Elements[e.Key]; !ok || v != e.Value {
			t.Fatalf("delete element of %s: %v is %v", e.Set, e, v)
		}
		delete(r.Sets[e.Set].Elements, e.Key)
	}
	for _, e := range tx.AddElements {
		if _, ok := r.Sets[e.Set].Elements[e.Key]; ok {
			t.Fatalf("add element to %s: %v exists", e.Set, e)
		}
		if e.Value.Verdict.Kind == Jump && r.Chains[e.Value.Verdict.Chain] == nil {
			t.Fatalf("add element to %s: no chain %s", e.Set, e.Value.Verdict.Chain)
		}
		r.Sets[e.Set].Elements[e.Key] = e.Value
	}
	for _, c := range tx.SetRules {
		r.Chains[c.Name].Rules = c.Rules
	}
	for _, name := range tx.DeleteChains {
		delete(r.Chains, name)
	}
	for _, name := range tx.DeleteSets {
		delete(r.Sets, name)
	}
	check(t, r)
}

// check that rules and elements name what is there, and that no intervals overlap.
func check(t *testing.T, r Ruleset) {
	t.Helper()
	for _, c := range r.Chains {
		for _, rule := range c.Rules {
			for _, e := range rule.Exprs {
				if l, ok := e.(Lookup); ok && r.Sets[l.Set] == nil {
					t.Fatalf("chain %s names set %s", c.Name, l.Set)
				}
			}
		}
	}
	for _, s := range r.Sets {
		for k, v := range s.Elements {
			if v.Verdict.Kind == Jump && r.Chains[v.Verdict.Chain] == nil {
				t.Fatalf("set %s names chain %s", s.Name, v.Verdict.Chain)
			}
			for o := range s.Elements {
				if s.Interval && o != k && overlap(s.SetSpec, k, o) {
					t.Fatalf("set %s: %s and %s overlap", s.Name, s.key(k), s.key(o))
				}
			}
		}
	}
}

func overlap(s SetSpec, a, b Key) bool {
	al, ah, bl, bh := s.split(a.Low), s.split(a.High), s.split(b.Low), s.split(b.High)
	for i := range al {
		if ah[i] < bl[i] || bh[i] < al[i] {
			return false
		}
	}
	return true
}

// counted counts how often it is asked.
type counted struct {
	labels.Selector
	times *int
}

func (c counted) Matches(l labels.Labels) bool { *c.times++; return c.Selector.Matches(l) }

// TestPolicyConcernsItsPods: a policy that changes is no reason to look at all policies of its namespace for all pods.
func TestPolicyConcernsItsPods(t *testing.T) {
	const policies = 300
	in, times := coffee(), 0
	for i := range policies {
		subject := counted{selector(t, fmt.Sprintf("app=app%d", i)), &times}
		in.Policies = append(in.Policies, policy.Policy{Namespace: "coffee", Name: fmt.Sprint(i), Subject: subject, Ingress: isolate()})
	}
	for i := range 50 {
		pod := identity.Pod{Namespace: "coffee", Name: fmt.Sprint(i), UID: fmt.Sprint(i), Labels: map[string]string{"app": fmt.Sprintf("app%d", i%3)}, Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 244, 1, byte(100 + i)})}}
		in.Pods = append(in.Pods, pod)
		in.Attachments = append(in.Attachments, Attachment{Pod: pod.Key(), UID: pod.UID, Interface: fmt.Sprintf("kith-%d", i), Addresses: pod.Addresses})
	}
	c := CompilerOf(in)
	c.Commit()
	times = 0
	in.Policies[200].Egress = isolate()
	c.PutPolicy(in.Policies[200])
	c.Commit()
	if times > 100 {
		t.Errorf("%d selectors are asked when a policy for no pod changes", times)
	}
}

// TestRuleIsReadOnce: what a rule names is found out once, in however many chains its policy is.
func TestRuleIsReadOnce(t *testing.T) {
	in, times := coffee(), 0
	everyone := policy.Policy{
		Tier: policy.Admin, Name: "everyone", Namespaces: selector(t, "*"), Subject: selector(t, "*"),
		Egress: isolate(policy.Rule{Peers: []policy.Peer{{Nodes: counted{selector(t, "*"), &times}}}, Ports: portsApart(100)}),
	}
	in.Policies = []policy.Policy{everyone}
	for i := range 50 {
		pod := identity.Pod{Namespace: "coffee", Name: fmt.Sprint(i), UID: fmt.Sprint(i), Labels: map[string]string{"pod": fmt.Sprint(i)}, Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 244, 1, byte(100 + i)})}}
		in.Pods = append(in.Pods, pod)
		in.Attachments = append(in.Attachments, Attachment{Pod: pod.Key(), UID: pod.UID, Interface: fmt.Sprintf("kith-%d", i), Addresses: pod.Addresses})
		in.Policies = append(in.Policies, policy.Policy{
			Tier: policy.Admin, Name: fmt.Sprint(i), Namespaces: selector(t, "*"), Subject: selector(t, fmt.Sprintf("pod=%d", i)), Egress: isolate(),
		})
	}
	c := CompilerOf(in)
	c.Commit()
	if n := len(in.Network.Nodes); times != n {
		t.Errorf("the selector of %d nodes is asked %d times", n, times)
	}
	if got := c.Counts().Chains; got < 50 {
		t.Errorf("there are %d chains: this shows nothing", got)
	}
}
