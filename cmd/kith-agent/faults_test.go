package main

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kithnet/kith/overlay"
)

// reaches says that what a node sends to another arrives: both have one secret on the lane, and have shaken hands with it.
func (n *laneNode) reaches(o *laneNode) bool {
	for _, r := range n.have.Routes {
		if r.CIDR == o.node.PodCIDRs[0] {
			mine, ok := n.peer(o, r.Lane)
			theirs, known := o.peer(n, r.Lane)
			return ok && known && mine.Preshared == theirs.Preshared && !n.statuses[mine.Key].IsZero()
		}
	}
	return false
}

// mustReach plays rounds until all nodes reach all others, for so long at most.
func mustReach(t *testing.T, all []*laneNode, now *time.Time, limit time.Duration) {
	t.Helper()
	for end := now.Add(limit); now.Before(end); {
		*now = now.Add(soon)
		round(t, all, *now)
		done := true
		for _, n := range all {
			for _, o := range all {
				done = done && (n == o || n.reaches(o))
			}
		}
		if done {
			return
		}
	}
	for _, n := range all {
		t.Logf("%s: %+v", n.node.Name, n.State())
	}
	t.Fatalf("not all reach all after %s", limit)
}

// TestFullDiskKeepsTheMesh holds that an agent that can keep nothing more still brings back a mesh that its device has
// lost, takes a new node in, and goes on once there is room.
func TestFullDiskKeepsTheMesh(t *testing.T) {
	all := laneNetwork(t, true, true, true)
	now := time.Now()
	until(t, all[:2], &now, overlay.FirstGeneration, secretAgreed)
	kept := filepath.Join(string(all[0].folder), "preshared")
	if err := errors.Join(os.Remove(kept), os.MkdirAll(filepath.Join(kept, "full"), 0o700)); err != nil {
		t.Fatal(err)
	}
	all[0].full = true
	for range 20 {
		now = now.Add(soon)
		round(t, all, now)
	}
	if !all[0].secrets.full || len(all[0].secrets.kept) != overlay.Lanes {
		t.Fatal("the disk is not full")
	}
	all[0].have, all[0].statuses = overlay.Mesh{}, map[overlay.Key]time.Time{}
	round(t, all, now)
	if !all[0].reaches(all[1]) || !all[1].reaches(all[0]) {
		t.Error("the peer is not back at once")
	}
	mustReach(t, all, &now, time.Minute)
	for lane, l := range all[0].have.Lanes {
		for _, p := range l.Peers {
			if p.Name == "n2" && p.Preshared.IsZero() || p.Name == "n3" && !p.Preshared.IsZero() {
				t.Errorf("lane %d to %s has not the secret that is on disk", lane, p.Name)
			}
		}
	}
	if err := os.RemoveAll(kept); err != nil {
		t.Fatal(err)
	}
	all[0].full = false
	until(t, all, &now, overlay.FirstGeneration, secretAgreed)
}

// TestMeshGoesOnWithAnErrorOfLanes holds that what the lanes say is applied beside their error, which is told once.
func TestMeshGoesOnWithAnErrorOfLanes(t *testing.T) {
	f := newFakeUnderlay()
	f.nodes, f.unkept = testNodes, errors.New("no space left")
	m := testMesher(f)
	var log bytes.Buffer
	m.log = slog.New(slog.NewTextHandler(&log, nil))
	for range 3 {
		if err := m.reconcile(t.Context()); !errors.Is(err, f.unkept) || m.State().Up {
			t.Errorf("error %v, up %t", err, m.State().Up)
		}
	}
	if len(f.plans) != 3 || !strings.Contains(f.plans[0], "peer") {
		t.Errorf("plans %q", f.plans)
	}
	if told := strings.Count(log.String(), "mesh not as wanted"); told != 1 {
		t.Errorf("told %d times:\n%s", told, log.String())
	}
	f.unkept = nil
	if err := m.reconcile(t.Context()); err != nil || !m.State().Up {
		t.Errorf("error %v, up %t", err, m.State().Up)
	}
}

// TestNodeMadeAnew holds that a Node that is deleted and registers again, its agent, keys and kernel as they were, is back
// within seconds in both directions, though it alone still has secrets and handshakes.
func TestNodeMadeAnew(t *testing.T) {
	for anew := range 2 {
		all := laneNetwork(t, true, true)
		now := time.Now()
		until(t, all, &now, overlay.FirstGeneration, secretAgreed)
		rest := []*laneNode{all[1-anew]}
		round(t, rest, now)
		if len(rest[0].have.Lanes[0].Peers) > 0 {
			t.Fatal("the peer stays without its Node")
		}
		all[anew].node.UID, all[anew].claim.UID = "anew", "anew"
		mustReach(t, all, &now, 15*time.Second)
		end := now.Add(30 * time.Second)
		until(t, all, &now, overlay.FirstGeneration, secretAgreed)
		if now.After(end) {
			t.Errorf("%s: the lanes are as they were after %s", all[anew].node.Name, now.Sub(end))
		}
	}
}

// TestSecretsRefused holds the same of a node whose file of secrets is refused at its agent's start.
func TestSecretsRefused(t *testing.T) {
	for loser := range 2 {
		all := laneNetwork(t, true, true)
		now := time.Now()
		until(t, all, &now, overlay.FirstGeneration, secretAgreed)
		if err := all[loser].folder.File("preshared").Write([]byte("torn")); err != nil {
			t.Fatal(err)
		}
		all[loser].restart()
		round(t, all, now)
		mustReach(t, all, &now, 15*time.Second)
		until(t, all, &now, overlay.FirstGeneration, secretAgreed)
	}
}
