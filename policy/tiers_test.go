package policy_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
)

// over is a ClusterNetworkPolicy for the bar's traffic in one direction.
func over(t *testing.T, tier policy.Tier, name string, d policy.Direction, rules ...policy.Rule) policy.Policy {
	p := onBar(t, d, rules...)
	p.Tier, p.Namespace, p.Name, p.Namespaces = tier, "", name, labels.Everything()
	return p
}

func after(p policy.Policy, priority int32) policy.Policy {
	p.Priority = priority
	return p
}

// TestDecideTiers follows one flow through the tiers. The bar is at 10.244.2.5 on node two, the shop at 10.244.1.5.
func TestDecideTiers(t *testing.T) {
	const admin, baseline, in, out = policy.Admin, policy.Baseline, policy.Ingress, policy.Egress
	everyone := policy.Peer{Namespaces: labels.Everything(), Pods: labels.Everything()}
	shop := policy.Peer{Namespaces: labels.Everything(), Pods: selector(t, "app=shop")}
	network := policy.Peer{Block: &policy.Block{CIDR: netip.MustParsePrefix("0.0.0.0/0")}}
	workers := policy.Peer{Nodes: selector(t, "role=worker")}
	act := func(a policy.Action, peers ...policy.Peer) policy.Rule {
		return policy.Rule{Action: a, Peers: peers, AllPorts: true}
	}
	accept, deny, pass := act(policy.Accept, everyone), act(policy.Deny, everyone), act(policy.Pass, everyone)
	const fromShop, self, own, ownMesh, other = "10.244.1.5", "10.244.2.5", "172.18.0.2", "10.244.2.1", "172.18.0.1"
	tests := []struct {
		name      string
		policies  []policy.Policy
		direction policy.Direction
		other     string // address
		want      bool
		tier      string
		reason    string
	}{
		{"Admin denies", []policy.Policy{over(t, admin, "a", in, deny), onBar(t, in, accept)}, in, fromShop, false, "Admin", "Admin ingress rule 0 of a denies it"},
		{"Admin accepts", []policy.Policy{over(t, admin, "a", in, accept), onBar(t, in)}, in, fromShop, true, "Admin", "Admin ingress rule 0 of a accepts it"},
		{"Admin says nothing", []policy.Policy{over(t, admin, "a", in), onBar(t, in)}, in, fromShop, false, "NetworkPolicy", "coffee/bar is isolated for ingress by coffee/bar and no rule allows it"},
		{"Admin does not match", []policy.Policy{over(t, admin, "a", in, act(policy.Deny, shop))}, in, "203.0.113.7", true, "", "no policy isolates coffee/bar for ingress"},
		{"first rule first", []policy.Policy{over(t, admin, "a", in, act(policy.Accept, shop), deny)}, in, fromShop, true, "Admin", "Admin ingress rule 0 of a accepts it"},
		{"zero rule", []policy.Policy{over(t, admin, "a", in, policy.Rule{}, deny)}, in, fromShop, false, "Admin", "Admin ingress rule 1 of a denies it"},
		{"lower priority value first", []policy.Policy{after(over(t, admin, "a", in, deny), 2), after(over(t, admin, "b", in, accept), 1)}, in, fromShop, true, "Admin", "Admin ingress rule 0 of b accepts it"},
		{"ties by name", []policy.Policy{over(t, admin, "b", in, deny), over(t, admin, "a", in, accept)}, in, fromShop, true, "Admin", "Admin ingress rule 0 of a accepts it"},
		{"priorities do not overflow", []policy.Policy{after(over(t, admin, "a", in, deny), 1<<31-1), after(over(t, admin, "b", in, accept), -1<<31)}, in, fromShop, true, "Admin", "Admin ingress rule 0 of b accepts it"},
		{"pass skips the tier", []policy.Policy{over(t, admin, "a", in, pass, deny), after(over(t, admin, "b", in, deny), 1), onBar(t, in, accept)}, in, fromShop, true, "NetworkPolicy", "Admin ingress rule 0 of a passes it on, ingress rule 0 of coffee/bar"},
		{"pass to nobody", []policy.Policy{over(t, admin, "a", in, pass)}, in, fromShop, true, "", "Admin ingress rule 0 of a passes it on, and no policy after it decides"},
		{"pass twice", []policy.Policy{over(t, admin, "a", in, pass), over(t, baseline, "b", in, pass, deny)}, in, fromShop, true, "", "Admin ingress rule 0 of a passes it on, Baseline ingress rule 0 of b passes it on, and no policy after it decides"},
		{"Baseline denies", []policy.Policy{over(t, baseline, "b", in, deny)}, in, fromShop, false, "Baseline", "Baseline ingress rule 0 of b denies it"},
		{"NetworkPolicy overrides Baseline", []policy.Policy{over(t, baseline, "b", in, deny), onBar(t, in, accept)}, in, fromShop, true, "NetworkPolicy", "ingress rule 0 of coffee/bar"},
		{"NetworkPolicy is final", []policy.Policy{over(t, baseline, "b", in, accept), onBar(t, in)}, in, fromShop, false, "NetworkPolicy", "coffee/bar is isolated for ingress by coffee/bar and no rule allows it"},
		{"a pod of no NetworkPolicy's direction", []policy.Policy{over(t, baseline, "b", in, deny), onBar(t, out)}, in, fromShop, false, "Baseline", "Baseline ingress rule 0 of b denies it"},
		{"itself, isolated", []policy.Policy{over(t, baseline, "b", in, deny), onBar(t, in)}, in, self, true, "NetworkPolicy", "a pod may always reach itself"},
		{"itself, Admin", []policy.Policy{over(t, admin, "a", in, deny), onBar(t, in)}, in, self, false, "Admin", "Admin ingress rule 0 of a denies it"},
		{"itself, Admin, sending", []policy.Policy{over(t, admin, "a", out, deny), onBar(t, out)}, out, self, false, "Admin", "Admin egress rule 0 of a denies it"},
		{"itself, Baseline", []policy.Policy{over(t, baseline, "b", in, deny)}, in, self, false, "Baseline", "Baseline ingress rule 0 of b denies it"},
		{"from its own node", []policy.Policy{over(t, admin, "a", in, act(policy.Deny, network))}, in, own, true, "", "a pod's own node may always reach it"},
		{"to its own node", []policy.Policy{onBar(t, out)}, out, own, true, "NetworkPolicy", "a pod may always reach its own node"},
		{"to its own node, Admin", []policy.Policy{over(t, admin, "a", out, act(policy.Deny, workers)), onBar(t, out)}, out, own, false, "Admin", "Admin egress rule 0 of a denies it"},
		{"to its own node's mesh address", []policy.Policy{over(t, baseline, "a", out, act(policy.Deny, workers))}, out, ownMesh, false, "Baseline", "Baseline egress rule 0 of a denies it"},
		{"to another node", []policy.Policy{over(t, baseline, "a", out, act(policy.Deny, workers))}, out, other, true, "", "no policy isolates coffee/bar for egress"},
		{"to a network", []policy.Policy{over(t, baseline, "a", out, act(policy.Deny, network))}, out, other, false, "Baseline", "Baseline egress rule 0 of a denies it"},
		{"a named rule", []policy.Policy{over(t, admin, "a", in, policy.Rule{Name: "keep out", Action: policy.Deny, AllPeers: true, AllPorts: true})}, in, fromShop, false, "Admin", "Admin ingress rule 0 of a (keep out) denies it"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := cluster()
			c.Nodes[1].Labels = map[string]string{"role": "worker"}
			c.Policies = tt.policies
			f := policy.Flow{Source: addr(tt.other), Destination: addr("10.244.2.5"), Protocol: identity.TCP, Port: 80}
			if tt.direction == out {
				f.Source, f.Destination = f.Destination, f.Source
			}
			if f.Hairpin = f.Source == f.Destination; f.Hairpin {
				ownAddressIsFree(t, c, f)
			}
			v := policy.Decide(c, f)
			got := v.Ingress
			if tt.direction == out {
				got = v.Egress
			}
			if v.Allowed != tt.want || got.Allowed != tt.want || got.Tier != tt.tier {
				t.Errorf("allowed is %t (%s alone %t) by tier %q, want %t by %q", v.Allowed, tt.direction, got.Allowed, got.Tier, tt.want, tt.tier)
			}
			if diff := cmp.Diff(tt.reason, got.Reason); diff != "" {
				t.Errorf("reason (-want +got)\n%s", diff)
			}
		})
	}
}

// ownAddressIsFree: what a pod sends to its own address, by no Service, is subject to nothing.
func ownAddressIsFree(t *testing.T, c policy.Cluster, f policy.Flow) {
	t.Helper()
	f.Hairpin = false
	if v := policy.Decide(c, f); !v.Allowed || v.Ingress.Tier+v.Egress.Tier != "" {
		t.Errorf("a pod to its own address: %+v", v)
	}
}

func TestDecideSubjectsByNamespace(t *testing.T) {
	c := cluster()
	p := over(t, policy.Admin, "a", policy.Ingress, policy.Rule{Action: policy.Deny, AllPeers: true, AllPorts: true})
	p.Namespaces, p.Subject = selector(t, "!team"), labels.Everything()
	c.Policies = []policy.Policy{p}
	for to, want := range map[string]bool{"10.244.2.5": true, "10.244.2.6": false} {
		v := policy.Decide(c, policy.Flow{Source: addr("10.244.1.5"), Destination: addr(to), Protocol: identity.TCP, Port: 80})
		if v.Allowed != want {
			t.Errorf("to %s: allowed is %t, want %t", to, v.Allowed, want)
		}
	}
}

// TestUnknownMayBeAnyPod: whoever of the cluster is not known is denied what any pod is denied, and accepted as none.
func TestUnknownMayBeAnyPod(t *testing.T) {
	const admin, baseline, in, out = policy.Admin, policy.Baseline, policy.Ingress, policy.Egress
	nobody := policy.Peer{Namespaces: selector(t, "team=nobody"), Pods: labels.Everything()}
	network := policy.Peer{Block: &policy.Block{CIDR: netip.MustParsePrefix("10.244.1.0/24")}}
	rule := func(a policy.Action, p policy.Peer, ports ...policy.Port) policy.Rule {
		return policy.Rule{Action: a, Peers: []policy.Peer{p}, AllPorts: len(ports) == 0, Ports: ports}
	}
	port := func(n uint16) policy.Port { return policy.Port{Protocol: identity.TCP, First: n, Last: n} }
	web := policy.Port{Protocol: identity.TCP, Name: "web"}
	tests := []struct {
		name      string
		policy    policy.Policy
		direction policy.Direction
		other     string
		want      bool
	}{
		{"denied as a pod", over(t, admin, "a", in, rule(policy.Deny, nobody)), in, "10.244.1.77", false},
		{"denied as a destination", over(t, baseline, "a", out, rule(policy.Deny, nobody)), out, "10.244.1.77", false},
		{"not accepted before", over(t, admin, "a", in, rule(policy.Accept, nobody), rule(policy.Deny, nobody)), in, "10.244.1.77", false},
		{"not passed before", over(t, admin, "a", in, rule(policy.Pass, nobody), rule(policy.Deny, nobody)), in, "10.244.1.77", false},
		{"accepted by its address", over(t, admin, "a", in, rule(policy.Accept, network), rule(policy.Deny, nobody)), in, "10.244.1.77", true},
		{"at the port", over(t, admin, "a", in, rule(policy.Deny, nobody, port(80))), in, "10.244.1.77", false},
		{"at another port", over(t, admin, "a", in, rule(policy.Deny, nobody, port(81))), in, "10.244.1.77", true},
		{"at a port whose name it may have", over(t, admin, "a", out, rule(policy.Deny, nobody, web)), out, "10.244.1.77", false},
		{"at a port whose name is the subject's", over(t, admin, "a", in, rule(policy.Deny, nobody, web)), in, "10.244.1.77", true},
		{"a known pod", over(t, admin, "a", in, rule(policy.Deny, nobody)), in, "10.244.1.5", true},
		{"a node in the mesh", over(t, admin, "a", in, rule(policy.Deny, nobody)), in, "10.244.1.1", true},
		{"outside of the cluster", over(t, admin, "a", in, rule(policy.Deny, nobody)), in, "203.0.113.7", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := cluster()
			c.Policies = []policy.Policy{tt.policy}
			f := policy.Flow{Source: addr(tt.other), Destination: addr("10.244.2.5"), Protocol: identity.TCP, Port: 80}
			if tt.direction == out {
				f.Source, f.Destination = f.Destination, f.Source
			}
			if v := policy.Decide(c, f); v.Allowed != tt.want {
				t.Errorf("allowed: %t, want %t (egress: %s; ingress: %s)", v.Allowed, tt.want, v.Egress.Reason, v.Ingress.Reason)
			}
		})
	}
}
