package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/identity/announce"
	"github.com/kithnet/kith/overlay"
	"github.com/kithnet/kith/policy/ruleset"
)

// fakeCrier keeps what was said.
type fakeCrier struct{ said []string }

func (f *fakeCrier) Say(p identity.Pin, addresses []netip.Addr) error {
	f.said = append(f.said, fmt.Sprint(p.Pod, " ", p.UID, " has ", addresses))
	return nil
}

func (f *fakeCrier) Unsay(addresses []netip.Addr) error {
	f.said = append(f.said, fmt.Sprint("nobody has ", addresses))
	return errors.New("too many wait")
}

// TestOthersHearOfAnAttachment: when it opens, and when it is closed. That nobody can be told fails neither.
func TestOthersHearOfAnAttachment(t *testing.T) {
	e, _ := startEnforcer(t, &memoryTable{})
	e.Update(putInput)
	e.Complete()
	crier := &fakeCrier{}
	g := heraldedGate{gate{enforcer: e}, slog.New(slog.DiscardHandler), crier}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if g.Open(ctx, testAttachment) == nil || len(crier.said) > 0 {
		t.Errorf("a pod that is not known is open; said: %v", crier.said)
	}
	e.Update(putPod)
	nameless := testAttachment
	nameless.Pod.UID, nameless.Addresses = "", nil
	for _, err := range []error{
		g.Open(t.Context(), testAttachment), g.Close(t.Context(), testAttachment), g.Close(t.Context(), nameless),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	want := []string{fmt.Sprint("shop/api u1 has ", testAttachment.Addresses), fmt.Sprint("nobody has ", testAttachment.Addresses)}
	if d := cmp.Diff(want, crier.said); d != "" {
		t.Errorf("(-want +said)\n%s", d)
	}
}

// TestHearsayIsBounded: a node that floods takes one place in the enforcer's queue, and no place of others.
func TestHearsayIsBounded(t *testing.T) {
	e := newEnforcer(slog.New(slog.DiscardHandler), &memoryTable{})
	h := newHearsay(e)
	for i := range 3 * batch {
		h.take(identity.Hint{Node: "n2", Sequence: uint64(i)})
	}
	pod := identity.Pod{Namespace: "shop", Name: "far", UID: "u9", Node: "n1"}
	far := netip.MustParseAddr("10.3.0.9")
	h.take(identity.Hint{Node: "n1", Pin: identity.Pin{Pod: pod.Key(), UID: "u9"}, Addresses: []netip.Addr{far}, Until: time.Now().Add(time.Hour)})
	if len(e.updates) != 1 || len(h.waiting["n2"]) != maxHearsay || len(h.waiting["n1"]) != 1 {
		t.Errorf("%d updates, %d hints of the node that floods, %d of the other", len(e.updates), len(h.waiting["n2"]), len(h.waiting["n1"]))
	}
	putInput(e.compiler)
	e.compiler.PutPod(pod)
	u := <-e.updates
	u.change(e.compiler)
	own := ruleset.Attachment{Pod: identity.PodKey{Namespace: "shop", Name: "other"}, Addresses: []netip.Addr{far}}
	if !e.compiler.Claimed(own) {
		t.Error("the hint is not in the compiler")
	}
	h.forget(time.Now())
	h.forget(time.Now().Add(2 * time.Hour))
	h.forget(time.Now().Add(3 * time.Hour))
	if len(e.updates) != 2 {
		t.Fatalf("%d updates to forget, want 2", len(e.updates))
	}
	for range 2 {
		u := <-e.updates
		u.change(e.compiler)
	}
	if e.compiler.Claimed(own) {
		t.Error("the hint stays")
	}
}

// TestOthersAreThePeers holds that the announcer goes by what the mesh device lets a node send from.
func TestOthersAreThePeers(t *testing.T) {
	v4, v6 := netip.MustParsePrefix("10.3.0.0/24"), netip.MustParsePrefix("fd00:3::/64")
	var mesh overlay.Mesh
	mesh.Lanes[0].Peers = []overlay.Peer{{Name: "n3", AllowedIPs: []netip.Prefix{v4, v6}}, {Name: "n4"}}
	want := []announce.Node{
		{Name: "n3", Addresses: []netip.Addr{netip.MustParseAddr("10.3.0.1"), netip.MustParseAddr("fd00:3::1")}, CIDRs: []netip.Prefix{v4, v6}},
		{Name: "n4"},
	}
	equal := cmp.Options{
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	}
	if d := cmp.Diff(want, others(mesh), equal); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}
