package main

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kithnet/kith/overlay"
	"github.com/kithnet/kith/overlay/disk"
	"github.com/kithnet/kith/overlay/wireguard"
)

// say makes a speaker that has said where it is.
func say(t *testing.T, folder disk.Folder, key wireguard.PrivateKey, address string) *speaker {
	t.Helper()
	s, err := newSpeaker(slog.New(slog.DiscardHandler), "n1", folder, func(k overlay.Key) overlay.Sign {
		if k != key.Public() {
			return nil
		}
		return key.Prove
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.moveTo(key.Public(), address); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *speaker) moveTo(key overlay.Key, address string) error {
	return s.Say(func(c *overlay.Claim) {
		c.UID, c.Keys[0] = "u1", key
		c.Endpoints = []netip.AddrPort{netip.MustParseAddrPort(address)}
	})
}

func newTestKey(t *testing.T) wireguard.PrivateKey {
	t.Helper()
	key, err := wireguard.NewPrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TestEpochsOnlyGrow holds that a claim changes its epoch when it changes and only then, over restarts, a lost disk, and
// a clock that goes back.
func TestEpochsOnlyGrow(t *testing.T) {
	folder, key := disk.Folder(t.TempDir()), newTestKey(t)
	first := say(t, folder, key, "192.0.2.1:51820")
	claim, sealed := first.Said()
	again := say(t, folder, key, "192.0.2.1:51820")
	if _, same := again.Said(); !bytes.Equal(same, sealed) {
		t.Error("a restart without a change makes another claim")
	}
	again.now = func() time.Time { return time.Unix(1, 0) }
	if err := again.moveTo(key.Public(), "192.0.2.2:51820"); err != nil {
		t.Fatal(err)
	}
	moved, _ := again.Said()
	if moved.Epoch != claim.Epoch+1 {
		t.Errorf("epoch %d after %d, though the clock went back", moved.Epoch, claim.Epoch)
	}
	if err := os.Remove(filepath.Join(string(folder), "claim")); err != nil {
		t.Fatal(err)
	}
	lost := say(t, folder, key, "192.0.2.3:51820")
	lost.now = func() time.Time { return time.Now().Add(time.Hour) }
	if err := lost.moveTo(key.Public(), "192.0.2.4:51820"); err != nil {
		t.Fatal(err)
	}
	if after, _ := lost.Said(); after.Epoch <= moved.Epoch {
		t.Errorf("epoch %d after %d, as the disk has forgotten", after.Epoch, moved.Epoch)
	}
}

// TestClaimIsOnDiskFirst holds that nobody hears of a claim that a restart would not know.
func TestClaimIsOnDiskFirst(t *testing.T) {
	folder, key := disk.Folder(t.TempDir()), newTestKey(t)
	s := say(t, folder, key, "192.0.2.1:51820")
	_, before := s.Said()
	<-s.toGossip
	s.folder = "/dev/null/no-folder"
	if err := s.moveTo(key.Public(), "192.0.2.2:51820"); err == nil {
		t.Error("a claim that is not on disk is no error")
	}
	if _, after := s.Said(); !bytes.Equal(before, after) || len(s.toGossip) > 0 {
		t.Error("it is said all the same")
	}
	if err := s.moveTo(overlay.Key{1}, "192.0.2.2:51820"); err == nil {
		t.Error("a key that is not this node's is no error")
	}
}

// TestTornClaimIsReplaced holds that a claim file that cannot be used is told, not trusted, and does not stop the agent.
func TestTornClaimIsReplaced(t *testing.T) {
	folder, key := disk.Folder(t.TempDir()), newTestKey(t)
	say(t, folder, key, "192.0.2.1:51820")
	path := filepath.Join(string(folder), "claim")
	if err := os.Truncate(path, 100); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	s, err := newSpeaker(slog.New(slog.NewTextHandler(&log, nil)), "n1", folder, nil)
	if err != nil || !strings.Contains(log.String(), path) {
		t.Errorf("%v, log %s", err, &log)
	}
	if _, sealed := s.Said(); sealed != nil {
		t.Error("a torn claim is used")
	}
}

// TestNotaryTellsAndCounts holds that what is refused reaches the log, a few lines of it, and the status, all of it.
func TestNotaryTellsAndCounts(t *testing.T) {
	folder, key := disk.Folder(t.TempDir()), newTestKey(t)
	s := say(t, folder, key, "192.0.2.1:51820")
	_, sealed := s.Said()
	var log bytes.Buffer
	n := newNotary(slog.New(slog.NewTextHandler(&log, nil)), 7946)
	node := overlay.Node{Name: "n1", UID: "u1", SigningKey: s.signer.Public().String(), Claim: base64.StdEncoding.EncodeToString(sealed)}
	if claims := n.SetNodes([]overlay.Node{node}); len(claims) != 1 {
		t.Fatalf("claims %v", claims)
	}
	<-n.Changed()
	bent := bytes.Clone(sealed)
	epoch := bent[1:9]
	binary.BigEndian.PutUint64(epoch, binary.BigEndian.Uint64(epoch)+1) // a higher one than was signed
	for i := range 1000 {
		for _, name := range []string{"n1", fmt.Sprint("stranger", i)} {
			if n.Hear(overlay.Heard{Name: name, Address: netip.MustParseAddrPort("192.0.2.1:7946"), Record: bent}) == nil {
				t.Fatal("taken")
			}
		}
		n.Conflict("n1")
	}
	if lines := strings.Count(log.String(), "\n"); lines > 5 || !strings.Contains(log.String(), "member=n1 cause=bad-signature") {
		t.Errorf("%d lines:\n%s", lines, &log)
	}
	var total uint64
	for _, r := range n.Refused() {
		total += r.Count
	}
	if total != 3000 {
		t.Errorf("%d refusals counted: %v", total, n.Refused())
	}
	if len(n.Changed()) != 0 {
		t.Error("lies are a change")
	}
	if err := s.moveTo(key.Public(), "192.0.2.9:51820"); err != nil {
		t.Fatal(err)
	}
	_, moved := s.Said()
	if err := n.Hear(overlay.Heard{Name: "n1", Address: netip.MustParseAddrPort("192.0.2.9:7946"), Record: moved}); err != nil && !strings.Contains(err.Error(), "more records") {
		t.Errorf("the truth after the lies: %v", err)
	}
}
