package walk

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// TestManyRulesOfPorts: rules each of which has ports of its own, which overlap, do what the specification says, whatever
// their action; what they do not match goes on to the rules behind them.
func TestManyRulesOfPorts(t *testing.T) {
	four, six := netip.MustParseAddr("10.244.1.5"), netip.MustParseAddr("fd00:1::5")
	pod := identity.Pod{Namespace: "a", Name: "p", UID: "1", Addresses: []netip.Addr{four, six}}
	other := identity.Pod{Namespace: "a", Name: "q", UID: "2", Labels: map[string]string{"app": "q"}, Addresses: []netip.Addr{netip.MustParseAddr("10.244.2.5")}}
	ends := []netip.Addr{other.Addresses[0], netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8::1")}
	for _, action := range []policy.Action{policy.Accept, policy.Deny, policy.Pass} {
		for _, behind := range []policy.Action{policy.Accept, policy.Deny} {
			var rules policy.Rules
			for i := range uint16(10) {
				peers := []policy.Peer{{Namespaces: labels.Everything(), Pods: oneOf("q", string(rune('a'+i)))}}
				if i%2 == 0 {
					peers = []policy.Peer{{Block: &policy.Block{CIDR: netip.MustParsePrefix("192.0.2.0/24")}}, {Block: &policy.Block{CIDR: netip.MustParsePrefix("2001:db8::/32")}}, {Block: &policy.Block{CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}), 32)}}}
				}
				r := policy.Rule{Action: action, Peers: peers}
				for n := range uint16(5) {
					r.Ports = append(r.Ports, policy.Port{Protocol: identity.TCP, First: 80 + 3*i + 10*n, Last: 84 + 3*i + 10*n})
				}
				rules = append(rules, r)
			}
			rules = append(rules, policy.Rule{Action: behind, AllPeers: true, AllPorts: true})
			c := policy.Cluster{
				Pods: []identity.Pod{pod, other}, Namespaces: []identity.Namespace{{Name: "a"}},
				Nodes:    []policy.Node{{Name: "one", PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:1::/64")}}},
				Policies: []policy.Policy{{Tier: policy.Admin, Name: "many", Namespaces: labels.Everything(), Subject: labels.SelectorFromSet(nil), Egress: &rules}},
			}
			paths := Compile(c)
			if ways := strings.Contains(paths.Ruleset("one").String(), "vmap @ways_"); ways == (action == policy.Pass || action == behind) {
				t.Fatalf("%s: there are ways: %t", action, ways)
			}
			for _, end := range ends {
				for port := range uint16(200) {
					f := policy.Flow{Source: four, Destination: end, Protocol: identity.TCP, Port: port}
					if end.Is6() {
						f.Source = six
					}
					got, trace, err := paths.Flow(f)
					if want := policy.Decide(c, f); err != nil || got != want.Allowed {
						t.Fatalf("%s, then %s: %v passes: %t (%s) %v; %s", action, behind, f, got, trace, err, want.Egress.Reason)
					}
				}
			}
		}
	}
}

// oneOf selects two kinds of pods.
func oneOf(apps ...string) labels.Selector {
	r, err := labels.NewRequirement("app", selection.In, apps)
	if err != nil {
		panic(err)
	}
	return labels.NewSelector().Add(*r)
}
