package preshared

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/kithnet/kith/overlay"
)

var start = time.Unix(1_000_000, 0)

// party is a node with its agreements, and what the other knows of it.
type party struct {
	*Agreements
	private ed25519.PrivateKey
	keys    [overlay.Lanes]overlay.Key
	inUse   [overlay.Lanes]bool
}

func newParty(name string) *party {
	p := &party{private: ed25519.NewKeyFromSeed(bytes.Repeat([]byte(name), ed25519.SeedSize)[:ed25519.SeedSize])}
	p.keys = [overlay.Lanes]overlay.Key{{name[0], 1}, {name[0], 2}}
	p.Agreements = New(p.self(name), nil)
	return p
}

func (p *party) self(name string) Self {
	sign := func(message []byte) overlay.Signature { return overlay.Signature(ed25519.Sign(p.private, message)) }
	return Self{Name: name, UID: "uid-" + name, Sign: sign, Willing: true}
}

// sees is what p knows of another.
func (p *party) sees(o *party) Other {
	return Other{
		Name: o.Agreements.self.Name, UID: o.Agreements.self.UID, Signing: overlay.SigningKey(o.private.Public().(ed25519.PublicKey)),
		Own: p.keys, Keys: o.keys, InUse: p.inUse,
	}
}

func (p *party) ask(t *testing.T, o *party, lane int, at time.Time) []byte {
	t.Helper()
	m, err := p.Ask(p.sees(o), lane, at)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (p *party) mustHear(t *testing.T, o *party, m []byte) []byte {
	t.Helper()
	reply, err := p.Hear(m, p.sees(o), start)
	if err != nil {
		t.Fatal(err)
	}
	return reply
}

func mustShare(t *testing.T, a, b *party, lane int) {
	t.Helper()
	mine, theirs := a.Key(a.sees(b), lane), b.Key(b.sees(a), lane)
	if mine.IsZero() || mine != theirs || !a.Settled(a.sees(b), lane) || !b.Settled(b.sees(a), lane) {
		t.Errorf("lane %d: secrets differ or are none", lane)
	}
}

func TestBothAgree(t *testing.T) {
	a, b := newParty("a"), newParty("b")
	seen := map[overlay.Preshared]bool{}
	for lane := range overlay.Lanes {
		if a.Settled(a.sees(b), lane) {
			t.Errorf("lane %d is settled before", lane)
		}
		b.mustHear(t, a, a.ask(t, b, lane, start)) // lost on the way
		if m := a.ask(t, b, lane, start.Add(answerTime/2)); m != nil {
			t.Error("asks again at once")
		}
		a.mustHear(t, b, b.mustHear(t, a, a.ask(t, b, lane, start.Add(answerTime))))
		mustShare(t, a, b, lane)
		a.mustHear(t, b, b.mustHear(t, a, a.ask(t, b, lane, start.Add(2*answerTime))))
		mustShare(t, a, b, lane)
		seen[a.Key(a.sees(b), lane)] = true
	}
	if len(seen) != overlay.Lanes {
		t.Error("both lanes have one secret")
	}
	again := New(a.self("a"), a.Secrets())
	if again.Key(a.sees(b), 1) != a.Key(a.sees(b), 1) {
		t.Error("what was kept is not there")
	}
	b.keys[1] = overlay.Key{'n'}
	if a.Settled(a.sees(b), 1) || !a.Settled(a.sees(b), 0) {
		t.Error("the secret is not that of the keys")
	}
	a.Retain([]Other{a.sees(b)})
	if got := len(a.Secrets()); got != 1 {
		t.Errorf("%d secrets kept, want 1", got)
	}
}

func TestBothAskAtOnce(t *testing.T) {
	a, b := newParty("a"), newParty("b")
	fromA, fromB := a.ask(t, b, 0, start), b.ask(t, a, 0, start)
	if _, err := a.Hear(fromB, a.sees(b), start); !errors.Is(err, ErrBusy) {
		t.Errorf("the first name answers: %v", err)
	}
	a.mustHear(t, b, b.mustHear(t, a, fromA))
	mustShare(t, a, b, 0)
}

func TestAnswersInAnyOrder(t *testing.T) {
	a, b := newParty("a"), newParty("b")
	first := a.ask(t, b, 0, start)
	second := a.ask(t, b, 0, start.Add(answerTime))
	reply := b.mustHear(t, a, second)
	if _, err := b.Hear(first, b.sees(a), start); !errors.Is(err, ErrReplay) {
		t.Errorf("the older request: %v", err)
	}
	a.mustHear(t, b, reply)
	mustShare(t, a, b, 0)
}

func TestRefused(t *testing.T) {
	a, b, c := newParty("a"), newParty("b"), newParty("c")
	good := a.ask(t, b, 0, start)
	other := b.sees(a)
	with := func(change func(o *Other)) Other {
		o := other
		change(&o)
		return o
	}
	for name, test := range map[string]struct {
		message []byte
		by      *party
		from    Other
		want    error
	}{
		"sent back to the sender":      {good, a, a.sees(b), ErrStranger},
		"for another node":             {good, c, c.sees(a), ErrStranger},
		"from another node":            {good, b, b.sees(c), ErrStranger},
		"of another key of the sender": {good, b, with(func(o *Other) { o.Keys[0] = overlay.Key{'x'} }), ErrKeys},
		"for another own key":          {good, b, with(func(o *Other) { o.Own[0] = overlay.Key{'x'} }), ErrKeys},
		"another signing key":          {good, b, with(func(o *Other) { o.Signing = c.sees(b).Signing }), ErrSignature},
		"another UID":                  {good, b, with(func(o *Other) { o.UID = "reborn" }), ErrSignature},
		"a bent signature":             {append(bytes.Clone(good[:len(good)-1]), good[len(good)-1]^1), b, other, ErrSignature},
		"a bent number":                {append(append(bytes.Clone(good[:10]), good[10]^1), good[11:]...), b, other, ErrSignature},
		"a lane in use":                {good, b, with(func(o *Other) { o.InUse[0] = true }), ErrBusy},
		"cut":                          {good[:len(good)-1], b, other, ErrMalformed},
		"longer":                       {append(bytes.Clone(good), 0), b, other, ErrMalformed},
		"nothing":                      {nil, b, other, ErrMalformed},
	} {
		if reply, err := test.by.Hear(test.message, test.from, start); !errors.Is(err, test.want) || reply != nil {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
		if len(test.by.Secrets()) > 0 {
			t.Errorf("%s: changes something", name)
		}
	}
	reply := b.mustHear(t, a, good)
	if _, err := b.Hear(good, other, start); !errors.Is(err, ErrReplay) {
		t.Errorf("a request twice: %v", err)
	}
	again := New(b.self("b"), b.Secrets())
	if _, err := again.Hear(good, other, start); !errors.Is(err, ErrReplay) {
		t.Errorf("a request twice, over a restart: %v", err)
	}
	a.mustHear(t, b, reply)
	if _, err := a.Hear(reply, a.sees(b), start); !errors.Is(err, ErrUnasked) {
		t.Errorf("an answer twice: %v", err)
	}
	a.ask(t, b, 0, start.Add(answerTime))
	if _, err := a.Hear(reply, a.sees(b), start); !errors.Is(err, ErrUnasked) {
		t.Errorf("the answer to another request: %v", err)
	}
	mustShare(t, a, b, 0)
}

// TestWhoAsksHasNone holds that a request for a lane in use, which is refused, says when the other end had no secret; an
// old one, the same again, and one by anybody else say nothing.
func TestWhoAsksHasNone(t *testing.T) {
	a, b, c := newParty("a"), newParty("b"), newParty("c")
	b.inUse[0] = true
	hears := func(message []byte, from Other, at time.Time, want error) {
		t.Helper()
		if reply, err := b.Hear(message, from, at); !errors.Is(err, want) || reply != nil {
			t.Errorf("error %v, want %v", err, want)
		}
	}
	wanted := func(want time.Time) {
		t.Helper()
		if got := b.Wanted(b.sees(a), 0); !got.Equal(want) {
			t.Errorf("wanted at %s, not %s", got, want)
		}
	}
	old := a.ask(t, b, 0, start)
	ahead := a.ask(t, b, 0, start.Add(time.Hour)) // its clock goes before ours
	forged := b.sees(a)
	forged.Signing = b.sees(c).Signing
	hears(ahead, forged, start, ErrSignature)
	wanted(time.Time{})
	later := start.Add(10 * time.Minute)
	hears(old, b.sees(a), later, ErrBusy)
	wanted(start)
	hears(ahead, b.sees(a), later, ErrBusy)
	for _, message := range [][]byte{old, ahead} {
		hears(message, b.sees(a), later.Add(time.Minute), ErrBusy)
		wanted(later)
	}
	b.inUse[0] = false
	last := a.ask(t, b, 0, start.Add(2*time.Hour))
	a.mustHear(t, b, b.mustHear(t, a, last))
	mustShare(t, a, b, 0)
	b.inUse[0] = true
	for _, message := range [][]byte{old, ahead, last} {
		hears(message, b.sees(a), later, ErrReplay)
	}
	wanted(time.Time{})
}

func TestOneDeclines(t *testing.T) {
	a, b := newParty("a"), newParty("b")
	b.Agreements.self.Willing = false
	if !b.Settled(b.sees(a), 0) {
		t.Error("who does without waits for a secret")
	}
	a.mustHear(t, b, b.mustHear(t, a, a.ask(t, b, 0, start)))
	if o := a.sees(b); !a.Declined(o, 0) || !a.Settled(o, 0) || !a.Key(o, 0).IsZero() || a.Settled(o, 1) {
		t.Error("the refusal is not taken")
	}
	b.Agreements.self.Willing = true
	a.mustHear(t, b, b.mustHear(t, a, a.ask(t, b, 0, start.Add(answerTime))))
	mustShare(t, a, b, 0)
	a.Drop(a.sees(b), 0)
	if a.Settled(a.sees(b), 0) || len(a.Secrets()) != 1 {
		t.Error("what is dropped must be asked for again, and its number kept")
	}
}

func TestSecretDoesNotShow(t *testing.T) {
	s := Secret{Key: overlay.Preshared{0xab, 0xcd, 0xef, 0x12, 0x34}}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("secret", "secret", s, "key", s.Key)
	slog.New(slog.NewTextHandler(&log, nil)).Info("secret", "secret", s, "key", s.Key)
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	shown := log.String() + string(text) + fmt.Sprintf("%v %+v %#v %x %d %s", s, s, s, s.Key, s.Key, s.Key)
	for _, form := range []string{"abcdef", "171 205", "171,205", "0xab"} {
		if strings.Contains(strings.ToLower(shown), form) {
			t.Errorf("the secret shows: %s", shown)
		}
	}
}

// FuzzHear: whatever comes, there is an answer or a refusal, and nothing without a signature changes anything.
func FuzzHear(f *testing.F) {
	a, b := newParty("a"), newParty("b")
	m, err := a.Ask(a.sees(b), 1, start)
	if err != nil {
		f.Fatal(err)
	}
	reply, err := b.Hear(m, b.sees(a), start)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(m)
	f.Add(reply)
	f.Fuzz(func(t *testing.T, data []byte) {
		c := newParty("b")
		if got, err := parse(data); err == nil {
			if again, _ := parse(append(bytes.Clone(got.body), got.sig[:]...)); again.hash() != got.hash() {
				t.Error("a second encoding")
			}
		}
		o := c.sees(a)
		o.Signing = overlay.SigningKey{}
		if _, err := c.Hear(data, o, start); err == nil {
			t.Error("taken without a signature")
		}
	})
}
