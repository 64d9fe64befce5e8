package main

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kithnet/kith/overlay"
	"github.com/kithnet/kith/policy/ruleset"
)

func anyCIDR(netip.Prefix) bool { return true }

// TestVacatedCIDRsStayTheClusters: what a Node had stays the cluster's for an hour, or until it is another's.
func TestVacatedCIDRsStayTheClusters(t *testing.T) {
	both, start := testNodes, time.Unix(1000, 0)
	renumbered := []overlay.Node{testNodes[0], {Name: "n2", PodCIDRs: prefixes("10.244.3.0/24")}}
	other := []overlay.Node{testNodes[0], {Name: "n4", PodCIDRs: testNodes[1].PodCIDRs}}
	type step struct {
		after time.Duration
		nodes []overlay.Node
		want  []string
	}
	for name, steps := range map[string][]step{
		"all there":   {{0, both, nil}, {1, both, nil}},
		"deleted":     {{0, both, nil}, {1, both[:1], []string{"10.244.2.0/24"}}, {2, both[:1], []string{"10.244.2.0/24"}}},
		"both":        {{0, both, nil}, {1, nil, []string{"10.244.1.0/24", "10.244.2.0/24", "fd00:1::/64"}}},
		"comes back":  {{0, both, nil}, {1, both[:1], []string{"10.244.2.0/24"}}, {2, both, nil}},
		"given anew":  {{0, both, nil}, {1, both[:1], []string{"10.244.2.0/24"}}, {2, other, nil}},
		"moved":       {{0, both, nil}, {1, other, nil}},
		"renumbered":  {{0, both, nil}, {1, renumbered, []string{"10.244.2.0/24"}}, {2, both, []string{"10.244.3.0/24"}}},
		"an hour":     {{0, both, nil}, {1, both[:1], []string{"10.244.2.0/24"}}, {vacatedFor, both[:1], []string{"10.244.2.0/24"}}, {vacatedFor + 1, both[:1], nil}},
		"never there": {{0, both[:1], nil}, {1, both[:1], nil}},
	} {
		t.Run(name, func(t *testing.T) {
			var v vacated
			for i, s := range steps {
				got := v.keep(network("n1", s.nodes, nil), start.Add(s.after), anyCIDR)
				if diff := cmp.Diff(s.want, texts(got.Vacated)); diff != "" || len(got.Nodes) != len(s.nodes) {
					t.Errorf("step %d: %d nodes, vacated (-want +got):\n%s", i, len(got.Nodes), diff)
				}
			}
		})
	}
}

// TestVacatedIsBounded: of more CIDRs than there is room for, the last to go stay.
func TestVacatedIsBounded(t *testing.T) {
	var v vacated
	at := time.Unix(1000, 0)
	var got ruleset.Network
	for i := range maxVacated + 2 {
		node := overlay.Node{Name: "n1", PodCIDRs: prefixes(fmt.Sprintf("10.%d.%d.0/24", i>>8, i&255))}
		got = v.keep(network("n1", []overlay.Node{node}, nil), at.Add(time.Duration(i)), anyCIDR)
	}
	if len(got.Vacated) != maxVacated || got.Vacated[0] != prefixes("10.0.1.0/24")[0] {
		t.Errorf("%d CIDRs from %s on", len(got.Vacated), got.Vacated[0])
	}
}
