package main

import (
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/kithnet/kith/overlay"
	"github.com/kithnet/kith/overlay/disk"
)

// speaker is what this node says of itself: one claim, sealed anew under a higher epoch whenever it changes, and on
// disk before anybody hears of it.
type speaker struct {
	node   string
	folder disk.Folder
	signer disk.Signer
	prove  func(overlay.Key) overlay.Sign // with the private half of a lane's key; nil if there is none
	now    func() time.Time

	// Signals that the claim has changed: for the Node object, which may take long, and for gossip.
	toNode, toGossip chan struct{}

	mu     sync.Mutex
	claim  overlay.Claim
	sealed []byte
}

// newSpeaker goes on where the claim on disk ends. One that cannot be used is as none.
func newSpeaker(log *slog.Logger, node string, folder disk.Folder, prove func(overlay.Key) overlay.Sign) (*speaker, error) {
	signer, err := folder.LoadSigner()
	if err != nil {
		return nil, err
	}
	s := &speaker{
		node: node, folder: folder, signer: signer, prove: prove, now: time.Now,
		toNode: make(chan struct{}, 1), toGossip: make(chan struct{}, 1),
	}
	if err := s.resume(); err != nil {
		log.Warn("this node's last claim is not used: a new one takes its place", "error", err)
	}
	return s, nil
}

func (s *speaker) resume() error {
	own, err := s.folder.LoadOwn()
	if err != nil || own.Sealed == nil {
		return err
	}
	sealed, err := overlay.ParseClaim(own.Sealed)
	if err != nil {
		return err
	}
	if s.claim, err = sealed.Open(s.node, own.UID, s.signer.Public()); err != nil {
		return err
	}
	s.sealed = own.Sealed
	return nil
}

// Say changes this node's claim. The epoch is the speaker's: always higher than the one before and, should the disk
// have forgotten that, higher than it was.
func (s *speaker) Say(change func(*overlay.Claim)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.claim
	next.Endpoints = slices.Clone(next.Endpoints)
	change(&next)
	next.Node, next.Epoch = s.node, s.claim.Epoch
	if s.sealed != nil && equal(next, s.claim) {
		return nil
	}
	next.Epoch = max(s.claim.Epoch+1, uint64(s.now().Unix()))
	var lanes [overlay.Lanes]overlay.Sign
	for lane, key := range next.Keys {
		if lanes[lane] = s.prove(key); lanes[lane] == nil && !key.IsZero() {
			return fmt.Errorf("claim key %s: this node has no private key for it", key)
		}
	}
	sealed, err := overlay.Seal(next, s.signer.Sign, lanes)
	if err == nil {
		err = s.folder.SaveOwn(disk.Own{UID: next.UID, Sealed: sealed})
	}
	if err != nil {
		return err
	}
	s.claim, s.sealed = next, sealed
	nudge(s.toNode)
	nudge(s.toGossip)
	return nil
}

// Said returns this node's claim and its sealed form, which is nil before the first.
func (s *speaker) Said() (overlay.Claim, []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.claim, s.sealed
}

func equal(a, b overlay.Claim) bool {
	return a.Node == b.Node && a.UID == b.UID && a.Epoch == b.Epoch && a.Keys == b.Keys &&
		a.Generation == b.Generation && a.Settled == b.Settled && slices.Equal(a.Endpoints, b.Endpoints)
}
