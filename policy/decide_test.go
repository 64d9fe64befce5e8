package policy_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func selector(t *testing.T, s string) labels.Selector {
	t.Helper()
	sel, err := labels.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return sel
}

func pod(namespace, name, address string, l map[string]string, ports ...identity.NamedPort) identity.Pod {
	return identity.Pod{Namespace: namespace, Name: name, UID: name, Labels: l, Ports: ports, Addresses: []netip.Addr{addr(address)}}
}

// cluster has a shop and a bar in one namespace and a thief in another.
func cluster() policy.Cluster {
	return policy.Cluster{
		Namespaces: []identity.Namespace{{Name: "coffee", Labels: map[string]string{"team": "a"}}, {Name: "den"}},
		Pods: []identity.Pod{
			pod("coffee", "shop", "10.244.1.5", map[string]string{"app": "shop"}),
			pod("coffee", "bar", "10.244.2.5", map[string]string{"app": "bar"}, identity.NamedPort{Name: "web", Protocol: identity.TCP, Number: 8080}),
			pod("den", "thief", "10.244.2.6", map[string]string{"app": "shop"}, identity.NamedPort{Name: "web", Protocol: identity.TCP, Number: 9090}),
		},
		Nodes: []policy.Node{
			{Name: "one", PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}, Addresses: []netip.Addr{addr("172.18.0.1")}, Mesh: []netip.Addr{addr("10.244.1.1")}},
			{Name: "two", PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.2.0/24")}, Addresses: []netip.Addr{addr("172.18.0.2")}, Mesh: []netip.Addr{addr("10.244.2.1")}},
		},
	}
}

func port(first, last uint16) policy.Port {
	return policy.Port{Protocol: identity.TCP, First: first, Last: last}
}

// onBar isolates the bar in one direction, with a rule.
func onBar(t *testing.T, d policy.Direction, rules ...policy.Rule) policy.Policy {
	p := policy.Policy{Namespace: "coffee", Name: "bar", Subject: selector(t, "app=bar")}
	r := policy.Rules(rules)
	if d == policy.Egress {
		p.Egress = &r
	} else {
		p.Ingress = &r
	}
	return p
}

func TestDecide(t *testing.T) {
	shop := policy.Peer{OwnNamespace: true, Pods: selector(t, "app=shop")}
	anyShop := policy.Peer{Namespaces: labels.Everything(), Pods: selector(t, "app=shop")}
	block := func(cidr string, except ...string) policy.Peer {
		b := policy.Block{CIDR: netip.MustParsePrefix(cidr)}
		for _, e := range except {
			b.Except = append(b.Except, netip.MustParsePrefix(e))
		}
		return policy.Peer{Block: &b}
	}
	web := policy.Port{Protocol: identity.TCP, Name: "web"}
	all := func(peers ...policy.Peer) policy.Rule { return policy.Rule{Peers: peers, AllPorts: true} }
	tests := []struct {
		name     string
		policies []policy.Policy
		from, to string
		protocol identity.Protocol
		port     uint16
		want     bool
		end      policy.Direction
		reason   string
	}{
		{"no policy", nil, "10.244.1.5", "10.244.2.5", identity.TCP, 80, true, policy.Ingress, "no policy isolates coffee/bar for ingress"},
		{"no rules", []policy.Policy{onBar(t, policy.Ingress)}, "10.244.1.5", "10.244.2.5", identity.TCP, 80, false, policy.Ingress, "coffee/bar is isolated for ingress by coffee/bar and no rule allows it"},
		{"ingress does not isolate egress", []policy.Policy{onBar(t, policy.Ingress)}, "10.244.2.5", "10.244.1.5", identity.TCP, 80, true, policy.Egress, "no policy isolates coffee/bar for egress"},
		{"zero rule", []policy.Policy{onBar(t, policy.Ingress, policy.Rule{})}, "10.244.1.5", "10.244.2.5", identity.TCP, 80, false, policy.Ingress, "coffee/bar is isolated for ingress by coffee/bar and no rule allows it"},
		{"own namespace", []policy.Policy{onBar(t, policy.Ingress, all(shop))}, "10.244.1.5", "10.244.2.5", identity.TCP, 80, true, policy.Ingress, "ingress rule 0 of coffee/bar"},
		{"same labels elsewhere", []policy.Policy{onBar(t, policy.Ingress, all(shop))}, "10.244.2.6", "10.244.2.5", identity.TCP, 80, false, policy.Ingress, "coffee/bar is isolated for ingress by coffee/bar and no rule allows it"},
		{"every namespace", []policy.Policy{onBar(t, policy.Ingress, policy.Rule{}, all(anyShop))}, "10.244.2.6", "10.244.2.5", identity.TCP, 80, true, policy.Ingress, "ingress rule 1 of coffee/bar"},
		{"outside by a selector of everything", []policy.Policy{onBar(t, policy.Ingress, all(policy.Peer{Namespaces: labels.Everything(), Pods: labels.Everything()}))}, "203.0.113.7", "10.244.2.5", identity.TCP, 80, false, policy.Ingress, "coffee/bar is isolated for ingress by coffee/bar and no rule allows it"},
		{"named port of the subject", []policy.Policy{onBar(t, policy.Ingress, policy.Rule{AllPeers: true, Ports: []policy.Port{web}})}, "10.244.1.5", "10.244.2.5", identity.TCP, 8080, true, policy.Ingress, "ingress rule 0 of coffee/bar"},
		{"named port of the destination", []policy.Policy{onBar(t, policy.Egress, policy.Rule{AllPeers: true, Ports: []policy.Port{web}})}, "10.244.2.5", "10.244.2.6", identity.TCP, 9090, true, policy.Egress, "egress rule 0 of coffee/bar"},
		{"named port, the subject's number", []policy.Policy{onBar(t, policy.Egress, policy.Rule{AllPeers: true, Ports: []policy.Port{web}})}, "10.244.2.5", "10.244.2.6", identity.TCP, 8080, false, policy.Egress, "coffee/bar is isolated for egress by coffee/bar and no rule allows it"},
		{"end of a range", []policy.Policy{onBar(t, policy.Ingress, policy.Rule{AllPeers: true, Ports: []policy.Port{port(80, 90)}})}, "10.244.1.5", "10.244.2.5", identity.TCP, 90, true, policy.Ingress, "ingress rule 0 of coffee/bar"},
		{"after a range", []policy.Policy{onBar(t, policy.Ingress, policy.Rule{AllPeers: true, Ports: []policy.Port{port(80, 90)}})}, "10.244.1.5", "10.244.2.5", identity.TCP, 91, false, policy.Ingress, "coffee/bar is isolated for ingress by coffee/bar and no rule allows it"},
		{"other protocol", []policy.Policy{onBar(t, policy.Ingress, policy.Rule{AllPeers: true, Ports: []policy.Port{port(80, 90)}})}, "10.244.1.5", "10.244.2.5", identity.UDP, 80, false, policy.Ingress, "coffee/bar is isolated for ingress by coffee/bar and no rule allows it"},
		{"echo with ports", []policy.Policy{onBar(t, policy.Ingress, policy.Rule{AllPeers: true, Ports: []policy.Port{port(0, 65535)}})}, "10.244.1.5", "10.244.2.5", 1, 0, false, policy.Ingress, "coffee/bar is isolated for ingress by coffee/bar and no rule allows it"},
		{"echo without ports", []policy.Policy{onBar(t, policy.Ingress, all(shop))}, "10.244.1.5", "10.244.2.5", 1, 0, true, policy.Ingress, "ingress rule 0 of coffee/bar"},
		{"pod in a block", []policy.Policy{onBar(t, policy.Ingress, all(block("10.244.1.0/24")))}, "10.244.1.5", "10.244.2.5", identity.TCP, 80, true, policy.Ingress, "ingress rule 0 of coffee/bar"},
		{"pod in a hole", []policy.Policy{onBar(t, policy.Ingress, all(block("10.244.0.0/16", "10.244.1.4/30")))}, "10.244.1.5", "10.244.2.5", identity.TCP, 80, false, policy.Ingress, "coffee/bar is isolated for ingress by coffee/bar and no rule allows it"},
		{"itself", []policy.Policy{onBar(t, policy.Ingress), onBar(t, policy.Egress)}, "10.244.2.5", "10.244.2.5", identity.TCP, 80, true, policy.Ingress, "what a pod sends to its own address never leaves it: no policy applies"},
		{"own node", []policy.Policy{onBar(t, policy.Ingress)}, "172.18.0.2", "10.244.2.5", identity.TCP, 80, true, policy.Ingress, "a pod's own node may always reach it"},
		{"own node under its mesh address", []policy.Policy{onBar(t, policy.Ingress)}, "10.244.2.1", "10.244.2.5", identity.TCP, 80, true, policy.Ingress, "a pod's own node may always reach it"},
		{"other node", []policy.Policy{onBar(t, policy.Ingress)}, "172.18.0.1", "10.244.2.5", identity.TCP, 80, false, policy.Ingress, "coffee/bar is isolated for ingress by coffee/bar and no rule allows it"},
		{"other node in a block", []policy.Policy{onBar(t, policy.Ingress, all(block("172.18.0.1/32")))}, "172.18.0.1", "10.244.2.5", identity.TCP, 80, true, policy.Ingress, "ingress rule 0 of coffee/bar"},
		{"its mesh address", []policy.Policy{onBar(t, policy.Ingress, all(block("172.18.0.1/32")))}, "10.244.1.1", "10.244.2.5", identity.TCP, 80, true, policy.Ingress, "ingress rule 0 of coffee/bar"},
		{"its mesh address, the node in a hole", []policy.Policy{onBar(t, policy.Ingress, all(block("0.0.0.0/0", "172.18.0.0/16")))}, "10.244.1.1", "10.244.2.5", identity.TCP, 80, false, policy.Ingress, "coffee/bar is isolated for ingress by coffee/bar and no rule allows it"},
		{"its mesh address in a block of pods", []policy.Policy{onBar(t, policy.Ingress, all(block("10.244.0.0/16")))}, "10.244.1.1", "10.244.2.5", identity.TCP, 80, false, policy.Ingress, "coffee/bar is isolated for ingress by coffee/bar and no rule allows it"},
		{"to a mesh address, the node in a hole", []policy.Policy{onBar(t, policy.Egress, all(block("0.0.0.0/0", "172.18.0.0/16")))}, "10.244.2.5", "10.244.1.1", identity.TCP, 10250, false, policy.Egress, "coffee/bar is isolated for egress by coffee/bar and no rule allows it"},
		{"not a pod", []policy.Policy{onBar(t, policy.Ingress)}, "10.244.2.5", "203.0.113.7", identity.TCP, 80, true, policy.Ingress, "203.0.113.7 is not a pod: no policy applies"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := cluster()
			c.Policies = tt.policies
			v := policy.Decide(c, policy.Flow{Source: addr(tt.from), Destination: addr(tt.to), Protocol: tt.protocol, Port: tt.port})
			d := v.Ingress
			if tt.end == policy.Egress {
				d = v.Egress
			}
			if v.Allowed != tt.want || d.Allowed != tt.want {
				t.Errorf("allowed is %t, %s alone %t, want %t", v.Allowed, tt.end, d.Allowed, tt.want)
			}
			if diff := cmp.Diff(tt.reason, d.Reason); diff != "" {
				t.Errorf("reason (-want +got)\n%s", diff)
			}
		})
	}
}

func TestDecideNeedsBothEnds(t *testing.T) {
	everyone := policy.Rules{{AllPeers: true, AllPorts: true}}
	nobody := policy.Rules{}
	for _, tt := range []struct {
		egress, ingress *policy.Rules
		want            bool
	}{{&everyone, &everyone, true}, {&everyone, &nobody, false}, {&nobody, &everyone, false}, {nil, &everyone, true}, {&nobody, nil, false}} {
		c := cluster()
		c.Policies = []policy.Policy{
			{Namespace: "coffee", Name: "out", Subject: selector(t, "app=shop"), Egress: tt.egress},
			{Namespace: "coffee", Name: "in", Subject: selector(t, "app=bar"), Ingress: tt.ingress},
		}
		v := policy.Decide(c, policy.Flow{Source: addr("10.244.1.5"), Destination: addr("10.244.2.5"), Protocol: identity.TCP, Port: 80})
		if v.Allowed != tt.want {
			t.Errorf("egress %v, ingress %v: allowed is %t", tt.egress, tt.ingress, v.Allowed)
		}
	}
}

func TestDecideKnowsOnlyTheNewestOfAnAddress(t *testing.T) {
	c := cluster()
	ghost := pod("coffee", "ghost", "10.244.2.6", map[string]string{"app": "shop"})
	c.Pods[2].Created, ghost.Created = time.Unix(2, 0), time.Unix(1, 0)
	c.Pods = append(c.Pods, ghost)
	c.Policies = []policy.Policy{onBar(t, policy.Ingress, policy.Rule{AllPorts: true, Peers: []policy.Peer{{OwnNamespace: true, Pods: labels.Everything()}}})}
	if v := policy.Decide(c, policy.Flow{Source: addr("10.244.2.6"), Destination: addr("10.244.2.5"), Protocol: identity.TCP, Port: 80}); v.Allowed {
		t.Errorf("the address's former owner is let in: %+v", v.Ingress)
	}
}

func TestDecidePodWithoutNamespaceIsNobody(t *testing.T) {
	c := cluster()
	c.Namespaces = c.Namespaces[:1]
	c.Policies = []policy.Policy{onBar(t, policy.Ingress, policy.Rule{AllPorts: true, Peers: []policy.Peer{{Namespaces: selector(t, "!team"), Pods: labels.Everything()}}})}
	if v := policy.Decide(c, policy.Flow{Source: addr("10.244.2.6"), Destination: addr("10.244.2.5"), Protocol: identity.TCP, Port: 80}); v.Allowed {
		t.Errorf("a pod whose namespace's labels are not known is taken for one without them: %+v", v.Ingress)
	}
}
