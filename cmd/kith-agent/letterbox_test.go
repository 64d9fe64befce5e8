package main

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/kithnet/kith/overlay"
	"github.com/kithnet/kith/overlay/gossip"
	"github.com/kithnet/kith/overlay/preshared"
)

// asks is a request that n has signed for another, as good as any but for lane keys that it does not have.
func (n *laneNode) asks(t *testing.T, o *laneNode, at time.Time) []byte {
	t.Helper()
	self := preshared.Self{Name: n.node.Name, UID: n.node.UID, Sign: n.sign, Willing: true}
	text, err := preshared.New(self, nil).Ask(preshared.Other{Name: o.node.Name, UID: o.node.UID, Own: [overlay.Lanes]overlay.Key{{1}, {2}}}, 0, at)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestFloodOfLetters: two nodes agree while a third sends both of them, before each letter of theirs, as many
// as a hundred a second, some signed, some not.
func TestFloodOfLetters(t *testing.T) {
	all := laneNetwork(t, true, true, true)
	a, b, c := all[0], all[1], all[2]
	now := time.Now()
	agreed := func() bool {
		mine, theirs := a.State().Peers["n2"], b.State().Peers["n1"]
		return mine.Secret == [overlay.Lanes]secretState{secretAgreed, secretAgreed} && mine.Secret == theirs.Secret
	}
	const limit = 10 * time.Second
	for start := now; !agreed(); {
		if now = now.Add(soon); now.Sub(start) > limit {
			t.Fatalf("no agreement after %s: %+v", limit, a.State().Peers)
		}
		for _, n := range []*laneNode{a, b} {
			for i := range 50 {
				text := c.asks(t, n, now.Add(time.Duration(i)))
				if i%2 == 0 {
					text[len(text)-1] ^= 1
				}
				n.letters.put(text, now)
				n.letters.put([]byte("nonsense"), now)
			}
			if waiting := len(n.letters.order); waiting > 1 {
				t.Errorf("%d letters of one kind wait", waiting)
			}
		}
		round(t, all, now)
	}
	if a.refused[gossip.BadLetter] < 75 || a.refused[gossip.MailboxFull] == 0 {
		t.Errorf("refused: %v", a.refused)
	}
}

// TestLetterbox: the newest letter of a kind stays, each node has its own pace, and letters are taken as they came.
func TestLetterbox(t *testing.T) {
	all := laneNetwork(t, true, true, true)
	now := time.Now()
	round(t, all, now)
	a, b, c := all[0], all[1], all[2]
	if a.letters.take(mailAtOnce); !a.letters.empty() {
		t.Fatal("letters before")
	}
	first, second := c.asks(t, a, now), c.asks(t, a, now.Add(1))
	if !a.letters.put(second, now) || a.letters.put(first, now) {
		t.Error("an older letter takes the place of a newer")
	}
	for range 100 {
		a.letters.put(c.asks(t, a, now.Add(2)), now)
	}
	last := b.asks(t, a, now)
	if !a.letters.put(last, now) || a.refused[gossip.MailboxFull] < 80 {
		t.Errorf("refused %v", a.refused)
	}
	if a.letters.put(b.asks(t, c, now), now) || a.letters.put(a.asks(t, b, now), now) {
		t.Error("a letter for another is taken")
	}
	if got := a.letters.take(1); len(got) != 1 || bytes.Equal(got[0], last) {
		t.Error("not what came first")
	}
	if got := a.letters.take(mailAtOnce); len(got) != 1 || !bytes.Equal(got[0], last) || !a.letters.empty() {
		t.Error("not what came last")
	}
}

// TestNonsenseIsNoWork: what is no letter is read as fast as it comes, and makes the lanes do nothing.
func TestNonsenseIsNoWork(t *testing.T) {
	all := laneNetwork(t, true, true)
	round(t, all, time.Now())
	a := all[0]
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.run(ctx)
	}()
	for range 1000 { // of which the agent before read twenty a second
		a.inbox <- []byte("nonsense")
	}
	cancel()
	<-done
	select {
	case <-a.Changed():
		t.Error("nonsense is work")
	default:
	}
	a.inbox = make(chan []byte, 1)
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	go a.run(ctx)
	a.inbox <- all[1].asks(t, a, time.Now())
	<-a.Changed()
}
