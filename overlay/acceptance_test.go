package overlay

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// rekeyed is the same node with another signing key, as after the loss of its disk, or by somebody else's hand.
func rekeyed(p person) person {
	other := newPerson("other " + p.name)
	other.name, other.uid = p.name, p.uid
	return other
}

// heardOf is a ledger that has heard a under its key.
func heardOf(t *testing.T, a person) *Ledger {
	t.Helper()
	l := NewLedger(gossipPort)
	l.SetNodes([]Node{a.node(a.seal(a.claim(5)))})
	if err := l.Hear(a.heard(a.seal(a.claim(5))), noon); err != nil {
		t.Fatal(err)
	}
	return l
}

// TestNobodyChangesASigningKey holds that what is written on the Node object of a node that was heard moves nothing: not
// another key, not one taken away, not one that is none, neither after a restart from disk.
func TestNobodyChangesASigningKey(t *testing.T) {
	a := newPerson("a")
	thief := rekeyed(a)
	forged := thief.node(thief.seal(thief.claim(9)))
	absent, bent := forged, forged
	absent.SigningKey, bent.SigningKey = "", "'; reboot; '"
	for name, test := range map[string]struct {
		node    Node
		changes int
	}{"another": {forged, 1}, "none": {absent, 0}, "no key": {bent, 1}} {
		l := heardOf(t, a)
		again := NewLedger(gossipPort)
		again.SetNodes(l.Published([]Node{a.node(nil)}))
		for when, l := range map[string]*Ledger{"live": l, "from disk": again} {
			l.SetNodes([]Node{test.node})
			refused := l.SetNodes([]Node{test.node}) // says nothing a second time
			claims := l.Claims()
			if len(claims) != 1 || claims[0].Epoch != 5 || claims[0].Signing != a.signingKey() {
				t.Errorf("%s, %s: claims %+v", name, when, claims)
			}
			if got := l.KeyChanges(); len(got) != test.changes || len(refused) != 0 {
				t.Errorf("%s, %s: changes %+v, refused again %v", name, when, got, refused)
			}
			if err := l.Hear(thief.heard(thief.seal(thief.claim(10))), noon); cause(err) != BadSignature {
				t.Errorf("%s, %s: the thief's word: %v", name, when, err)
			}
			if err := l.Hear(a.heard(a.seal(a.claim(6))), noon); err != nil {
				t.Errorf("%s, %s: the node's own word: %v", name, when, err)
			}
			l.SetNodes([]Node{a.node(a.seal(a.claim(7)))})
			if got := l.Claims(); len(l.KeyChanges()) != 0 || got[0].Epoch != 7 {
				t.Errorf("%s, %s: after the node has written it again: %+v, %+v", name, when, l.KeyChanges(), got)
			}
		}
	}
}

// TestAcceptedKey holds that an administrator's word for just this key under just this UID lets it take the old one's
// place, that it then holds itself, and that a stale word changes nothing.
func TestAcceptedKey(t *testing.T) {
	a := newPerson("a")
	next := rekeyed(a)
	node := next.node(next.seal(next.claim(1)))
	for name, wrong := range map[string]Acceptance{
		"another key": {UID: a.uid, Key: newPerson("x").signingKey()},
		"another UID": {UID: "before", Key: next.signingKey()},
		"no key":      {UID: a.uid},
	} {
		l := heardOf(t, a)
		l.Accept(map[string]Acceptance{"a": wrong})
		l.SetNodes([]Node{node})
		want := []KeyChange{{Node: "a", Held: a.signingKey(), Acceptance: Acceptance{UID: a.uid, Key: next.signingKey()}}}
		if diff := cmp.Diff(want, l.KeyChanges()); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	l := heardOf(t, a)
	l.Accept(map[string]Acceptance{"a": {UID: a.uid, Key: next.signingKey()}, "b": {UID: a.uid, Key: a.signingKey()}})
	l.SetNodes([]Node{node})
	if claims := l.Claims(); len(claims) != 1 || claims[0].Epoch != 1 || claims[0].Signing != next.signingKey() || len(l.KeyChanges()) != 0 {
		t.Errorf("claims %+v, changes %+v", claims, l.KeyChanges())
	}
	l.SetNodes([]Node{a.node(a.seal(a.claim(9)))})
	if claims := l.Claims(); claims[0].Signing != next.signingKey() || len(l.KeyChanges()) != 1 {
		t.Errorf("back to the old key: claims %+v, changes %+v", claims, l.KeyChanges())
	}
	l.SetNodes([]Node{node}) // accepted, and held already
	if len(l.KeyChanges()) != 0 {
		t.Errorf("changes %+v", l.KeyChanges())
	}
}

// TestNodeThatWasNotHeard holds that a key which the Node object alone has shown gives way to the next: after Kith was
// removed and installed again, Nodes bear keys that nobody has any more. So do nodes in a file that does not say what holds.
func TestNodeThatWasNotHeard(t *testing.T) {
	a := newPerson("a")
	next := rekeyed(a)
	l := NewLedger(gossipPort)
	l.SetNodes([]Node{a.node(a.seal(a.claim(9)))})
	l.SetNodes([]Node{next.node(next.seal(next.claim(1)))})
	if claims := l.Claims(); len(claims) != 1 || claims[0].Signing != next.signingKey() || len(l.KeyChanges()) != 0 {
		t.Errorf("claims %+v, changes %+v", claims, l.KeyChanges())
	}
	l.SetNodes([]Node{a.node(nil)})
	reborn := next
	reborn.uid = "reborn"
	heard := heardOf(t, a)
	heard.SetNodes([]Node{reborn.node(reborn.seal(reborn.claim(1)))})
	if claims := heard.Claims(); len(claims) != 1 || claims[0].Signing != next.signingKey() || len(heard.KeyChanges()) != 0 {
		t.Errorf("another UID: claims %+v, changes %+v", claims, heard.KeyChanges())
	}
}

// TestKeysAreFollowed holds that a ledger which follows keys takes the next at once, whatever was heard and kept.
func TestKeysAreFollowed(t *testing.T) {
	a := newPerson("a")
	next := rekeyed(a)
	kept := heardOf(t, a).Published([]Node{a.node(nil)})
	l := NewLedger(gossipPort)
	l.FollowKeys()
	l.SetNodes(kept)
	if err := l.Hear(a.heard(a.seal(a.claim(6))), noon); err != nil {
		t.Fatal(err)
	}
	l.SetNodes([]Node{next.node(next.seal(next.claim(1)))})
	if claims := l.Claims(); len(claims) != 1 || claims[0].Signing != next.signingKey() || len(l.KeyChanges()) != 0 {
		t.Errorf("claims %+v, changes %+v", claims, l.KeyChanges())
	}
}

func FuzzParseAcceptance(f *testing.F) {
	f.Add("u " + newPerson("a").signingKey().String())
	f.Add("u")
	f.Fuzz(func(t *testing.T, text string) {
		a, err := ParseAcceptance(text)
		if err != nil {
			return
		}
		if again, err := ParseAcceptance(a.String()); err != nil || again != a {
			t.Errorf("%q: %+v, again %+v (%v)", text, a, again, err)
		}
	})
}
