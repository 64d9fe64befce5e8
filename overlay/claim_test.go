package overlay

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"math/big"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// person is a node that can sign.
type person struct {
	name, uid string
	signing   ed25519.PrivateKey
	lanes     [Lanes]ed25519.PrivateKey
}

func newPerson(name string) person {
	private := func(purpose string) ed25519.PrivateKey {
		seed := make([]byte, ed25519.SeedSize)
		copy(seed, purpose+name)
		return ed25519.NewKeyFromSeed(seed)
	}
	return person{name: name, uid: "uid-" + name, signing: private("sign "), lanes: [Lanes]ed25519.PrivateKey{private("lane 0 "), private("lane 1 ")}}
}

func (p person) key(lane int) Key {
	_, public := WireGuardKeys(p.lanes[lane])
	return public
}

func (p person) claim(epoch uint64) Claim {
	return Claim{
		Node: p.name, UID: p.uid, Epoch: epoch, Keys: [Lanes]Key{p.key(0), p.key(1)}, Generation: 7, Settled: 6,
		Endpoints: endpoints("172.18.0."+string('0'+p.name[0]-'a'+1)+":51820", "[fd00:18::1]:51820"),
	}
}

func (p person) seal(c Claim) []byte {
	b, err := Seal(c, signWith(p.signing), [Lanes]Sign{proveWith(p.lanes[0]), proveWith(p.lanes[1])})
	if err != nil {
		panic(err)
	}
	return b
}

func signWith(key ed25519.PrivateKey) Sign {
	return func(m []byte) Signature { return Signature(ed25519.Sign(key, m)) }
}

func proveWith(key ed25519.PrivateKey) Sign {
	return func(m []byte) Signature { return ProveKey(key, m) }
}

func (p person) signingKey() SigningKey { return SigningKey(p.signing.Public().(ed25519.PublicKey)) }

func (p person) node(record []byte) Node {
	return Node{Name: p.name, UID: p.uid, SigningKey: p.signingKey().String(), Claim: base64.StdEncoding.EncodeToString(record)}
}

func open(t *testing.T, record []byte, by person) (Claim, error) {
	t.Helper()
	s, err := ParseClaim(record)
	if err != nil {
		t.Fatal(err)
	}
	return s.Open(by.name, by.uid, by.signingKey())
}

func TestClaimRoundTrip(t *testing.T) {
	a := newPerson("a")
	largest, least := a.claim(1<<64-1), a.claim(0)
	largest.Endpoints = nil
	for range maxEndpoints {
		largest.Endpoints = append(largest.Endpoints, endpoints("[fd00:18::1]:51820")...)
	}
	least.Keys[1], least.Endpoints = Key{}, nil
	for name, want := range map[string]Claim{"least": least, "usual": a.claim(9), "largest": largest} {
		record := a.seal(want)
		if len(record) > 512 {
			t.Errorf("%s: %d bytes", name, len(record))
		}
		got, err := open(t, record, a)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateComparable(endpoints("1.1.1.1:1")[0]), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// TestNoClaimForAnother holds that what one node can sign is no claim of another, and takes nothing of another.
func TestNoClaimForAnother(t *testing.T) {
	a, liar := newPerson("a"), newPerson("b")
	victim := a.seal(a.claim(3))
	if _, err := open(t, victim, liar); !errors.Is(err, ErrSignature) {
		t.Errorf("another's claim under the own name: %v", err)
	}
	as := liar
	as.name, as.uid = a.name, a.uid
	s, _ := ParseClaim(as.seal(a.claim(4)))
	if _, err := s.Open(a.name, a.uid, a.signingKey()); !errors.Is(err, ErrSignature) {
		t.Errorf("a claim under another's name: %v", err)
	}
	reborn := a
	reborn.uid = "other"
	if _, err := open(t, victim, reborn); !errors.Is(err, ErrSignature) {
		t.Errorf("a claim of the Node object before: %v", err)
	}
	stolen := liar.claim(5)
	stolen.Keys[0] = a.key(0)
	if _, err := open(t, liar.seal(stolen), liar); !errors.Is(err, ErrPossession) {
		t.Errorf("another's WireGuard key: %v", err)
	}
	// The victim's own proof, copied, is bound to the victim's name.
	copied := bytes.Clone(victim)
	proofs := len(copied) - 3*len(Signature{})
	body := copied[:proofs+2*len(Signature{})]
	sig := signWith(liar.signing)(liar.claim(3).signed(body))
	if _, err := open(t, append(body, sig[:]...), liar); !errors.Is(err, ErrPossession) {
		t.Errorf("another's WireGuard key with its proof: %v", err)
	}
	swapped := a.claim(6)
	swapped.Keys[0], swapped.Keys[1] = swapped.Keys[1], swapped.Keys[0]
	if _, err := open(t, a.seal(swapped), a); !errors.Is(err, ErrPossession) {
		t.Errorf("a proof for the other key: %v", err)
	}
}

func TestEveryBitIsSigned(t *testing.T) {
	a := newPerson("a")
	record := a.seal(a.claim(1))
	for i := range record {
		bit := 8*i + i%8
		bent := bytes.Clone(record)
		bent[bit/8] ^= 1 << (bit % 8)
		s, err := ParseClaim(bent)
		if err != nil {
			continue
		}
		if _, err := s.Open(a.name, a.uid, a.signingKey()); err == nil {
			t.Fatalf("bit %d can be bent", bit)
		}
	}
	for n := range record {
		if _, err := ParseClaim(record[:n]); err == nil {
			t.Errorf("the first %d bytes are a claim", n)
		}
	}
	if _, err := ParseClaim(append(record, 0)); !errors.Is(err, ErrMalformed) {
		t.Errorf("bytes after the end: %v", err)
	}
}

func TestClaimThatCannotBeSealed(t *testing.T) {
	a := newPerson("a")
	many, zone, keyless := a.claim(1), a.claim(1), a.claim(1)
	for range maxEndpoints {
		many.Endpoints = append(many.Endpoints, many.Endpoints[0])
	}
	zone.Endpoints = endpoints("[fe80::1%eth0]:1")
	keyless.Keys = [Lanes]Key{}
	for name, c := range map[string]Claim{"endpoints": many, "zone": zone, "no key": keyless} {
		if _, err := Seal(c, signWith(a.signing), [Lanes]Sign{proveWith(a.lanes[0]), proveWith(a.lanes[1])}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestWireGuardKeys holds that what WireGuard computes from the private key is the public key that is claimed.
func TestWireGuardKeys(t *testing.T) {
	r := rand.NewChaCha8([32]byte{1})
	for range 50 {
		var seed [ed25519.SeedSize]byte
		r.Read(seed[:])
		key := ed25519.NewKeyFromSeed(seed[:])
		private, public := WireGuardKeys(key)
		want, err := ecdh.X25519().NewPrivateKey(private[:])
		if err != nil || !bytes.Equal(want.PublicKey().Bytes(), public[:]) {
			t.Fatalf("public key %x is not that of the private one (%v)", public, err)
		}
		if !public.provenBy(seed[:], ProveKey(key, seed[:])) {
			t.Errorf("no proof by key %x", seed)
		}
		if public.provenBy([]byte("other"), ProveKey(key, seed[:])) {
			t.Errorf("proof of another message by key %x", seed)
		}
	}
	// Points that no private key has must not upset the arithmetic.
	minusOne := new(big.Int).Sub(fieldPrime(), big.NewInt(1))
	for name, k := range map[string]Key{"zero": {}, "one": {1}, "minus one": bytesOf(minusOne), "prime": bytesOf(fieldPrime()), "ones": Key(bytes.Repeat([]byte{255}, 32))} {
		if k.provenBy([]byte("m"), Signature{}) {
			t.Errorf("%s is proven by nothing", name)
		}
	}
}

// A claim that parses is written back to the same bytes: there is one spelling.
func FuzzParseClaim(f *testing.F) {
	a := newPerson("a")
	single := a.claim(3)
	single.Keys[1], single.Endpoints = Key{}, nil
	f.Add(a.seal(a.claim(1)))
	f.Add(a.seal(single))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := ParseClaim(data)
		if err != nil {
			return
		}
		proofs := 0
		again, err := Seal(s.claim, func([]byte) Signature { return s.sig }, [Lanes]Sign{
			func([]byte) Signature { proofs++; return s.proofs[0] }, func([]byte) Signature { proofs++; return s.proofs[1] },
		})
		if err != nil || !bytes.Equal(again, data) {
			t.Errorf("%x is written back as %x (%v)", data, again, err)
		}
	})
}
