package policy

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/kithnet/kith/identity"
	"k8s.io/apimachinery/pkg/labels"
)

// TestBounded: what is too large closes, and nothing else. An accept that is closed matches nothing, a denial everything.
func TestBounded(t *testing.T) {
	ports := func(n int) []Port {
		out := make([]Port, n)
		for i := range out {
			out[i] = Port{Protocol: identity.TCP, First: uint16(i + 1), Last: uint16(i + 1)}
		}
		return out
	}
	block := Peer{Block: &Block{CIDR: netip.MustParsePrefix("192.0.2.0/24"), Except: []netip.Prefix{netip.MustParsePrefix("192.0.2.8/32")}}}
	pods := Peer{Namespaces: labels.Everything(), Pods: labels.SelectorFromSet(labels.Set{"app": "a"})}
	other := Peer{Namespaces: labels.Everything(), Pods: labels.SelectorFromSet(labels.Set{"app": "b"})}
	all := Peer{Namespaces: labels.Everything(), Pods: labels.Everything()}
	rule := func(a Action, n int, peers ...Peer) Rule {
		return Rule{Name: "r", Action: a, Peers: peers, Ports: ports(n)}
	}
	closed, deny := Rule{Name: "r"}, Rule{Name: "r", Action: Deny, AllPeers: true, AllPorts: true}
	for name, tt := range map[string]struct {
		in, want Rules
		closed   []int
	}{
		"at the limit":          {Rules{rule(Accept, 98, block)}, Rules{rule(Accept, 98, block)}, nil},
		"above it":              {Rules{rule(Accept, 99, block)}, Rules{closed}, []int{0}},
		"a selector":            {Rules{rule(Accept, 36, pods), rule(Accept, 1)}, Rules{rule(Accept, 36, pods), closed}, []int{1}},
		"a selector again":      {Rules{rule(Accept, 18, pods), rule(Accept, 18, pods)}, Rules{rule(Accept, 18, pods), rule(Accept, 18, pods)}, nil},
		"another selector":      {Rules{rule(Accept, 1, pods), rule(Accept, 1, other)}, Rules{rule(Accept, 1, pods), closed}, []int{1}},
		"all pods":              {Rules{rule(Accept, 1, all)}, Rules{closed}, []int{0}},
		"a denial":              {Rules{rule(Deny, 99, block)}, Rules{deny}, []int{0}},
		"a rule that passes on": {Rules{rule(Pass, 99, block)}, Rules{deny}, []int{0}},
		"rules of nothing":      {slices.Repeat(Rules{rule(Accept, 0)}, 102), slices.Concat(slices.Repeat(Rules{rule(Accept, 0)}, 100), Rules{closed, closed}), []int{100, 101}},
		"what comes behind":     {Rules{rule(Accept, 60, block), rule(Accept, 60, block), rule(Accept, 30, block)}, Rules{rule(Accept, 60, block), closed, rule(Accept, 30, block)}, []int{1}},
	} {
		p := Policy{Ingress: &Rules{}, Egress: &tt.in}
		got, places := p.Bounded(100)
		if len(places) != len(tt.closed) {
			t.Errorf("%s: %v are closed, not %v", name, places, tt.closed)
			continue
		}
		for i, place := range places {
			if place.Direction != Egress || place.Rule != tt.closed[i] {
				t.Errorf("%s: %v is closed", name, place)
			}
		}
		for i, r := range *got.Egress {
			want := tt.want[i]
			if r.Action != want.Action || r.AllPeers != want.AllPeers || r.AllPorts != want.AllPorts || len(r.Ports) != len(want.Ports) || len(r.Peers) != len(want.Peers) || r.Name != "r" {
				t.Errorf("%s: rule %d is %+v, not %+v", name, i, r, want)
			}
		}
		if len(tt.in[0].Ports) == 0 && name != "rules of nothing" {
			t.Errorf("%s: the policy itself has changed", name)
		}
	}
}
