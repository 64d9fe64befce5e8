package ruleset

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
	"github.com/kithnet/kith/policy/random"
)

func elements(r Ruleset, set string) []string {
	var out []string
	for _, line := range strings.Split(Ruleset{Sets: map[string]*Set{set: r.Sets[set]}}.String(), "\n") {
		if s, ok := strings.CutPrefix(line, "\t\t\t"); ok {
			out = append(out, strings.TrimSuffix(s, ","))
		}
	}
	return out
}

// TestAttachmentWaitsForItsPod: nothing opens before pod and namespace are known, a pod of the same name is not it, and
// its chains are in the transaction that opens it.
func TestAttachmentWaitsForItsPod(t *testing.T) {
	in := coffee()
	in.Policies = []policy.Policy{{Namespace: "coffee", Name: "deny", Subject: selector(t, "*"), Ingress: isolate()}}
	pay, veth := in.Pods[1], in.Attachments[0]
	c := NewCompiler()
	c.SetNetwork(in.Network)
	c.ReplacePolicies(in.Policies)
	c.PutAttachment(veth)
	c.Commit()
	steps := []struct {
		name string
		do   event
		open bool
	}{
		{"attachment alone", func(*Compiler) {}, false},
		{"pod without namespace", func(c *Compiler) { c.PutPod(pay) }, false},
		{"namespace", func(c *Compiler) { c.PutNamespace(in.Namespaces[0]) }, true},
		{"another pod of that name", func(c *Compiler) { o := pay; o.UID = "other"; c.PutPod(o) }, false},
		{"the pod again, address not known to the API yet", func(c *Compiler) { p := pay; p.Addresses = nil; c.PutPod(p) }, true},
		{"pod deleted before its attachment", func(c *Compiler) { c.DeletePod(pay.Key()) }, false},
		{"pod back", func(c *Compiler) { c.PutPod(pay) }, true},
		{"attachment deleted", func(c *Compiler) { c.DeleteAttachment(veth.Interface) }, false},
	}
	for _, s := range steps {
		s.do(c)
		tx := c.Commit()
		if got := c.Opened(veth.Interface); got != s.open {
			t.Errorf("%s: open is %t, want %t", s.name, got, s.open)
		}
		opens, chains := 0, 0
		for _, e := range tx.AddElements {
			if e.Opens() {
				opens++
			} else if opens > 0 {
				t.Errorf("%s: %s comes after what opens", s.name, e.Set)
			}
			if e.Set == mapIngress4 {
				chains++
			}
		}
		if opens > 0 && chains == 0 {
			t.Errorf("%s: opens in a transaction without the pod's chain:\n%s", s.name, tx)
		}
	}
}

// TestLocalAddressNeedsNoStatus: peers on this node are known by their attachment, before the API tells their address.
func TestLocalAddressNeedsNoStatus(t *testing.T) {
	in := coffee()
	in.Pods[2].Addresses = nil
	in.Policies = []policy.Policy{{
		Namespace: "coffee", Name: "tea", Subject: selector(t, "*"),
		Ingress: isolate(policy.Rule{AllPorts: true, Peers: []policy.Peer{{Namespaces: selector(t, "team=b"), Pods: selector(t, "*")}}}),
	}}
	r := Compile(in)
	if got := elements(r, mapIdentity4); len(got) != 1 || !strings.HasPrefix(got[0], "10.244.1.11 : ") {
		t.Errorf("identity4 is %v, want 10.244.1.11 alone", got)
	}
}

// TestNamedPortInBlock: a block stands for the pods in it too, and a port name for what it means in each of them.
func TestNamedPortInBlock(t *testing.T) {
	in := coffee()
	in.Policies = []policy.Policy{{
		Namespace: "coffee", Name: "named", Subject: selector(t, "*"),
		Egress: isolate(policy.Rule{
			Peers: []policy.Peer{{Block: &policy.Block{CIDR: netip.MustParsePrefix("10.244.1.0/24")}}},
			Ports: []policy.Port{{Protocol: identity.TCP, Name: "my-http"}},
		}),
	}}
	c := NewCompiler()
	c.SetNetwork(in.Network)
	c.ReplaceNamespaces(in.Namespaces)
	c.ReplacePolicies(in.Policies)
	c.ReplacePods(in.Pods)
	c.ReplaceAttachments(in.Attachments)
	set := func() []string {
		r := c.Ruleset()
		for name := range r.Sets {
			if strings.HasSuffix(name, setName4) {
				return elements(r, name)
			}
		}
		return []string{"no set"}
	}
	want := []string{"10.244.1.10 . tcp . 8080", "10.244.1.11 . tcp . 9090"}
	if d := cmp.Diff(want, set()); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	in.Pods[2].Ports[0].Number = 7070
	c.PutPod(in.Pods[2])
	want[1] = "10.244.1.11 . tcp . 7070"
	if d := cmp.Diff(want, set()); d != "" {
		t.Errorf("after the port changed (-want +got)\n%s", d)
	}
	c.DeletePod(in.Pods[2].Key())
	if d := cmp.Diff(want[:1], set()); d != "" {
		t.Errorf("after the pod went (-want +got)\n%s", d)
	}
}

// TestNothingStays: after everything went, the ruleset is that of a new compiler and nothing is remembered.
func TestNothingStays(t *testing.T) {
	empty := NewCompiler().Ruleset().String()
	for seed := range uint64(60) {
		in := inputOf(random.Cluster(random.New(seed)))
		c := NewCompiler()
		for _, p := range []Input{in, {}} {
			c.SetNetwork(p.Network)
			c.ReplaceNamespaces(p.Namespaces)
			c.ReplacePods(p.Pods)
			c.Commit()
			c.ReplacePolicies(p.Policies)
			c.ReplaceAttachments(p.Attachments)
			c.Commit()
		}
		if d := cmp.Diff(empty, c.Ruleset().String()); d != "" {
			t.Fatalf("seed %d: (-new +emptied)\n%s", seed, d)
		}
		left := len(c.policies) + len(c.policiesIn) + len(c.attachments) + len(c.claims) + len(c.chains) + len(c.chainsOf) +
			len(c.byAddress) + len(c.names) + c.closing + len(c.peers.byName) + len(c.peers.byNamespace) + len(c.peers.everywhere) + len(c.peers.of)
		if left > 0 {
			t.Fatalf("seed %d: %d things stay: %+v", seed, left, c)
		}
	}
}

// TestRestOfTheWorldCostsNothing: a pod that no local rule names is not told to the kernel.
func TestRestOfTheWorldCostsNothing(t *testing.T) {
	in := coffee()
	in.Policies = []policy.Policy{{
		Namespace: "coffee", Name: "shop", Subject: selector(t, "role=api"),
		Ingress: isolate(policy.Rule{AllPorts: true, Peers: []policy.Peer{{OwnNamespace: true, Pods: selector(t, "app=coffeeshop")}}}),
	}}
	c := NewCompiler()
	c.SetNetwork(in.Network)
	c.ReplaceNamespaces(in.Namespaces)
	c.ReplacePods(in.Pods)
	c.ReplacePolicies(in.Policies)
	c.ReplaceAttachments(in.Attachments)
	c.Commit()
	c.PutPod(identity.Pod{Namespace: "tea", Name: "far", UID: "9", Labels: map[string]string{"app": "tea"}, Addresses: addresses("10.244.2.99")})
	if tx := c.Commit(); !tx.Empty() {
		t.Errorf("a pod nobody names:\n%s", tx)
	}
	c.PutPod(identity.Pod{Namespace: "coffee", Name: "shop2", UID: "10", Labels: map[string]string{"app": "coffeeshop"}, Addresses: addresses("10.244.2.98")})
	tx := c.Commit()
	if len(tx.AddElements) != 1 || len(tx.DeleteElements)+len(tx.SetRules)+len(tx.AddSets) != 0 {
		t.Errorf("a pod with a known identity is not one element:\n%s", tx)
	}
}

// TestAddressGoesToAnotherAttachment: two claim one address, and the one that has it loses it to the other, which must
// not lose its place among the subjects by that.
func TestAddressGoesToAnotherAttachment(t *testing.T) {
	in := coffee()
	in.Policies = []policy.Policy{{Namespace: "coffee", Name: "deny", Subject: selector(t, "*"), Ingress: isolate()}}
	second := in.Attachments[0]
	first := second
	first.Interface = "kith-0000000001"
	in.Attachments = []Attachment{first, second}
	want := Compile(in)
	for range 32 { // attachments are settled in no order
		c := CompilerOf(Input{Pods: in.Pods, Namespaces: in.Namespaces, Policies: in.Policies, Attachments: in.Attachments[1:], Network: in.Network})
		c.Commit()
		c.PutAttachment(first)
		if d := cmp.Diff(want.String(), c.Ruleset().String()); d != "" {
			t.Fatalf("(-compiled at once +event by event)\n%s", d)
		}
	}
}
