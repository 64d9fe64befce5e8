package overlay

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const gossipPort = 7946

var noon = time.Unix(1_700_000_000, 0)

func (p person) heard(record []byte) Heard {
	addr := p.claim(0).Endpoints[0].Addr()
	return Heard{Name: p.name, Address: netip.AddrPortFrom(addr, gossipPort), Record: record}
}

// state is what a ledger holds: each node's epoch and first key, and the refusals.
func state(l *Ledger) (claims, refused []string) {
	for _, c := range l.Claims() {
		claims = append(claims, fmt.Sprintf("%s epoch %d %s", c.Node, c.Epoch, c.Endpoints[0]))
	}
	for _, r := range l.Refused() {
		refused = append(refused, fmt.Sprintf("%s %s %d", r.Node, r.Cause, r.Count))
	}
	return claims, refused
}

// TestLiesAreRefused is every lie that a member can tell, with what the ledger holds after it.
func TestLiesAreRefused(t *testing.T) {
	a, liar := newPerson("a"), newPerson("b")
	truth := a.claim(5)
	old := a.seal(a.claim(4))
	bent := bytes.Clone(a.seal(a.claim(6)))
	bent[len(bent)-1] ^= 1
	elsewhere := a.heard(a.seal(truth))
	elsewhere.Address = liar.heard(nil).Address
	otherPort := a.heard(a.seal(truth))
	otherPort.Address = netip.AddrPortFrom(otherPort.Address.Addr(), 1)
	other := a.claim(5)
	other.Settled++
	withKey := liar.claim(9)
	withKey.Keys[0] = a.key(0)
	for _, test := range []struct {
		name  string
		heard Heard
		cause Cause
	}{
		{"another's name", a.heard(liar.seal(liar.claim(9))), BadSignature},
		{"another's key", liar.heard(liar.seal(withKey)), NotItsKey},
		{"another's claim", liar.heard(a.seal(a.claim(9))), BadSignature},
		{"old epoch", a.heard(old), OldEpoch},
		{"bent signature", a.heard(bent), BadSignature},
		{"nonsense", a.heard([]byte{claimVersion, 2, 3}), Malformed},
		{"nothing", a.heard(nil), OtherVersion},
		{"other version", a.heard([]byte("not a claim")), OtherVersion},
		{"another's claim at the own address", elsewhere, WrongAddress},
		{"another's claim at another port", otherPort, WrongAddress},
		{"a name that nobody has", Heard{Name: "x", Record: old}, UnknownNode},
		{"an epoch twice", a.heard(a.seal(other)), EpochTwice},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := NewLedger(gossipPort)
			if r := l.SetNodes([]Node{a.node(a.seal(truth)), liar.node(liar.seal(liar.claim(1)))}); len(r) != 0 {
				t.Fatalf("refused %v", r)
			}
			before, _ := state(l)
			err := l.Hear(test.heard, noon)
			if cause(err) != test.cause {
				t.Errorf("error %v, want cause %s", err, test.cause)
			}
			after, refused := state(l)
			if diff := cmp.Diff(before, after); diff != "" && test.cause != EpochTwice {
				t.Errorf("the claims changed: %s", diff)
			}
			name := test.heard.Name
			if test.cause == UnknownNode {
				name = ""
			}
			if diff := cmp.Diff([]string{fmt.Sprintf("%s %s 1", name, test.cause)}, refused); diff != "" {
				t.Errorf("counted: %s", diff)
			}
		})
	}
}

func TestGossipMovesANode(t *testing.T) {
	a := newPerson("a")
	l := NewLedger(gossipPort)
	l.SetNodes([]Node{a.node(a.seal(a.claim(1)))})
	moved := a.claim(3)
	moved.Endpoints = endpoints("9.9.9.9:1")
	heard := Heard{Name: "a", Address: netip.MustParseAddrPort("9.9.9.9:7946"), Record: a.seal(moved)}
	for range 2 {
		if err := l.Hear(heard, noon); err != nil {
			t.Fatal(err)
		}
	}
	// The Node object follows later, or is written by an agent that has lost its state.
	for _, behind := range []uint64{1, 2} {
		if r := l.SetNodes([]Node{a.node(a.seal(a.claim(behind)))}); len(r) != 0 {
			t.Errorf("a Node object behind gossip is refused: %v", r)
		}
	}
	claims, refused := state(l)
	if diff := cmp.Diff([]string{"a epoch 3 9.9.9.9:1"}, claims); diff != "" || len(refused) != 0 {
		t.Errorf("%s, refused %v", diff, refused)
	}
}

// TestNodeUnderAnOldName holds that a node made again, or with a new signing key, takes over from what was, at any epoch.
func TestNodeUnderAnOldName(t *testing.T) {
	a, reborn := newPerson("a"), newPerson("a")
	reborn.uid = "another"
	other := newPerson("c")
	other.name, other.uid = "a", a.uid
	for name, after := range map[string]person{"other UID": reborn, "other signing key": other} {
		l := NewLedger(gossipPort)
		l.SetNodes([]Node{a.node(a.seal(a.claim(9)))})
		l.SetNodes([]Node{after.node(after.seal(after.claim(1)))})
		if claims := l.Claims(); len(claims) != 1 || claims[0].Epoch != 1 {
			t.Errorf("%s: %+v", name, claims)
		}
		if err := l.Hear(a.heard(a.seal(a.claim(10))), noon); cause(err) != BadSignature {
			t.Errorf("%s: the one before: %v", name, err)
		}
		l.SetNodes(nil)
		if _, refused := state(l); len(l.Claims()) != 0 || len(refused) != 1 || refused[0] != " bad-signature 1" {
			t.Errorf("%s: after the node went: %v, %v", name, l.Claims(), refused)
		}
	}
}

func TestMistakesInAnnotations(t *testing.T) {
	a := newPerson("a")
	good := a.node(a.seal(a.claim(1)))
	for name, test := range map[string]struct {
		change func(*Node)
		cause  Cause
	}{
		"no key yet":    {func(n *Node) { n.SigningKey = "" }, ""},
		"no claim yet":  {func(n *Node) { n.Claim = "" }, ""},
		"short key":     {func(n *Node) { n.SigningKey = "YWJj" }, NoSigningKey},
		"not base64":    {func(n *Node) { n.Claim = "!" }, Malformed},
		"not a claim":   {func(n *Node) { n.Claim = base64.StdEncoding.EncodeToString([]byte{claimVersion}) }, Malformed},
		"other's claim": {func(n *Node) { b := newPerson("b"); n.Claim = b.node(b.seal(b.claim(1))).Claim }, BadSignature},
	} {
		l := NewLedger(gossipPort)
		n := good
		test.change(&n)
		var got Cause
		for range 2 { // a resync refuses nothing again
			for _, r := range l.SetNodes([]Node{n}) {
				got += r.Cause
			}
		}
		if got != test.cause || len(l.Claims()) != 0 {
			t.Errorf("%s: cause %q, want %q; claims %v", name, got, test.cause, l.Claims())
		}
		l.SetNodes([]Node{good})
		if len(l.Claims()) != 1 {
			t.Errorf("%s: not mended", name)
		}
	}
}

// TestEventsInAnyOrder holds that the highest epoch wins, in whatever order Node objects and gossip bring claims.
func TestEventsInAnyOrder(t *testing.T) {
	a, b := newPerson("a"), newPerson("b")
	final := []Node{a.node(a.seal(a.claim(3))), b.node(b.seal(b.claim(7)))}
	twin := a.claim(4)
	twin.Settled++
	r := rand.New(rand.NewPCG(1, 2))
	var want []string
	for round := range 200 {
		l := NewLedger(gossipPort)
		var events []func()
		for _, nodes := range [][]Node{nil, final[:1], final, {b.node(b.seal(b.claim(2)))}} {
			events = append(events, func() { l.SetNodes(nodes) })
		}
		for _, h := range []Heard{a.heard(a.seal(a.claim(4))), a.heard(a.seal(twin)), a.heard(a.seal(a.claim(2))), b.heard(b.seal(b.claim(6)))} {
			events = append(events, func() { _ = l.Hear(h, noon) })
		}
		r.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
		for _, happen := range events {
			happen()
		}
		// In the end everybody has heard everything again.
		l.SetNodes(final)
		_ = l.Hear(a.heard(a.seal(twin)), noon)
		_ = l.Hear(a.heard(a.seal(a.claim(4))), noon)
		var got []string
		for _, c := range l.Claims() {
			got = append(got, fmt.Sprintf("%s %d %d", c.Node, c.Epoch, c.Settled))
		}
		if round == 0 {
			want = got
		}
		if diff := cmp.Diff(want, got); diff != "" || len(got) != 2 {
			t.Fatalf("round %d: %s", round, diff)
		}
	}
}

func TestHeldBackUntilTheNodeIsKnown(t *testing.T) {
	a := newPerson("a")
	l := NewLedger(gossipPort)
	if err := l.Hear(a.heard(a.seal(a.claim(8))), noon); cause(err) != UnknownNode {
		t.Fatal(err)
	}
	l.SetNodes([]Node{a.node(a.seal(a.claim(1)))})
	if claims := l.Claims(); len(claims) != 1 || claims[0].Epoch != 8 {
		t.Errorf("claims %+v", claims)
	}
}

// TestFloodIsBounded holds that 100,000 records cost bounded work and memory, and that the truth gets through after them.
func TestFloodIsBounded(t *testing.T) {
	a, liar := newPerson("a"), newPerson("b")
	l := NewLedger(gossipPort)
	l.SetNodes([]Node{a.node(a.seal(a.claim(1))), liar.node(liar.seal(liar.claim(1)))})
	bent := a.seal(a.claim(9))
	bent[len(bent)-1] ^= 1
	for i := range 100_000 {
		h := a.heard(bent)
		if i%2 == 0 {
			h = Heard{Name: fmt.Sprint("stranger-", i), Record: bent}
		}
		if l.Hear(h, noon) == nil {
			t.Fatal("taken")
		}
	}
	long := make([]byte, 1<<20)
	for i := range 2 * maxHeld {
		h := Heard{Name: fmt.Sprint("long-", i), Record: long}
		if i%2 == 0 {
			h = Heard{Name: string(long) + h.Name, Record: bent}
		}
		if l.Hear(h, noon) == nil {
			t.Fatal("taken")
		}
	}
	_, refused := state(l)
	want := []string{" malformed 512", " unknown-node 50000", "a bad-signature 64", "a too-many 49936"}
	if diff := cmp.Diff(want, refused); diff != "" {
		t.Error(diff)
	}
	if len(l.held.records) != maxHeld || len(l.held.order) != maxHeld {
		t.Errorf("%d records held back", len(l.held.records))
	}
	size := 0
	for name, record := range l.held.records {
		size += len(name) + len(record)
	}
	if size > 2*maxHeld*maxHeard {
		t.Errorf("%d bytes held back", size)
	}
	if err := l.Hear(a.heard(a.seal(a.claim(2))), noon.Add(time.Second)); err != nil {
		t.Errorf("after the flood: %v", err)
	}
}

// TestPublishedBeginsAgain holds that a ledger made from what another published has its claims.
func TestPublishedBeginsAgain(t *testing.T) {
	a, b := newPerson("a"), newPerson("b")
	nodes := []Node{a.node(a.seal(a.claim(1))), b.node(nil)}
	l := NewLedger(gossipPort)
	l.SetNodes(nodes)
	_ = l.Hear(a.heard(a.seal(a.claim(5))), noon)
	again := NewLedger(gossipPort)
	if r := again.SetNodes(l.Published(nodes)); len(r) != 0 {
		t.Errorf("refused %v", r)
	}
	if diff := cmp.Diff(l.Claims(), again.Claims(), cmpopts.EquateComparable(netip.AddrPort{})); diff != "" || len(again.Claims()) != 1 {
		t.Error(diff)
	}
}
