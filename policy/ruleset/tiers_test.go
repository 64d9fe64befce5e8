package ruleset

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
)

// tiers are ClusterNetworkPolicies with every action, and a NetworkPolicy between them.
func tiers(t *testing.T) []policy.Policy {
	everyone := selector(t, "*")
	tea := policy.Peer{Namespaces: selector(t, "team=b"), Pods: everyone}
	anybody := policy.Peer{Namespaces: everyone, Pods: everyone}
	outside := policy.Peer{Block: &policy.Block{CIDR: netip.MustParsePrefix("203.0.113.0/24")}}
	two := policy.Peer{Nodes: selector(t, "zone=b")}
	dns := []policy.Port{{Protocol: identity.UDP, First: 53, Last: 53}}
	return []policy.Policy{
		{
			Tier: policy.Admin, Name: "last", Priority: 20, Namespaces: everyone, Subject: everyone,
			Ingress: isolate(policy.Rule{Action: policy.Deny, Peers: []policy.Peer{tea}, AllPorts: true}),
			Egress:  isolate(policy.Rule{Action: policy.Deny, Peers: []policy.Peer{tea, outside}, AllPorts: true}, policy.Rule{}, policy.Rule{Action: policy.Deny, Peers: []policy.Peer{two}, Ports: []policy.Port{tcp(22, 22)}}),
		},
		{
			Tier: policy.Admin, Name: "first", Priority: 10, Namespaces: selector(t, "team=a"), Subject: selector(t, "role=api"),
			Ingress: isolate(policy.Rule{Action: policy.Pass, Peers: []policy.Peer{tea}, Ports: []policy.Port{tcp(80, 80)}}),
			Egress:  isolate(policy.Rule{Action: policy.Accept, Peers: []policy.Peer{anybody}, Ports: dns}),
		},
		{Namespace: "coffee", Name: "between", Subject: selector(t, "role=api"), Ingress: isolate(policy.Rule{Peers: []policy.Peer{tea}, Ports: []policy.Port{tcp(80, 80)}})},
		{Tier: policy.Baseline, Name: "else", Namespaces: everyone, Subject: everyone, Egress: isolate(policy.Rule{Action: policy.Deny, AllPeers: true, AllPorts: true}, policy.Rule{AllPeers: true, AllPorts: true})},
	}
}

func labelled() Input {
	in := coffee()
	in.Network.Nodes[1].Labels = map[string]string{"zone": "b"}
	return in
}

func TestTiersGolden(t *testing.T) {
	in := labelled()
	in.Policies = tiers(t)
	golden(t, "tiers.nft", Compile(in).String())
}

// TestDomainsGolden: names have sets of their own, which two policies share, and rules that look there for what the pod was
// told.
func TestDomainsGolden(t *testing.T) {
	in := labelled()
	named := func(name string, priority int32, ports []policy.Port, domains ...policy.Domain) policy.Policy {
		return policy.Policy{
			Tier: policy.Admin, Name: name, Priority: priority, Namespaces: labels.Everything(), Subject: selector(t, "role=api"),
			Egress: &policy.Rules{{Peers: []policy.Peer{{Domains: domains}}, AllPorts: ports == nil, Ports: ports}},
		}
	}
	web := []policy.Port{{Protocol: identity.TCP, First: 443, Last: 443}, {Protocol: identity.TCP, First: 8000, Last: 8999}}
	in.Policies = []policy.Policy{named("some-ports", 1, web, "api.example.com", "*.example.org"), named("all-ports", 2, nil, "*.example.org")}
	c := CompilerOf(in)
	c.Commit()
	golden(t, "domains.nft", c.Ruleset().String())
	c.DeletePolicy(policy.Name{Name: "some-ports"})
	golden(t, "transaction/domains-policy-deleted.nft", c.Commit().String())
	c.DeletePolicy(policy.Name{Name: "all-ports"})
	c.Commit()
	if d := cmp.Diff(Compile(labelled()).String(), c.Ruleset().String()); d != "" {
		t.Errorf("something stays (-never there +deleted)\n%s", d)
	}
}

// TestListeners: those whose policies name domains, by each of their addresses, and no others.
func TestListeners(t *testing.T) {
	in := labelled()
	in.Policies = []policy.Policy{{
		Tier: policy.Baseline, Name: "named", Namespaces: labels.Everything(), Subject: selector(t, "role=api"),
		Egress: &policy.Rules{{Peers: []policy.Peer{{Domains: []policy.Domain{"*.example.org", "example.org"}}}, AllPorts: true}},
	}}
	pay := in.Attachments[0].Addresses
	l := Listener{Interface: in.Attachments[0].Interface, Addresses: pay, Domains: []policy.Domain{"*.example.org", "example.org"}}
	got := CompilerOf(in).Listeners()
	if d := cmp.Diff(map[netip.Addr]Listener{pay[0]: l, pay[1]: l}, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	four, six := netip.MustParseAddr("203.0.113.7"), netip.MustParseAddr("2001:db8::7")
	for _, tt := range []struct {
		name    policy.Domain
		address netip.Addr
		want    []ElementChange
	}{
		{"example.org", four, []ElementChange{Told("example.org", pay[0], four)}},
		{"www.example.org", six, []ElementChange{Told("*.example.org", pay[1], six)}},
		{"example.com", four, nil},
	} {
		if d := cmp.Diff(tt.want, l.Lessons(tt.name, tt.address)); d != "" {
			t.Errorf("%s is %s (-want +got)\n%s", tt.name, tt.address, d)
		}
	}
}

// TestPriorityGolden: only the order of two policies changes. New sets are filled before the chain's rules change, the
// old ones go after: nothing that is denied passes in between, also where the transaction is cut.
func TestPriorityGolden(t *testing.T) {
	in := labelled()
	in.Policies = tiers(t)
	c := NewCompiler()
	c.SetNetwork(in.Network)
	c.ReplaceNamespaces(in.Namespaces)
	c.ReplacePods(in.Pods)
	c.ReplacePolicies(in.Policies)
	c.ReplaceAttachments(in.Attachments)
	c.Commit()
	first := in.Policies[1]
	first.Priority = 30
	c.PutPolicy(first)
	golden(t, "transaction/tiers-priority.nft", c.Commit().String())
}

// TestRuleAddedKeepsTheOtherSets: the sets of rules that stay are not written again.
func TestRuleAddedKeepsTheOtherSets(t *testing.T) {
	in := labelled()
	in.Policies = tiers(t)
	before := Compile(in)
	last := in.Policies[0]
	last.Egress = isolate(append([]policy.Rule{{Action: policy.Pass, AllPeers: true, Ports: []policy.Port{tcp(443, 443)}}}, *last.Egress...)...)
	in.Policies[0] = last
	tx := Diff(before, Compile(in))
	if len(tx.DeleteElements)+len(tx.DeleteSets)+len(tx.DeleteChains) > 0 {
		t.Errorf("a new first rule takes something away:\n%s", tx)
	}
	for _, e := range tx.AddElements {
		if before.Sets[e.Set] != nil {
			t.Errorf("a new rule that passes adds to %s", e.Set)
		}
	}
}

// TestRestrains: elements of sets that deny or pass are told from those of sets that accept.
func TestRestrains(t *testing.T) {
	in := labelled()
	in.Policies = tiers(t)
	restrain, accept := 0, 0
	for name, s := range Compile(in).Sets {
		for k := range s.Elements {
			c := ElementChange{Set: name, Key: k}
			if c.Restrains() {
				restrain++
			}
			if strings.Contains(name, "_accept_") || strings.HasPrefix(name, "in_") {
				accept++
				if c.Restrains() {
					t.Errorf("an element of %s restrains", name)
				}
			}
		}
	}
	if restrain == 0 || accept == 0 {
		t.Errorf("%d elements restrain, %d accept", restrain, accept)
	}
}
