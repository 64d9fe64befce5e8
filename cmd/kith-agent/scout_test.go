package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"net/netip"

	"github.com/kithnet/kith/overlay"
	"github.com/kithnet/kith/overlay/path"
	"github.com/kithnet/kith/overlay/probe"
	"github.com/kithnet/kith/overlay/wireguard"
)

// TestRoutesFollowTheWays holds that a way's size reaches the route, and that a peer that is stuck is made anew.
func TestRoutesFollowTheWays(t *testing.T) {
	f := newFakeUnderlay()
	f.nodes = testNodes
	f.mtus = map[string]int{"n2": 1296}
	m := testMesher(f)
	for _, f.stuck = range [][]string{nil, {"n2"}} {
		if err := m.reconcile(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := f.plans[0]; !strings.Contains(got, "route set 10.244.2.0/24 src 10.244.1.1 mtu 1296\n") || strings.Contains(got, "peer remove") {
		t.Errorf("first plan:\n%s", got)
	}
	if got := f.plans[1]; !strings.Contains(got, "peer remove") {
		t.Errorf("plan with a stuck peer:\n%s", got)
	}
}

// TestTargets holds that only peers with a family in common are probed, never beyond their route's MTU, and that what is
// said to arrive is no limit.
func TestTargets(t *testing.T) {
	nodes := append(testNodes[:2:2],
		overlay.Node{Name: "n3", PodCIDRs: prefixes("fd00:3::/64"), InternalIPs: addrs("192.0.2.3")},
		overlay.Node{Name: "n4", PodCIDRs: prefixes("10.244.4.0/24"), InternalIPs: addrs("192.0.2.4")})
	local := testMesher(newFakeUnderlay()).local
	mesh, _ := overlay.Compute(local, nodes, fakeRegistry{}.SetNodes(nodes[:3]), nil)
	endpoint := netip.MustParseAddrPort("192.0.2.2:51820")
	peers := []wireguard.PeerStatus{{Key: overlay.Key{2}, Endpoint: endpoint, ReceivedBytes: 7}, {Lane: 1, Key: overlay.Key{12}, ReceivedBytes: 10}}
	got := targets(mesh, peers, []overlay.Member{{Name: "n2", Alive: true}, {Name: "n3"}}, func(got netip.AddrPort) (int, int, error) {
		if got != endpoint {
			t.Errorf("asked for the way to %s", got)
		}
		return 9000, 1300, nil
	})
	want := []probe.Target{
		{Target: path.Target{Name: "n2", Limit: 1440, Hint: 1232, Received: 17, Alive: true}, Address: addrs("10.244.2.1")[0]},
		{Target: path.Target{Name: "n3", Limit: 1440}, Address: addrs("fd00:3::1")[0]},
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("targets (-want +got):\n%s", diff)
	}
}
