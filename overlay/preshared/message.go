package preshared

import (
	"crypto/mlkem"
	"crypto/sha256"
	"encoding/binary"
	"errors"

	"github.com/kithnet/kith/overlay"
)

// The kinds of messages.
const (
	request = iota + 1
	answer
	decline
)

const (
	version   = 1
	maxName   = 253
	signature = len(overlay.Signature{})
)

// message is what is sent. Its payload is an encapsulation key in a request; in an
// answer the hash of the request and a ciphertext; in a refusal the hash alone.
type message struct {
	kind     byte
	lane     byte
	number   uint64 // of the request: it grows
	from, to string
	own      overlay.Key // of the sender's lane
	other    overlay.Key // of the receiver's
	payload  []byte

	body []byte // all of it but the signature
	sig  overlay.Signature
}

// ErrMalformed says that a message cannot be read.
var ErrMalformed = errors.New("malformed")

func payloadSize(kind byte) int {
	switch kind {
	case request:
		return mlkem.EncapsulationKeySize768
	case answer:
		return sha256.Size + mlkem.CiphertextSize768
	}
	return sha256.Size
}

// seal lays the message out and signs it: version, kind, lane, number, both names
// (counted), both keys, payload, signature. A value has exactly one encoding.
func (m *message) seal(self Self, to Other) []byte {
	m.body = append([]byte{version, m.kind, m.lane}, binary.BigEndian.AppendUint64(nil, m.number)...)
	for _, name := range []string{m.from, m.to} {
		m.body = append(append(m.body, byte(len(name))), name...)
	}
	m.body = append(append(m.body, m.own[:]...), m.other[:]...)
	m.body = append(m.body, m.payload...)
	m.sig = self.Sign(m.signed(self.UID, to.UID))
	return append(m.body[:len(m.body):len(m.body)], m.sig[:]...)
}

// signed is the text under the signature. It names its purpose and both nodes' UIDs.
func (m *message) signed(from, to string) []byte {
	var b []byte
	for _, s := range []string{"kith preshared key 1", from, to} {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
	}
	return append(b, m.body...)
}

func (m *message) hash() [sha256.Size]byte { return sha256.Sum256(m.body) }

// parse reads what seal wrote, and nothing else.
func parse(b []byte) (*message, error) {
	m := &message{}
	rest := b
	take := func(n int) []byte {
		if len(rest) < n {
			rest = nil
			return make([]byte, n)
		}
		field := rest[:n]
		rest = rest[n:]
		return field
	}
	head := take(3)
	m.kind, m.lane = head[1], head[2]
	m.number = binary.BigEndian.Uint64(take(8))
	m.from = string(take(int(take(1)[0])))
	m.to = string(take(int(take(1)[0])))
	m.own, m.other = overlay.Key(take(len(overlay.Key{}))), overlay.Key(take(len(overlay.Key{})))
	if head[0] != version || m.kind < request || m.kind > decline || m.lane >= overlay.Lanes ||
		len(rest) != payloadSize(m.kind)+signature || m.from == "" || m.to == "" || len(m.from) > maxName || len(m.to) > maxName {
		return nil, ErrMalformed
	}
	m.payload = take(payloadSize(m.kind))
	m.body, m.sig = b[:len(b)-signature], overlay.Signature(rest)
	return m, nil
}

// verify tells whether a message is one node's to another, and signed by it.
func (m *message) verify(name, uid string, from Other) error {
	if m.to != name || m.from != from.Name || m.from == name {
		return ErrStranger
	}
	if !from.Signing.Verify(m.signed(from.UID, uid), m.sig) {
		return ErrSignature
	}
	return nil
}
