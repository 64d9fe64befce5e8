package main

import (
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"net/netip"
	"slices"

	"github.com/kithnet/kith/overlay"
	"github.com/kithnet/kith/overlay/path"
	"github.com/kithnet/kith/overlay/probe"
	"github.com/kithnet/kith/overlay/wireguard"
	"github.com/kithnet/kith/policy/nft"
	"github.com/kithnet/kith/policy/ruleset"
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

// TestProofs: the rules hear of the address where a node is, and of the packet that carried the probe there.
func TestProofs(t *testing.T) {
	nodes := testNodes[:2:2]
	local := testMesher(newFakeUnderlay()).local
	mesh, _ := overlay.Compute(local, nodes, fakeRegistry{}.SetNodes(nodes), nil)
	at := func(lane0, lane1 string) []wireguard.PeerStatus {
		peers := []wireguard.PeerStatus{{Key: mesh.Lanes[0].Peers[0].Key}, {Lane: 1, Key: mesh.Lanes[1].Peers[0].Key}}
		for i, text := range []string{lane0, lane1} {
			if text != "" {
				peers[i].Endpoint = netip.MustParseAddrPort(text)
			}
		}
		return peers
	}
	now := time.Unix(1e9, 0)
	name := mesh.Lanes[0].Peers[0].Name
	device := mesh.Lanes[0].MTU
	for what, c := range map[string]struct {
		peers  []wireguard.PeerStatus
		size   int
		before time.Duration
		want   []ruleset.Proof
		is     string
	}{
		"whole":                   {at("192.0.2.2:51820", "192.0.2.2:51821"), device, 0, []ruleset.Proof{{Address: addrs("192.0.2.2")[0], Size: uint16(device + 60)}}, ""},
		"padded":                  {at("192.0.2.2:51820", "192.0.2.2:51821"), 1281, 0, []ruleset.Proof{{Address: addrs("192.0.2.2")[0], Size: 1296 + 60}}, ""},
		"over IPv6":               {at("[2001:db8::2]:51820", ""), 1296, 0, []ruleset.Proof{{Address: addrs("2001:db8::2")[0], Size: 1296 + 80}}, "[2001:db8::2]:51820"},
		"mapped":                  {at("[::ffff:192.0.2.2]:51820", ""), 1296, 0, []ruleset.Proof{{Address: addrs("192.0.2.2")[0], Size: 1296 + 60}}, ""},
		"old":                     {at("192.0.2.2:51820", "192.0.2.2:51821"), device, fresh, nil, ""},
		"nothing proved":          {at("192.0.2.2:51820", "192.0.2.2:51821"), 0, 0, nil, ""},
		"nowhere":                 {at("", ""), device, 0, nil, ""},
		"at two addresses":        {at("192.0.2.2:51820", "192.0.2.7:51821"), device, 0, nil, ""},
		"by the second lane":      {at("", "192.0.2.2:51821"), 1296, 0, []ruleset.Proof{{Address: addrs("192.0.2.2")[0], Size: 1296 + 60}}, ""},
		"larger than a number is": {at("192.0.2.2:51820", ""), 65535, 0, []ruleset.Proof{{Address: addrs("192.0.2.2")[0], Size: 65535}}, ""},
		"where another is":        {at("198.51.100.7:51820", "198.51.100.7:51821"), device, 0, nil, ""},
	} {
		paths := []path.Path{{Node: name, MTU: device, Proved: c.size, ProvedAt: now.Add(-c.before)}, {Node: "unknown", Proved: device, ProvedAt: now}}
		var e evidence
		for i := range mesh.Lanes {
			mesh.Lanes[i].Peers[0].Endpoint = netip.MustParseAddrPort("192.0.2.2:51820")
			if c.is != "" {
				mesh.Lanes[i].Peers[0].Endpoint = netip.MustParseAddrPort(c.is)
			}
		}
		got := e.proofs(mesh, c.peers, paths, now)
		if diff := cmp.Diff(c.want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
}

// TestDoubts: who speaks against a proof has the way probed to all that share it, and what was said before there was any, or by
// nobody, none.
func TestDoubts(t *testing.T) {
	counts := map[string]uint64{}
	failing := errors.New("cannot count")
	var fails error
	count := func(chains []string, _ ...nft.Option) (map[string]uint64, error) {
		out := map[string]uint64{}
		for _, c := range chains {
			out[c] = counts[c]
		}
		return out, fails
	}
	ask := func(e *evidence) (out []string) {
		t.Helper()
		doubted, err := e.doubts(count)
		if !errors.Is(err, fails) {
			t.Errorf("error %v", err)
		}
		for _, p := range e.proved {
			if doubted[p.Address] {
				out = append(out, p.Address.String())
			}
		}
		return out
	}
	e := evidence{proved: []ruleset.Proof{
		{Address: addrs("192.0.2.2")[0], Size: 1500}, {Address: addrs("192.0.2.3")[0], Size: 1500}, {Address: addrs("192.0.2.4")[0], Size: 1400},
		{Address: addrs("2001:db8::2")[0], Size: 1500},
	}}
	counts[e.proved[0].Chain()] = 7
	for n, want := range []string{"", "", "192.0.2.2 192.0.2.3", "", "", "192.0.2.2 192.0.2.3 2001:db8::2", ""} {
		fails = nil
		switch n {
		case 2, 5:
			counts[e.proved[0].Chain()]++
			counts[e.proved[3].Chain()] += uint64(n / 5)
		case 3: // the chain was made anew
			counts[e.proved[0].Chain()] = 0
		case 4:
			fails = failing
		}
		if got := strings.Join(ask(&e), " "); got != want {
			t.Errorf("look %d: doubted %q, want %q", n, got, want)
		}
	}
}

// TestDoubtedTargets: the target is the node whose peer, on any lane, is at the address.
func TestDoubtedTargets(t *testing.T) {
	nodes := testNodes[:2:2]
	mesh, _ := overlay.Compute(testMesher(newFakeUnderlay()).local, nodes, fakeRegistry{}.SetNodes(nodes), nil)
	peers := []wireguard.PeerStatus{{Key: mesh.Lanes[0].Peers[0].Key}, {Lane: 1, Key: mesh.Lanes[1].Peers[0].Key, Endpoint: netip.MustParseAddrPort("[::ffff:192.0.2.2]:51821")}}
	all := []probe.Target{{Target: path.Target{Name: mesh.Lanes[0].Peers[0].Name}}, {Target: path.Target{Name: "another"}}}
	for _, said := range []bool{true, false} {
		got := doubt(all, peers, mesh, map[netip.Addr]bool{addrs("192.0.2.2")[0]: said})
		if got[0].Doubted != said || got[1].Doubted {
			t.Errorf("said %v: %+v", said, got)
		}
	}
}

// TestProofsHold: a way is on trial before probes have decided, and what they proved outlives a silence, not an answer that says less.
func TestProofsHold(t *testing.T) {
	begin := time.Unix(1e9, 0)
	after := func(d time.Duration) time.Time { return begin.Add(d) }
	for what, c := range map[string]struct {
		path path.Path
		now  time.Duration
		want int
	}{
		"never heard":                 {path.Path{}, 0, 1440},
		"never heard, just before":    {path.Path{Silent: after(time.Second)}, trial - 1, 1440},
		"never heard for long":        {path.Path{}, trial, 0},
		"found by pieces":             {path.Path{MTU: 1440}, 0, 0},
		"found to be less":            {path.Path{MTU: 1296, Proved: 1296, ProvedAt: begin}, time.Second, 1296},
		"fresh":                       {path.Path{MTU: 1440, Proved: 1440, ProvedAt: begin}, fresh - 1, 1440},
		"answers, and proves no more": {path.Path{MTU: 1440, Proved: 1440, ProvedAt: begin}, fresh, 0},
		"silent":                      {path.Path{MTU: 1440, Proved: 1440, ProvedAt: begin, Silent: after(time.Second)}, fresh + patient/2, 1440},
		"silent for ever":             {path.Path{MTU: 1440, Proved: 1440, ProvedAt: begin, Silent: after(time.Second)}, time.Second + patient, 0},
		"silent later":                {path.Path{MTU: 1440, Proved: 1440, ProvedAt: begin, Silent: after(time.Hour)}, time.Hour, 0},
	} {
		if got := holds(c.path, 1440, begin, after(c.now)); got != c.want {
			t.Errorf("%s: %d are proved, want %d", what, got, c.want)
		}
	}
}

// TestTrialIsNotRepeated: a node is on trial from when it is first seen, and again only if it was gone.
func TestTrialIsNotRepeated(t *testing.T) {
	var e evidence
	begin := time.Unix(1e9, 0)
	e.meet([]path.Path{{Node: "a"}}, begin)
	e.meet([]path.Path{{Node: "a"}, {Node: "b"}}, begin.Add(trial))
	if !e.since["a"].Equal(begin) || !e.since["b"].Equal(begin.Add(trial)) {
		t.Errorf("seen since %v", e.since)
	}
	e.meet([]path.Path{{Node: "b"}}, begin.Add(2*trial))
	e.meet([]path.Path{{Node: "a"}, {Node: "b"}}, begin.Add(3*trial))
	if !e.since["a"].Equal(begin.Add(3*trial)) || !e.since["b"].Equal(begin.Add(trial)) {
		t.Errorf("seen since %v", e.since)
	}
}

// TestDoubtsAreBounded: one error has a few ways probed of very many, each in its turn.
func TestDoubtsAreBounded(t *testing.T) {
	e, n := evidence{}, uint64(0)
	for i := range 200 {
		e.proved = append(e.proved, ruleset.Proof{Address: netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), Size: 1500})
	}
	count := func(chains []string, _ ...nft.Option) (map[string]uint64, error) {
		n++
		return map[string]uint64{chains[0]: n}, nil
	}
	all := map[netip.Addr]bool{}
	for range 5 {
		some, err := e.doubts(count)
		if err != nil || len(some) > mostDoubted {
			t.Errorf("%d are doubted at once, error %v", len(some), err)
		}
		maps.Copy(all, some)
	}
	if len(all) != len(e.proved) {
		t.Errorf("%d of %d had a turn", len(all), len(e.proved))
	}
}

// TestProofsOutliveTheAgent: what the kernel holds for proved when an agent starts stays until its own probes have had time.
func TestProofsOutliveTheAgent(t *testing.T) {
	proof := func(addr string, size uint16) ruleset.Proof {
		return ruleset.Proof{Address: netip.MustParseAddr(addr), Size: size}
	}
	before := []ruleset.Proof{proof("192.0.2.2", 1500), proof("192.0.2.3", 1400), proof("2001:db8::4", 1500)}
	c := ruleset.NewCompiler()
	c.SetProved(before)
	if got := c.Ruleset().Proofs(); !slices.Equal(got, before) {
		t.Fatalf("read back: %v", got)
	}
	began := time.Now()
	e := evidence{before: before, began: began}
	for _, tt := range []struct {
		name  string
		now   []ruleset.Proof
		after time.Duration
		want  []ruleset.Proof
	}{
		{"nothing is known yet", nil, time.Second, before},
		{"a node is on trial", []ruleset.Proof{proof("192.0.2.3", 1500)}, time.Second, before},
		{"less is found", []ruleset.Proof{proof("192.0.2.2", 1300)}, time.Second, []ruleset.Proof{proof("192.0.2.2", 1300), before[1], before[2]}},
		{"another node", []ruleset.Proof{proof("192.0.2.1", 1500)}, time.Second, append([]ruleset.Proof{proof("192.0.2.1", 1500)}, before...)},
		{"probes had time", []ruleset.Proof{proof("192.0.2.3", 1500)}, trial, []ruleset.Proof{proof("192.0.2.3", 1500)}},
	} {
		if got := e.still(tt.now, began.Add(tt.after)); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}
