package overlay

import (
	"bytes"
	"encoding/base64"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Ledger judges claims and keeps, for every node, the one of the highest epoch
// that verifies, whoever brought it: the Node object, gossip, or the disk.
//
// What a claim is judged by comes from Node objects alone. A signing key by which
// a node was heard holds until its Node object is gone: who can write Node objects
// cannot give a node another one, nor take it away. Only an Acceptance lets another
// take its place. What fails is refused and counted by cause. Work and memory have
// bounds, whatever gossip brings: a record costs at most a verification within a
// budget, and records of nodes that are not known yet are held back in a fixed
// number of places.
//
// It is not safe for concurrent use.
type Ledger struct {
	port     uint16
	accounts map[string]*account
	held     held
	budget   Budget
	refused  map[refusalKey]uint64
	accepted map[string]Acceptance
	follows  bool
	revision uint64
}

// account is what the ledger knows of one node.
type account struct {
	uid       string
	key       SigningKey
	signing   string // the annotations, as last judged
	published string
	pinned    bool   // the key holds against another
	other     string // what the Node object names in place of a pinned key
	claim     Claim
	sealed    []byte
	budget    Budget
	revision  *uint64 // the ledger's
}

// Heard is what gossip brings: a record under a member's name, and the address
// that the member is said to be at.
type Heard struct {
	Name    string
	Address netip.AddrPort
	Record  []byte
}

// NewLedger makes the ledger of a cluster that gossips on port.
func NewLedger(port uint16) *Ledger {
	return &Ledger{
		port:     port,
		accounts: make(map[string]*account),
		held:     held{records: make(map[string][]byte)},
		budget:   Budget{Burst: 4096, PerSecond: 512},
		refused:  make(map[refusalKey]uint64),
	}
}

// SetNodes takes the list of all nodes. It returns what it refused of their
// claims, each once.
func (l *Ledger) SetNodes(nodes []Node) []Refusal {
	known := make(map[string]bool, len(nodes))
	var refusals []Refusal
	for i := range nodes {
		known[nodes[i].Name] = true
		for _, err := range []error{l.setNode(&nodes[i]), l.release(nodes[i].Name)} {
			var r Refusal
			if errors.As(err, &r) {
				refusals = append(refusals, r)
			}
		}
	}
	for name := range l.accounts {
		if !known[name] {
			delete(l.accounts, name)
			l.revision++
			l.forgetRefusals(name)
		}
	}
	return refusals
}

// setNode opens a new account if this is another node under an old name, or one that
// may have another signing key.
func (l *Ledger) setNode(n *Node) error {
	a := l.accounts[n.Name]
	if a != nil && a.uid == n.UID && a.pinned && (n.SigningKey == a.signing || !l.accepts(n)) {
		if err := l.hold(a, n); err != nil || a.other != "" {
			return err
		}
	} else if a == nil || a.uid != n.UID || a.signing != n.SigningKey {
		a = &account{uid: n.UID, signing: n.SigningKey, budget: Budget{Burst: 64, PerSecond: 4}, revision: &l.revision}
		l.accounts[n.Name] = a
		l.revision++
		if n.SigningKey == "" {
			return nil
		}
		var err error
		if a.key, err = ParseSigningKey(n.SigningKey); err != nil {
			return l.refuse(n.Name, NoSigningKey, "annotation %s: %v", SigningKeyAnnotation, err)
		}
		a.pinned = !l.follows && (n.KeyHeld || l.accepts(n))
	}
	if n.Claim == a.published || a.key == (SigningKey{}) {
		return nil
	}
	a.published = n.Claim
	if n.Claim == "" {
		return nil
	}
	return l.readClaim(a, n)
}

// readClaim judges the claim on a Node object.
func (l *Ledger) readClaim(a *account, n *Node) error {
	record, err := base64.StdEncoding.Strict().DecodeString(n.Claim)
	if err != nil {
		return l.refuse(n.Name, Malformed, "annotation %s is not base64", ClaimAnnotation)
	}
	err = a.judge(n.Name, record)
	if cause(err) == OldEpoch {
		return nil // an object that lags behind gossip is no lie
	}
	return l.count(n.Name, err)
}

// release judges what was held back until its node is known.
func (l *Ledger) release(name string) error {
	a := l.accounts[name]
	if a.key == (SigningKey{}) {
		return nil
	}
	record, ok := l.held.take(name)
	if !ok {
		return nil
	}
	return l.count(name, a.judge(name, record))
}

// Hear judges what gossip brings, at a time. A nil error means: this is the
// node's claim, and the member may be where it is said to be.
func (l *Ledger) Hear(h Heard, now time.Time) error {
	if len(h.Name) > maxHeard || len(h.Record) > maxHeard {
		return l.refuse("", Malformed, "longer than any")
	}
	a := l.accounts[h.Name]
	if a == nil || a.key == (SigningKey{}) {
		l.held.put(h.Name, h.Record)
		return l.refuse(h.Name, UnknownNode, "the API server has not shown its signing key yet")
	}
	if !bytes.Equal(h.Record, a.sealed) {
		if err := l.hearNew(h, a, now); err != nil {
			return l.count(h.Name, err)
		}
	}
	if !l.at(a.claim, h.Address) {
		return l.refuse(h.Name, WrongAddress, "said to be at %s, which its claim does not name", h.Address)
	}
	if !a.pinned && !l.follows {
		a.pinned = true
		l.revision++ // it is to be kept
	}
	return nil
}

func (l *Ledger) hearNew(h Heard, a *account, now time.Time) error {
	s, err := ParseClaim(h.Record)
	if err != nil {
		return refusalOf(h.Name, err)
	}
	if s.Epoch() < a.claim.Epoch {
		return oldEpoch(h.Name, s.Epoch(), a.claim.Epoch)
	}
	if !a.budget.Take(now) || !l.budget.Take(now) {
		return newRefusal(h.Name, TooMany, "more records than there is time to verify")
	}
	return a.accept(h.Name, s)
}

// at tells whether a claim lets its member gossip from an address.
func (l *Ledger) at(c Claim, addr netip.AddrPort) bool {
	return addr.Port() == l.port && slices.ContainsFunc(c.Endpoints, func(ep netip.AddrPort) bool {
		return ep.Addr().Unmap() == addr.Addr().Unmap()
	})
}

func (a *account) judge(name string, record []byte) error {
	s, err := ParseClaim(record)
	if err != nil {
		return refusalOf(name, err)
	}
	if s.Epoch() < a.claim.Epoch {
		return oldEpoch(name, s.Epoch(), a.claim.Epoch)
	}
	return a.accept(name, s)
}

// accept takes a claim of no lower epoch if it verifies. Of two different ones of
// one epoch the greater stays, so that the order in which they come is nothing.
func (a *account) accept(name string, s SealedClaim) error {
	c, err := s.Open(name, a.uid, a.key)
	if err != nil {
		return refusalOf(name, err)
	}
	twice := c.Epoch == a.claim.Epoch && a.sealed != nil && !bytes.Equal(s.raw, a.sealed)
	if !twice || bytes.Compare(s.raw, a.sealed) > 0 {
		a.claim, a.sealed = c, s.raw
		*a.revision++
	}
	if twice {
		return newRefusal(name, EpochTwice, "two different claims of epoch %d", c.Epoch)
	}
	return nil
}

// Revision changes whenever Claims may have changed.
func (l *Ledger) Revision() uint64 { return l.revision }

// Claims returns every node's claim, by name.
func (l *Ledger) Claims() []Claim {
	var out []Claim
	for _, a := range l.accounts {
		if a.sealed != nil {
			c := a.claim
			c.Endpoints, c.Signing = slices.Clone(c.Endpoints), a.key
			out = append(out, c)
		}
	}
	slices.SortFunc(out, func(a, b Claim) int { return strings.Compare(a.Node, b.Node) })
	return out
}

// Reached returns the nodes with the addresses at which their claims say that others reach them: the first of each family.
func (l *Ledger) Reached(nodes []Node) []Node {
	out := slices.Clone(nodes)
	for i, n := range out {
		out[i].Reached = nil
		a := l.accounts[n.Name]
		if a == nil || a.uid != n.UID {
			continue
		}
		for _, ep := range a.claim.Endpoints {
			addr := ep.Addr().Unmap()
			if !slices.ContainsFunc(out[i].Reached, func(have netip.Addr) bool { return have.Is4() == addr.Is4() }) {
				out[i].Reached = append(out[i].Reached, addr)
			}
		}
	}
	return out
}

// Published returns the nodes with each one's claim and signing key as the ledger has
// them in place of the annotations: what has to be kept to begin from here again.
func (l *Ledger) Published(nodes []Node) []Node {
	out := slices.Clone(nodes)
	for i, n := range out {
		out[i].Claim = ""
		a := l.accounts[n.Name]
		if a == nil || a.uid != n.UID {
			continue
		}
		out[i].SigningKey, out[i].KeyHeld = a.signing, a.pinned
		if a.sealed != nil {
			out[i].Claim = base64.StdEncoding.EncodeToString(a.sealed)
		}
	}
	return out
}
