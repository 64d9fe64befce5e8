package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/kithnet/kith/overlay"
	"github.com/kithnet/kith/overlay/disk"
	overlaykube "github.com/kithnet/kith/overlay/kube"
	"github.com/kithnet/kith/overlay/wireguard"
)

// TestNodesAreRememberedUntilTheAPIServerAnswers holds that an agent without an API server goes by what was remembered, and
// by that alone until the list is complete.
func TestNodesAreRememberedUntilTheAPIServerAnswers(t *testing.T) {
	client := fake.NewClientset(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n3", UID: "u3"}})
	answers := make(chan struct{})
	client.PrependReactor("list", "nodes", func(ktesting.Action) (bool, runtime.Object, error) {
		if !isClosed(answers) {
			return true, nil, errors.New("away")
		}
		return false, nil, nil
	})
	live, err := overlaykube.New(client, "n1", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	known := newKnownNodes(live, testNodes, func() overlay.Bounds { return overlay.Bounds{Self: "n1"} }, newNotary(slog.New(slog.DiscardHandler), 7946))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- live.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	if err := known.await(ctx); err != nil || len(known.List()) != len(testNodes) {
		t.Fatalf("%v, nodes %v", err, known.List())
	}
	close(answers)
	if err := live.WaitSynced(ctx); err != nil {
		t.Fatal(err)
	}
	if nodes := known.List(); len(nodes) != 1 || nodes[0].Name != "n3" {
		t.Errorf("nodes %v", nodes)
	}
}

// record is a node's claim, sealed.
func (n *laneNode) record(t *testing.T, epoch uint64) []byte {
	t.Helper()
	c := n.claim
	c.Epoch = epoch
	ring := n.keys.(*wireguard.Keyring)
	sealed, err := overlay.Seal(c, n.sign, [overlay.Lanes]overlay.Sign{ring.Prover(c.Keys[0]), ring.Prover(c.Keys[1])})
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

// annotated are the Node objects of an API server that has heard all.
func annotated(t *testing.T, all []*laneNode, epoch uint64) (nodes []overlay.Node) {
	t.Helper()
	for _, n := range all {
		node := n.node
		node.Claim = base64.StdEncoding.EncodeToString(n.record(t, epoch))
		nodes = append(nodes, node)
	}
	return nodes
}

// rememberer is the part of n's agent that remembers. No API server answers it.
func rememberer(t *testing.T, n *laneNode) *agent {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	live, err := overlaykube.New(fake.NewClientset(), n.node.Name, log)
	if err != nil {
		t.Fatal(err)
	}
	a := &agent{
		log: log, node: n.node.Name, folder: n.folder, notary: newNotary(log, 7946), nodes: live, memorable: make(chan struct{}, 1),
		secret: newGossipKeys(log, nil, "", [][]byte{{1}}),
	}
	a.known = newKnownNodes(live, a.recall().Nodes, func() overlay.Bounds { return overlay.Bounds{Self: n.node.Name} }, a.notary)
	return a
}

// TestClaimsOnDiskHold holds that what was heard while the API server was away is remembered, and holds after a restart
// against Node objects that are behind: nothing changes in the kernel, and no secret is forgotten.
func TestClaimsOnDiskHold(t *testing.T) {
	all := laneNetwork(t, true, true)
	now := time.Now()
	until(t, all, &now, overlay.FirstGeneration, secretAgreed)
	old := annotated(t, all, 1)
	if err := all[0].folder.SaveMemory(disk.Memory{Nodes: old, GossipKeys: [][]byte{{1}}}); err != nil {
		t.Fatal(err)
	}
	a := rememberer(t, all[0])
	a.notary.SetNodes(a.known.List())
	all[1].Rotate()
	until(t, all, &now, overlay.FirstGeneration+1, secretAgreed)
	for _, n := range all {
		from := netip.AddrPortFrom(n.node.InternalIPs[0], 7946)
		if err := a.notary.Hear(overlay.Heard{Name: n.node.Name, Address: from, Record: n.record(t, 2)}); err != nil {
			t.Fatal(err)
		}
	}
	waitUntilRemembered(t, a, all[1].record(t, 2))

	all[0].restart()
	again := rememberer(t, all[0])
	v := view{now: now, nodes: old, claims: again.notary.SetNodes(old), members: []overlay.Member{{Name: "n2", Alive: true}}, have: all[0].have}
	keys, paths, err := all[0].Step(t.Context(), v)
	if err != nil {
		t.Fatal(err)
	}
	if plan := overlay.Diff(v.have, all[0].want(v, keys, paths)); !plan.Empty() {
		t.Errorf("a restart changes\n%s", plan)
	}
	if kept, err := all[0].folder.LoadSecrets(); err != nil || len(kept) != overlay.Lanes {
		t.Errorf("%d secrets on disk (%v)", len(kept), err)
	}
	old[1].UID = "reborn"
	if claims := again.notary.SetNodes(old); len(claims) != 1 || claims[0].Node != "n1" {
		t.Errorf("claims %v, though n2 is another node now", claims)
	}
}

// TestSigningKeysOutliveARestart holds that a node's key is not changed by what is written on its Node, neither live nor after
// a restart of the agent, and that status names the node, and the command that accepts the new key, but no text of the Node's.
func TestSigningKeysOutliveARestart(t *testing.T) {
	all := laneNetwork(t, true, true)
	victim, thief := all[1], laneNetwork(t, true, true)[1]
	nodes := annotated(t, all, 1)
	if err := all[0].folder.SaveMemory(disk.Memory{Nodes: nodes, GossipKeys: [][]byte{{1}}}); err != nil {
		t.Fatal(err)
	}
	a := rememberer(t, all[0])
	a.notary.SetNodes(a.known.List())
	from := netip.AddrPortFrom(victim.node.InternalIPs[0], 7946)
	if err := a.notary.Hear(overlay.Heard{Name: "n2", Address: from, Record: victim.record(t, 2)}); err != nil {
		t.Fatal(err)
	}
	waitUntilRemembered(t, a, victim.record(t, 2))
	forged := annotated(t, []*laneNode{all[0], thief}, 9)
	for when, a := range map[string]*agent{"live": a, "after a restart": rememberer(t, all[0])} {
		claims := a.notary.SetNodes(forged)
		if len(claims) != 2 || claims[1].Epoch != 2 || claims[1].Keys != victim.claim.Keys {
			t.Errorf("%s: claims %+v", when, claims)
		}
		said := strings.Join(a.notary.Problems(), "\n")
		if !strings.Contains(said, "kubectl kith mesh accept n2;") || !strings.Contains(said, thief.node.SigningKey) {
			t.Errorf("%s: problems %s", when, said)
		}
		odd := forged[1]
		odd.SigningKey = "$(reboot)"
		a.notary.SetNodes([]overlay.Node{forged[0], odd})
		if said := strings.Join(a.notary.Problems(), "\n"); strings.Contains(said, "reboot") || !strings.Contains(said, "node n2") {
			t.Errorf("%s: problems %s", when, said)
		}
		<-a.notary.Changed() // what was claimed
		a.notary.Accept(map[string]overlay.Acceptance{"n2": {UID: thief.node.UID, Key: thief.claim.Signing}})
		select {
		case <-a.notary.Changed():
		default:
			t.Errorf("%s: nobody looks at what was accepted", when)
		}
		if claims := a.notary.SetNodes(forged); claims[1].Epoch != 9 || len(a.notary.Problems()) != 0 {
			t.Errorf("%s: accepted, and claims %+v", when, claims)
		}
	}
}

// TestStatusDoesNotSayWhereANodeIs holds that a block decides a node's mesh address by the address at which others reach that
// node, and not by what others than its agent write in its status; that the status is taken before a claim is known, and goes
// on to say where else the node is.
func TestStatusDoesNotSayWhereANodeIs(t *testing.T) {
	all := laneNetwork(t, true, true)
	a := rememberer(t, all[0])
	nodes := annotated(t, all, 1)
	for i := range nodes {
		nodes[i].Requested = nodes[i].PodCIDRs
	}
	nodes[1].InternalIPs = addrs("203.0.113.7", "192.0.2.2", "2001:db8::2")
	behind := func() []netip.Addr {
		granted := overlay.Grant(overlay.Bounds{Self: "n1"}, a.notary.Reached(nodes), nil).Nodes
		n := network("n1", granted, nil).Nodes[1]
		return append([]netip.Addr{n.Behind(n.Mesh[0])}, n.Addresses...)
	}
	if got, want := behind(), addrs("203.0.113.7", "203.0.113.7", "192.0.2.2", "2001:db8::2"); !slices.Equal(got, want) {
		t.Errorf("without a claim %v, want %v", got, want)
	}
	a.notary.SetNodes(nodes)
	select {
	case <-a.notary.Changed():
	default:
		t.Error("nobody looks at what is granted again")
	}
	if got, want := behind(), addrs("192.0.2.2", "192.0.2.2", "203.0.113.7", "2001:db8::2"); !slices.Equal(got, want) {
		t.Errorf("with its claim %v, want %v", got, want)
	}
	nodes[1].InternalIPs = addrs("203.0.113.7") // all that is true is taken out
	if got := behind()[0]; got != addrs("192.0.2.2")[0] {
		t.Errorf("blocks decide by %v", got)
	}
	nodes[1].UID = "reborn"
	if got := behind()[0]; got != addrs("203.0.113.7")[0] {
		t.Errorf("the claim of the Node before decides: %v", got)
	}
}

// waitUntilRemembered runs what remembers until the disk has a node's record.
func waitUntilRemembered(t *testing.T, a *agent, record []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	done := make(chan error)
	go func() { done <- a.remember(ctx) }()
	nudge(a.memorable)
	for found := false; !found; {
		m, err := a.folder.LoadMemory()
		if err != nil || ctx.Err() != nil {
			t.Fatalf("not remembered: %v, %v", err, ctx.Err())
		}
		for _, n := range m.Nodes {
			got, _ := base64.StdEncoding.DecodeString(n.Claim)
			found = found || bytes.Equal(got, record)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
