package walk

import (
	"net/netip"
	"testing"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
	"github.com/kithnet/kith/policy/ruleset"
	"k8s.io/apimachinery/pkg/labels"
)

// TestFullSetDeniesNothing: what a pod was told it reaches, though nothing more can be remembered of open connections; and
// what is remembered goes on when it is told no more.
func TestFullSetDeniesNothing(t *testing.T) {
	for _, tt := range []struct{ pod, address, net string }{{"10.244.1.5", "203.0.113.7", "0.0.0.0/0"}, {"fd00:1::5", "2001:db8::7", "::/0"}} {
		for _, ports := range [][]policy.Port{nil, {{Protocol: identity.TCP, First: 443, Last: 443}}} {
			address := netip.MustParseAddr(tt.address)
			pod := identity.Pod{Namespace: "a", Name: "p", UID: "1", Addresses: []netip.Addr{netip.MustParseAddr(tt.pod)}}
			paths := Compile(policy.Cluster{
				Pods: []identity.Pod{pod}, Namespaces: []identity.Namespace{{Name: "a"}},
				Nodes: []policy.Node{{
					Name: "one", PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:1::/64")},
					Addresses: []netip.Addr{netip.MustParseAddr("172.18.0.1"), netip.MustParseAddr("fc00::1")},
				}},
				Policies: []policy.Policy{{Tier: policy.Admin, Name: "named", Namespaces: labels.Everything(), Subject: labels.Everything(), Egress: &policy.Rules{
					{Peers: []policy.Peer{{Domains: []policy.Domain{"a.example"}}}, AllPorts: ports == nil, Ports: ports},
					{Action: policy.Deny, Peers: []policy.Peer{{Block: &policy.Block{CIDR: netip.MustParsePrefix(tt.net)}}}, AllPorts: true},
				}}},
				Answers: []policy.Answer{{Pod: pod.Key(), Name: "a.example", Address: address}},
			})
			told := ruleset.Told("a.example", pod.Addresses[0], address)
			sets := paths.Ruleset("one").Sets
			held := sets["held"+told.Set[len("told"):]].Elements
			for a := address; len(held) < ruleset.LearnedSize; {
				a = a.Next()
				held[ruleset.Told("a.example", pod.Addresses[0], a).Key] = ruleset.Value{}
			}
			f := policy.Flow{Source: pod.Addresses[0], Destination: address, Protocol: identity.TCP, Port: 443}
			if got, trace, err := paths.Flow(f); !got || err != nil {
				t.Errorf("%v: dropped by %s, %v", f, trace, err)
			}
			delete(sets[told.Set].Elements, told.Key)
			f.Destination = address.Next()
			for _, direction := range []ruleset.CTDirection{ruleset.Original, ruleset.Reply} {
				conn := Conn{State: ruleset.StateEstablished, Direction: direction, Original: f.Source, Reply: f.Destination}
				if by, err := paths.packet(f, conn); by != "" || err != nil {
					t.Errorf("%v, open, direction %v: dropped by %s, %v", f, direction, by, err)
				}
			}
		}
	}
}
