package gossip

import (
	"crypto/ed25519"
	"encoding/base64"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/kithnet/kith/overlay"
)

// person is a node that can sign.
type person struct {
	name          string
	signing, lane ed25519.PrivateKey
}

func newPerson(name string) person {
	private := func(purpose string) ed25519.PrivateKey {
		seed := make([]byte, ed25519.SeedSize)
		copy(seed, purpose+name)
		return ed25519.NewKeyFromSeed(seed)
	}
	return person{name: name, signing: private("sign "), lane: private("lane ")}
}

// claim is what the person says of itself truly.
func (p person) claim(epoch uint64, addr string) overlay.Claim {
	_, public := overlay.WireGuardKeys(p.lane)
	return overlay.Claim{
		Node: p.name, UID: "uid-" + p.name, Epoch: epoch, Keys: [overlay.Lanes]overlay.Key{public},
		Endpoints: []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr(addr), 51820)},
	}
}

func (p person) record(epoch uint64, addr string) []byte { return p.seal(p.claim(epoch, addr)) }

func (p person) seal(c overlay.Claim) []byte {
	b, err := overlay.Seal(c,
		func(m []byte) overlay.Signature { return overlay.Signature(ed25519.Sign(p.signing, m)) },
		[overlay.Lanes]overlay.Sign{func(m []byte) overlay.Signature { return overlay.ProveKey(p.lane, m) }})
	if err != nil {
		panic(err)
	}
	return b
}

func (p person) node() overlay.Node {
	return overlay.Node{
		Name: p.name, UID: "uid-" + p.name,
		SigningKey: base64.StdEncoding.EncodeToString(p.signing.Public().(ed25519.PublicKey)),
	}
}

// bench is a judge that knows the signing keys of some nodes.
type bench struct {
	mu     sync.Mutex
	ledger *overlay.Ledger
}

func newBench(names ...string) *bench {
	b := &bench{ledger: overlay.NewLedger(testPort)}
	var nodes []overlay.Node
	for _, name := range names {
		nodes = append(nodes, newPerson(name).node())
	}
	b.ledger.SetNodes(nodes)
	return b
}

func (b *bench) Hear(h overlay.Heard) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ledger.Hear(h, time.Now())
}

func (b *bench) Conflict(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ledger.Refuse(overlay.Refusal{Node: name, Cause: overlay.AddressConflict})
}

func (b *bench) epoch(name string) uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.ledger.Claims() {
		if c.Node == name {
			return c.Epoch
		}
	}
	return 0
}

func (b *bench) refused(name string, cause overlay.Cause) uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.ledger.Refused() {
		if r.Node == name && r.Cause == cause {
			return r.Count
		}
	}
	return 0
}

// becomes waits until a condition holds.
func becomes(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func text64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }
