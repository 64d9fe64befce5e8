//go:build e2e

package gossip

import (
	"crypto/ed25519"
	"encoding/json"
	"net/netip"
	"os"
	"testing"

	"github.com/hashicorp/memberlist"

	"github.com/kithnet/kith/overlay"
)

// task is what the cluster's test wants the liar to do, from the environment.
type task struct {
	Targets     []netip.AddrPort // members to lie to
	GossipKey   []byte
	Signing     []byte // seeds of the liar's own keys
	Lanes       [overlay.Lanes][]byte
	Own, Victim struct {
		Name, UID string
		Address   netip.Addr
		Claim     []byte
	}
	Flood int
}

// TestLiarInACluster is run by the test of the same promise on a real cluster: a member with valid credentials of its own
// tells every lie there is.
func TestLiarInACluster(t *testing.T) {
	var job task
	if err := json.Unmarshal([]byte(os.Getenv("KITH_LIAR")), &job); err != nil {
		t.Fatalf("KITH_LIAR: %v", err)
	}
	bent := job.seal(job.claim(1<<40, job.keys()))
	bent[len(bent)-1] ^= 1
	stolen := job.keys()
	if sealed, err := overlay.ParseClaim(job.Victim.Claim); err != nil || sealed.Epoch() == 0 {
		t.Fatalf("the victim's claim: %v", err)
	}
	// The first key of a claim lies behind version, epoch, generation and settled.
	stolen[0] = overlay.Key(job.Victim.Claim[17:49])
	victim, own := job.Victim, job.Own
	for _, lie := range []struct {
		name    string
		address netip.Addr
		record  []byte
	}{
		{victim.Name, own.Address, job.seal(job.claim(1<<40, job.keys()))}, // another's name
		{victim.Name, own.Address, victim.Claim},                           // another's claim, at the own address
		{own.Name, own.Address, victim.Claim},                              // another's claim, under the own name
		{own.Name, own.Address, job.seal(job.claim(1<<40, stolen))},        // another's key
		{own.Name, own.Address, job.seal(job.claim(1, job.keys()))},        // an old epoch
		{own.Name, own.Address, bent},
		{own.Name, own.Address, []byte("nonsense")},
		{"nobody", own.Address, victim.Claim},
	} {
		job.tell(t, lie.name, lie.address, lie.record)
	}
	job.flood(t, bent)
}

func (j task) keys() (keys [overlay.Lanes]overlay.Key) {
	for lane, seed := range j.Lanes {
		_, keys[lane] = overlay.WireGuardKeys(ed25519.NewKeyFromSeed(seed))
	}
	return keys
}

func (j task) claim(epoch uint64, keys [overlay.Lanes]overlay.Key) overlay.Claim {
	return overlay.Claim{
		Node: j.Own.Name, UID: j.Own.UID, Epoch: epoch, Keys: keys,
		Endpoints: []netip.AddrPort{netip.AddrPortFrom(j.Own.Address, 51820)},
	}
}

func (j task) seal(c overlay.Claim) []byte {
	var lanes [overlay.Lanes]overlay.Sign
	for lane, seed := range j.Lanes {
		lanes[lane] = func(m []byte) overlay.Signature { return overlay.ProveKey(ed25519.NewKeyFromSeed(seed), m) }
	}
	signing := ed25519.NewKeyFromSeed(j.Signing)
	b, err := overlay.Seal(c, func(m []byte) overlay.Signature { return overlay.Signature(ed25519.Sign(signing, m)) }, lanes)
	if err != nil {
		panic(err)
	}
	return b
}

// tell joins every target under a name, as if at an address.
func (j task) tell(t *testing.T, name string, address netip.Addr, record []byte) {
	t.Helper()
	config := memberlist.DefaultLANConfig()
	config.Name, config.BindAddr, config.BindPort = name, "0.0.0.0", 0
	config.AdvertiseAddr, config.AdvertisePort = address.String(), int(j.Targets[0].Port())
	config.SecretKey, config.LogOutput, config.EnableCompression = j.GossipKey, discard{}, false
	config.Delegate = &announcement{meta: record}
	l, err := memberlist.Create(config)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Shutdown()
	for _, target := range j.Targets {
		if _, err := l.Join([]string{target.String()}); err != nil {
			t.Errorf("tell %s as %s: %v", target, name, err)
		}
	}
}

// flood sends records under the liar's own name as fast as a member may hope to be heard, and tells how many.
func (j task) flood(t *testing.T, record []byte) {
	t.Helper()
	message := sealedWith(t, j.GossipKey, alive(j.Own.Name, j.Own.Address, j.Targets[0].Port(), record))
	for _, target := range j.Targets {
		flood(t, netip.AddrPort{}, target, func() []byte { return message }, j.Flood)
	}
}
