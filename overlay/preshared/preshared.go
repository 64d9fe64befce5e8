// Package preshared lets each pair of nodes agree on a secret for each lane, which
// WireGuard takes as its preshared key: who records the traffic today and has a
// quantum computer one day does not read it.
//
// Input: the keys of both ends of a lane, both nodes' signing keys, and the messages
// of others. Output: messages, and the secret of each pair of lane keys.
//
// One node sends a fresh ML-KEM-768 encapsulation key, the other answers with a
// ciphertext. Both messages are signed by the node's Ed25519 key and name both nodes,
// their UIDs, both keys of the lane, and (the answer) the request. The secret comes by
// HKDF-SHA256 from ML-KEM's and the hash of both messages.
//
// Invariants:
//   - A secret belongs to the two keys that its lane has now; with either it is void.
//   - A request is answered once; an older one, one for other keys, one sent back to
//     its sender, and one by anybody but the node it names are refused.
//   - A lane that this node uses gets no other secret. Who asks for one has none: what
//     was shaken hands with before it asked is over, and later handshakes stay what they
//     are, however late or often its request comes.
//   - Secrets do not show themselves.
//
// Out of scope: how messages travel, when to ask, the disk, the clock. docs/keys.md
// says what this promises and what not.
package preshared

import (
	"cmp"
	"crypto/hkdf"
	"crypto/mlkem"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kithnet/kith/overlay"
)

// Self is this node. One that is not Willing declines what it is asked.
type Self struct {
	Name, UID string
	Sign      overlay.Sign
	Willing   bool
}

// Other is another node, and the keys of both ends of the lanes to it. InUse says
// which lanes must keep the secret they have.
type Other struct {
	Name, UID string
	Signing   overlay.SigningKey
	Own, Keys [overlay.Lanes]overlay.Key
	InUse     [overlay.Lanes]bool
}

// Pair is both keys of a lane between two nodes.
type Pair struct{ Own, Other overlay.Key }

// Secret is what was agreed on for a pair of keys.
type Secret struct {
	Pair
	Key    overlay.Preshared
	Number uint64 // of the request
}

// Why a message is refused. None of them changes a secret.
var (
	ErrStranger  = errors.New("names a node that is not known, or not this one")
	ErrSignature = errors.New("not signed by the node that it names")
	ErrKeys      = errors.New("for keys that the lane does not have")
	ErrReplay    = errors.New("older than one that was answered")
	ErrBusy      = errors.New("for a lane that is in use, or asked about from here")
	ErrUnasked   = errors.New("answers no request")
)

// Agreements are those of one node with all others. It is not safe for concurrent use.
type Agreements struct {
	self    Self
	secrets map[Pair]Secret
	asked   map[Pair]question
	without map[Pair]bool // the other declines
	wanted  map[Pair]want
}

// want is the last request for the secret of a lane in use.
type want struct {
	number uint64
	at     time.Time
}

// question is a request without an answer.
type question struct {
	message *message
	key     *mlkem.DecapsulationKey768
	at      time.Time
}

// A request that has no answer after this time is made anew.
const answerTime = 3 * time.Second

// New takes what was agreed on before.
func New(self Self, secrets []Secret) *Agreements {
	a := &Agreements{
		self: self, secrets: make(map[Pair]Secret), asked: make(map[Pair]question), without: make(map[Pair]bool),
		wanted: make(map[Pair]want),
	}
	for _, s := range secrets {
		a.secrets[s.Pair] = s
	}
	return a
}

// SetUID takes the UID of a Node object made anew under this node's name.
func (a *Agreements) SetUID(uid string) { a.self.UID = uid }

func (o Other) pair(lane int) Pair { return Pair{o.Own[lane], o.Keys[lane]} }

// Key returns the secret of a lane to another node; the zero one if there is none.
func (a *Agreements) Key(o Other, lane int) overlay.Preshared { return a.secrets[o.pair(lane)].Key }

// Settled says that a lane has its secret, or that none is to be had.
func (a *Agreements) Settled(o Other, lane int) bool {
	return !a.self.Willing || a.without[o.pair(lane)] || !a.Key(o, lane).IsZero()
}

// Declined says that the other node does without.
func (a *Agreements) Declined(o Other, lane int) bool { return a.without[o.pair(lane)] }

// Secrets returns all, by their keys.
func (a *Agreements) Secrets() []Secret {
	out := make([]Secret, 0, len(a.secrets))
	for _, s := range a.secrets {
		out = append(out, s)
	}
	slices.SortFunc(out, func(x, y Secret) int { return cmp.Or(x.Own.Compare(y.Own), x.Other.Compare(y.Other)) })
	return out
}

// Retain forgets what belongs to other pairs of keys.
func (a *Agreements) Retain(others []Other) {
	keep := make(map[Pair]bool, len(others)*overlay.Lanes)
	for _, o := range others {
		for lane := range o.Keys {
			keep[o.pair(lane)] = true
		}
	}
	forget(a.secrets, keep)
	forget(a.asked, keep)
	forget(a.without, keep)
	forget(a.wanted, keep)
}

func forget[T any](from map[Pair]T, keep map[Pair]bool) {
	for pair := range from {
		if !keep[pair] {
			delete(from, pair)
		}
	}
}

// Wanted is when the other end last asked for the secret of a lane in use, as it says
// itself, and zero if it did not: it had none then.
func (a *Agreements) Wanted(o Other, lane int) time.Time { return a.wanted[o.pair(lane)].at }

// Asked says that a request for a lane's secret is on its way.
func (a *Agreements) Asked(o Other, lane int, now time.Time) bool {
	q, ok := a.asked[o.pair(lane)]
	return ok && now.Sub(q.at) < answerTime
}

// Ask returns a request for a lane's secret, or nil while one is on its way.
func (a *Agreements) Ask(o Other, lane int, now time.Time) ([]byte, error) {
	pair := o.pair(lane)
	if a.Asked(o, lane, now) {
		return nil, nil
	}
	key, err := mlkem.GenerateKey768()
	if err != nil {
		return nil, fmt.Errorf("ask %s for a preshared key: %w", o.Name, err)
	}
	number := max(uint64(now.UnixNano()), a.secrets[pair].Number+1)
	m := a.message(request, o, lane, number, key.EncapsulationKey().Bytes())
	sealed := m.seal(a.self, o)
	a.asked[pair] = question{message: m, key: key, at: now}
	return sealed, nil
}

func (a *Agreements) message(kind byte, o Other, lane int, number uint64, payload []byte) *message {
	return &message{
		kind: kind, lane: byte(lane), number: number, from: a.self.Name, to: o.Name,
		own: o.Own[lane], other: o.Keys[lane], payload: payload,
	}
}

// Sender returns the node that a message says it is from.
func Sender(b []byte) (string, error) {
	m, err := parse(b)
	if err != nil {
		return "", err
	}
	return m.from, nil
}

// Heading says what a message is about: one of two with the same heading and the higher number makes the other void.
type Heading struct {
	From       string
	Kind, Lane byte
}

// Verify tells whether a message is one that another node has signed for this one. It changes nothing, and needs less than
// Hear does: a keeper of messages can ask it for each that comes.
func Verify(b []byte, name, uid string, from Other) (about Heading, number uint64, err error) {
	m, err := parse(b)
	if err == nil {
		err = m.verify(name, uid, from)
	}
	if err != nil {
		return Heading{}, 0, err
	}
	return Heading{From: m.from, Kind: m.kind, Lane: m.lane}, m.number, nil
}

// Hear takes a message of another node, and returns what to send back, if anything.
func (a *Agreements) Hear(b []byte, o Other, now time.Time) ([]byte, error) {
	m, err := parse(b)
	if err != nil {
		return nil, err
	}
	if err := m.verify(a.self.Name, a.self.UID, o); err != nil {
		return nil, err
	}
	if m.own != o.Keys[m.lane] || m.other != o.Own[m.lane] {
		return nil, ErrKeys
	}
	if m.kind == request {
		return a.answer(m, o, now)
	}
	return nil, a.finish(m, o)
}

func (a *Agreements) answer(m *message, o Other, now time.Time) ([]byte, error) {
	pair, asked := o.pair(int(m.lane)), m.hash()
	switch {
	case !a.self.Willing:
		return a.message(decline, o, int(m.lane), m.number, asked[:]).seal(a.self, o), nil
	case m.number <= a.secrets[pair].Number:
		return nil, ErrReplay
	case o.InUse[m.lane]:
		a.want(pair, m.number, now)
		return nil, ErrBusy
	}
	// Of two that ask each other at once, the question of the first name counts.
	if _, both := a.asked[pair]; both && a.self.Name < o.Name {
		return nil, ErrBusy
	}
	key, err := mlkem.NewEncapsulationKey768(m.payload)
	if err != nil {
		return nil, ErrMalformed
	}
	shared, ciphertext := key.Encapsulate()
	reply := a.message(answer, o, int(m.lane), m.number, append(asked[:], ciphertext...))
	sealed := reply.seal(a.self, o)
	return sealed, a.agree(pair, shared, m, reply)
}

// want notes a request by the time that its number is. One that comes again notes nothing.
func (a *Agreements) want(pair Pair, number uint64, now time.Time) {
	if number > a.wanted[pair].number {
		a.wanted[pair] = want{number: number, at: time.Unix(0, int64(min(number, uint64(now.UnixNano()))))}
	}
}

func (a *Agreements) finish(m *message, o Other) error {
	pair := o.pair(int(m.lane))
	q, ok := a.asked[pair]
	if !ok || q.message.number != m.number || q.message.hash() != [sha256.Size]byte(m.payload[:sha256.Size]) {
		return ErrUnasked
	}
	if m.kind == decline {
		delete(a.asked, pair)
		a.without[pair] = true
		return nil
	}
	shared, err := q.key.Decapsulate(m.payload[sha256.Size:])
	if err != nil {
		return ErrMalformed
	}
	return a.agree(pair, shared, q.message, m)
}

// agree derives the secret from what is shared and all that was said.
func (a *Agreements) agree(pair Pair, shared []byte, asked, answered *message) error {
	first, second := asked.hash(), answered.hash()
	transcript := append(first[:], second[:]...)
	key, err := hkdf.Key(sha256.New, shared, transcript, "kith preshared key 1", len(overlay.Preshared{}))
	if err != nil {
		return fmt.Errorf("derive preshared key with %s: %w", answered.from, err)
	}
	delete(a.asked, pair)
	delete(a.without, pair)
	delete(a.wanted, pair)
	a.secrets[pair] = Secret{Pair: pair, Key: overlay.Preshared(key), Number: asked.number}
	return nil
}

// Drop forgets a secret with which no handshake comes about.
func (a *Agreements) Drop(o Other, lane int) {
	if s, ok := a.secrets[o.pair(lane)]; ok {
		s.Key = overlay.Preshared{}
		a.secrets[o.pair(lane)] = s
	}
}
