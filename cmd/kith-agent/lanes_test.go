package main

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/kithnet/kith/overlay"
	"github.com/kithnet/kith/overlay/disk"
	"github.com/kithnet/kith/overlay/gossip"
	"github.com/kithnet/kith/overlay/preshared"
	"github.com/kithnet/kith/overlay/rotation"
	"github.com/kithnet/kith/overlay/wireguard"
)

// laneNode is a node whose kernel is a value. Handshakes come about where keys and secrets of both ends match, and one
// end keeps the lane alive.
type laneNode struct {
	*lanes
	node     overlay.Node
	claim    overlay.Claim
	have     overlay.Mesh
	statuses map[overlay.Key]time.Time
	inbox    chan []byte
	post     [][]byte // arrives after the handshakes of this round
	network  map[string]*laneNode
	restart  func()
	sign     overlay.Sign
	folder   disk.Folder
	stopped  bool // its agent; its kernel goes on
	full     bool // its disk may fail
	refused  map[gossip.Cause]int
}

func (n *laneNode) lost(cause gossip.Cause) { n.refused[cause]++ }

func (n *laneNode) Send(to string, message []byte) {
	n.network[to].post = append(n.network[to].post, message)
}
func (n *laneNode) Received() <-chan []byte { return n.inbox }
func (n *laneNode) Peers(context.Context) ([]wireguard.PeerStatus, error) {
	var out []wireguard.PeerStatus
	for key, at := range n.statuses {
		out = append(out, wireguard.PeerStatus{Key: key, LastHandshake: at})
	}
	return out, nil
}

func laneNetwork(t *testing.T, willing ...bool) []*laneNode {
	t.Helper()
	network := map[string]*laneNode{}
	var all []*laneNode
	for i, w := range willing {
		n := &laneNode{inbox: make(chan []byte, 100), network: network, statuses: map[overlay.Key]time.Time{}, refused: map[gossip.Cause]int{}}
		public, private, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("n%d", i+1)
		n.node = overlay.Node{
			Name: name, UID: "uid-" + name, PodCIDRs: prefixes(fmt.Sprintf("10.244.%d.0/24", i+1)), InternalIPs: addrs(fmt.Sprintf("192.0.2.%d", i+1)),
			SigningKey: overlay.SigningKey(public).String(),
		}
		keys, err := wireguard.LoadKeys(disk.Folder(t.TempDir()).File(wireguard.KeyFile))
		if err != nil {
			t.Fatal(err)
		}
		sign := func(m []byte) overlay.Signature { return overlay.Signature(ed25519.Sign(private, m)) }
		n.sign = sign
		n.folder = disk.Folder(t.TempDir())
		n.restart = func() {
			n.lanes = &lanes{
				log: slog.New(slog.DiscardHandler), self: name, keys: keys, peers: n, rotation: rotation.New(holdKeys),
				again: time.NewTimer(time.Hour), changed: make(chan struct{}, 1),
				letters: newLetterbox(name, n.node.UID, n.lost), say: func(f func(*overlay.Claim)) error { f(&n.claim); return nil },
			}
			n.secrets = newSecrets(n.log, preshared.Self{Name: name, UID: n.node.UID, Sign: sign, Willing: w}, n.folder, n)
		}
		n.restart()
		n.claim = overlay.Claim{Node: name, UID: n.node.UID, Endpoints: []netip.AddrPort{netip.AddrPortFrom(n.node.InternalIPs[0], 51820)}}
		n.claim.Keys, n.claim.Generation = keys.Public()
		n.claim.Signing = overlay.SigningKey(public)
		network[name] = n
		all = append(all, n)
	}
	return all
}

// TestPresharedKeysGoByTheHeldKey holds that preshared keys are agreed on by the signing key that the other's claim was
// verified with, whatever its Node object names.
func TestPresharedKeysGoByTheHeldKey(t *testing.T) {
	all := laneNetwork(t, true, true)
	all[1].node.SigningKey = laneNetwork(t, true)[0].node.SigningKey
	now := time.Now()
	until(t, all, &now, overlay.FirstGeneration, secretAgreed)
}

// round lets every node take what has come, and makes its kernel what it wants.
func round(t *testing.T, all []*laneNode, now time.Time) {
	t.Helper()
	v := view{now: now}
	for _, n := range all {
		v.nodes, v.claims = append(v.nodes, n.node), append(v.claims, n.claim)
		v.members = append(v.members, overlay.Member{Name: n.node.Name, Alive: !n.stopped})
	}
	for _, n := range all {
		if n.stopped {
			continue
		}
		for len(n.inbox) > 0 {
			n.letters.put(<-n.inbox, now)
		}
		v.have = n.have
		keys, paths, err := n.Step(t.Context(), v)
		if err != nil && !n.full {
			t.Fatal(err)
		}
		want := n.want(v, keys, paths)
		plan := overlay.Diff(n.have, want)
		n.checkMoves(t, all, plan)
		for _, step := range plan.Steps {
			if s, ok := step.(overlay.RemovePeer); ok {
				delete(n.statuses, s.Key)
			}
		}
		n.have = want
	}
	for _, a := range all {
		for _, b := range all {
			a.shake(b, now)
		}
		for _, message := range a.post {
			a.inbox <- message
		}
		a.post = nil
	}
}

func (n *laneNode) want(v view, keys [overlay.Lanes]overlay.Key, paths map[string]overlay.Path) overlay.Mesh {
	local := overlay.Local{Name: n.node.Name, Keys: keys, ListenPort: 51820, UnderlayMTU: 1500, Keepalive: keepalive}
	want, _ := overlay.Compute(local, v.nodes, v.claims, paths)
	return want
}

// checkMoves holds that traffic moves only to a peer that is there, not to one that the same plan makes anew.
func (n *laneNode) checkMoves(t *testing.T, all []*laneNode, plan overlay.Plan) {
	t.Helper()
	made := map[overlay.On]map[string]bool{{Lane: 0}: {}, {Lane: 1}: {}}
	for _, step := range plan.Steps {
		if s, ok := step.(overlay.SetPeer); ok && s.New {
			made[s.On][s.Name] = true
		}
	}
	for _, step := range plan.Steps {
		s, ok := step.(overlay.SetRoute)
		had := slices.ContainsFunc(n.have.Routes, func(r overlay.Route) bool { return ok && r.CIDR == s.Route.CIDR })
		for _, o := range all {
			if had && o.node.PodCIDRs[0] == s.Route.CIDR && made[overlay.On{Lane: s.Route.Lane}][o.node.Name] {
				t.Errorf("%s moves what it sends to %s to lane %d, where the peer is made anew:\n%s", n.node.Name, o.node.Name, s.Route.Lane, plan)
			}
		}
	}
}

func (n *laneNode) shake(o *laneNode, now time.Time) {
	for lane := range overlay.Lanes {
		mine, ok := n.peer(o, lane)
		theirs, known := o.peer(n, lane)
		if ok && known && mine.Preshared == theirs.Preshared && mine.Keepalive+theirs.Keepalive > 0 {
			n.statuses[mine.Key] = now
		}
	}
}

func (n *laneNode) peer(o *laneNode, lane int) (overlay.Peer, bool) {
	for _, p := range n.have.Lanes[lane].Peers {
		if p.Key == o.have.Lanes[lane].Key {
			return p, true
		}
	}
	return overlay.Peer{}, false
}

// until plays rounds until all nodes are settled in a generation and stand so with the lane's secret.
func until(t *testing.T, all []*laneNode, now *time.Time, generation uint32, want secretState) {
	t.Helper()
	for range 400 {
		*now = now.Add(soon)
		round(t, all, *now)
		done := true
		for _, n := range all {
			state := n.State()
			done = done && state.Settled >= generation && len(state.Peers) == len(all)-1
			for _, p := range state.Peers {
				done = done && p.Lane == int(generation%overlay.Lanes) && p.Secret[p.Lane] == want
			}
		}
		if done {
			return
		}
	}
	for _, n := range all {
		t.Logf("%s: %+v", n.node.Name, n.State())
	}
	t.Fatalf("generation %d never ends with preshared keys %s", generation, want)
}

func TestLanesRotateAndAgree(t *testing.T) {
	all := laneNetwork(t, true, true, true)
	now := time.Now()
	until(t, all, &now, overlay.FirstGeneration, secretAgreed)
	for g := uint32(overlay.FirstGeneration + 1); g < overlay.FirstGeneration+6; g++ {
		if got := all[int(g)%len(all)].Rotate(); got != g {
			t.Fatalf("generation %d asked for, want %d", got, g)
		}
		until(t, all, &now, g, secretAgreed)
		// A restart finds on disk what was agreed on: nothing has to be asked for again.
		before := all[0].have
		all[0].restart()
		round(t, all, now)
		if plan := overlay.Diff(before, all[0].have); !plan.Empty() {
			t.Fatalf("a restart changes\n%s", plan)
		}
	}
}

func TestLanesBySchedule(t *testing.T) {
	all := laneNetwork(t, true, true)
	now := time.Now()
	until(t, all, &now, overlay.FirstGeneration, secretAgreed)
	for _, n := range all {
		n.every = 10 * time.Minute
	}
	now = now.Add(10 * time.Minute)
	for _, n := range all {
		for key := range n.statuses {
			n.statuses[key] = now
		}
	}
	until(t, all, &now, overlay.FirstGeneration+1, secretAgreed)
}

func TestLanesWithoutPresharedKeys(t *testing.T) {
	now := time.Now()
	all := laneNetwork(t, false, false)
	until(t, all, &now, overlay.FirstGeneration, secretOff)
	all[0].Rotate()
	until(t, all, &now, overlay.FirstGeneration+1, secretOff)
}

// TestLanesWithOneThatDeclines: the mesh works, and the one that wanted says so.
func TestLanesWithOneThatDeclines(t *testing.T) {
	now := time.Now()
	all := laneNetwork(t, true, false)
	for range 40 {
		now = now.Add(soon)
		round(t, all, now)
	}
	if p := all[0].State().Peers["n2"]; p.Secret[p.Lane] != secretDeclined || all[0].State().Settled != overlay.FirstGeneration {
		t.Errorf("state %+v", all[0].State())
	}
}

// TestLanesWaitForAStoppedAgent: the others take one generation without a node whose agent is stopped, and wait with the
// next, which would take the lane that its kernel still sends on. The agent takes both when it goes on.
func TestLanesWaitForAStoppedAgent(t *testing.T) {
	all := laneNetwork(t, true, true, true)
	now := time.Now()
	until(t, all, &now, overlay.FirstGeneration, secretAgreed)
	all[2].stopped = true
	sent := all[2].have.Lanes[overlay.FirstGeneration%overlay.Lanes].Key
	for range 2 {
		all[0].Rotate()
		for range 60 {
			now = now.Add(soon)
			round(t, all, now)
		}
	}
	for _, n := range all[:2] {
		if s := n.State(); s.Generation != overlay.FirstGeneration+1 || s.Peers["n3"].Lane != overlay.FirstGeneration%overlay.Lanes {
			t.Errorf("%s: %+v", n.node.Name, s)
		}
		if _, ok := n.peer(all[2], overlay.FirstGeneration%overlay.Lanes); !ok || all[2].have.Lanes[overlay.FirstGeneration%overlay.Lanes].Key != sent {
			t.Errorf("%s has lost the lane to the stopped node", n.node.Name)
		}
	}
	if held := all[0].State().HeldBy; !slices.Equal(held, []string{"n2", "n3"}) && !slices.Equal(held, []string{"n3"}) {
		t.Errorf("waits for %v", held)
	}
	all[2].stopped = false
	until(t, all, &now, overlay.FirstGeneration+2, secretAgreed)
}

// TestLanesAgreeAnew: a node that has forgotten all secrets, with its kernel, comes back.
func TestLanesAgreeAnew(t *testing.T) {
	all := laneNetwork(t, true, true)
	now := time.Now()
	until(t, all, &now, overlay.FirstGeneration, secretAgreed)
	all[1].restart()
	all[1].secrets = newSecrets(all[1].log, preshared.Self{
		Name: "n2", UID: all[1].node.UID, Sign: all[1].sign, Willing: true,
	}, disk.Folder(t.TempDir()), all[1])
	all[1].have, all[1].statuses = overlay.Mesh{}, map[overlay.Key]time.Time{}
	now = now.Add(4 * time.Minute)
	until(t, all, &now, overlay.FirstGeneration, secretAgreed)
}
