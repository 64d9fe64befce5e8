package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/kithnet/kith/overlay"
)

// notary lets gossip and the mesher share one ledger, and logs what it refuses: each cause under each name once in a
// while, whatever others send.
type notary struct {
	log     *slog.Logger
	changed chan struct{}
	now     func() time.Time

	mu     sync.Mutex
	ledger *overlay.Ledger
	told   map[overlay.Refusal]time.Time // without details
}

const (
	tellEvery = time.Minute
	maxTold   = 4096
)

func newNotary(log *slog.Logger, gossipPort uint16) *notary {
	return &notary{
		log: log, changed: make(chan struct{}, 1), now: time.Now,
		ledger: overlay.NewLedger(gossipPort), told: map[overlay.Refusal]time.Time{},
	}
}

// Changed receives after Claims changed. It is for one consumer.
func (n *notary) Changed() <-chan struct{} { return n.changed }

// Hear judges what gossip brings.
func (n *notary) Hear(h overlay.Heard) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	before := n.ledger.Revision()
	err := n.ledger.Hear(h, n.now())
	if n.ledger.Revision() != before {
		nudge(n.changed)
	}
	var r overlay.Refusal
	if errors.As(err, &r) {
		n.tell(r)
	}
	return err
}

// Conflict counts a member that is alive at one address and heard of at another.
func (n *notary) Conflict(name string) {
	r := overlay.Refusal{Node: name, Cause: overlay.AddressConflict, Detail: "it gossips at two addresses: it has moved, or two nodes go by its name"}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ledger.Refuse(r)
	n.tell(r)
}

// SetNodes takes the list of all nodes, and returns every node's claim.
func (n *notary) SetNodes(nodes []overlay.Node) []overlay.Claim {
	n.mu.Lock()
	defer n.mu.Unlock()
	before := n.ledger.Revision()
	for _, r := range n.ledger.SetNodes(nodes) {
		n.tell(r)
	}
	if n.ledger.Revision() != before {
		nudge(n.changed) // grants depend on claims
	}
	return n.ledger.Claims()
}

// Reached returns the nodes with where their claims say that others reach them.
func (n *notary) Reached(nodes []overlay.Node) []overlay.Node {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.ledger.Reached(nodes)
}

// Accept takes which nodes may change to which signing keys.
func (n *notary) Accept(all map[string]overlay.Acceptance) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ledger.Accept(all)
	nudge(n.changed)
}

// Problems says which nodes' signing keys have changed without anybody's word, and what to do.
func (n *notary) Problems() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []string
	for _, c := range n.ledger.KeyChanges() {
		out = append(out, changeProblem(c))
	}
	return out
}

// changeProblem names a node and the command that accepts its new key. What is not the form of a key is not repeated:
// somebody may copy it into a shell.
func changeProblem(c overlay.KeyChange) string {
	const holds = "node %s: the signing key on its Node is not the one that it was heard by, %s, which goes on to hold: "
	if c.Key == (overlay.SigningKey{}) {
		return fmt.Sprintf(holds+"annotation %s bears no key; the node's agent writes it again", c.Node, c.Held, overlay.SigningKeyAnnotation)
	}
	return fmt.Sprintf(holds+"if the node has lost /var/lib/kith, accept %s by: kubectl kith mesh accept %s; if not, somebody else has written it",
		c.Node, c.Held, c.Key, c.Node)
}

// Published returns the nodes with the claims that hold.
func (n *notary) Published(nodes []overlay.Node) []overlay.Node {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.ledger.Published(nodes)
}

// Refused returns what was refused, by node and cause.
func (n *notary) Refused() []overlay.Refusals {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.ledger.Refused()
}

func (n *notary) tell(r overlay.Refusal) {
	now, key := n.now(), overlay.Refusal{Node: r.Node, Cause: r.Cause}
	if r.Cause == overlay.UnknownNode {
		key.Node = "" // anybody can make up names
	}
	if last, ok := n.told[key]; ok && now.Sub(last) < tellEvery {
		return
	}
	if len(n.told) >= maxTold {
		clear(n.told)
	}
	n.told[key] = now
	level := slog.LevelWarn
	if r.Cause.Stale() {
		level = slog.LevelInfo
	}
	n.log.Log(context.Background(), level, "claim refused", "member", r.Node, "cause", r.Cause, "reason", r.Detail)
}
