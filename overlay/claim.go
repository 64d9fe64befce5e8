package overlay

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// Lanes is how many WireGuard devices carry the mesh, so that one can be given a
// new key while the other carries the traffic.
const Lanes = 2

// FirstGeneration is that of a node's first keys: there is one before it.
const FirstGeneration = 2

// Claim is what a node says of itself. A node has one at a time, that of the
// highest epoch. A lane without a key is not in use.
type Claim struct {
	Node, UID           string // of the Node object
	Epoch               uint64
	Keys                [Lanes]Key
	Generation, Settled uint32
	Endpoints           []netip.AddrPort // of lane 0; those of lane n are n ports higher
	Signing             SigningKey       // what it was verified with, as Ledger.Claims says; no part of what is sealed
}

// SigningKey is the public half of the key that a node signs its claims with.
type SigningKey [ed25519.PublicKeySize]byte

// Signature is one by a SigningKey, or by a lane's key (see ProveKey).
type Signature [ed25519.SignatureSize]byte

// Sign signs with a private key that it does not show.
type Sign func(message []byte) Signature

// Reasons why a claim cannot be read or does not verify.
var (
	ErrVersion    = errors.New("unknown version")
	ErrMalformed  = errors.New("malformed")
	ErrSignature  = errors.New("not signed by the key that the Node object names")
	ErrPossession = errors.New("bears a WireGuard key without proof that the node holds its private half")
)

// ParseSigningKey reads a key in standard base64.
func ParseSigningKey(s string) (SigningKey, error) {
	raw, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || len(raw) != len(SigningKey{}) {
		return SigningKey{}, fmt.Errorf("parse signing key: want %d bytes in base64", len(SigningKey{}))
	}
	return SigningKey(raw), nil
}

func (k SigningKey) String() string { return base64.StdEncoding.EncodeToString(k[:]) }

// Verify tells whether sig is this key's signature of message.
func (k SigningKey) Verify(message []byte, sig Signature) bool {
	return ed25519.Verify(k[:], message, sig[:])
}

// Seal signs the claim, and proves with each lane's own key that the node holds
// it: nobody can claim the public key of another. What Seal returns does not bear
// the node's name and UID, but holds for no others.
func Seal(c Claim, sign Sign, lanes [Lanes]Sign) ([]byte, error) {
	body, err := c.appendBody(nil)
	if err != nil {
		return nil, fmt.Errorf("seal claim of %s: %w", c.Node, err)
	}
	for lane, key := range c.Keys {
		var proof Signature
		if !key.IsZero() {
			proof = lanes[lane](c.possession(lane))
		}
		body = append(body, proof[:]...)
	}
	sig := sign(c.signed(body))
	return append(body, sig[:]...), nil
}

// The texts that are signed name what they are for, so that a signature for one
// purpose is none for another.
func (c Claim) signed(body []byte) []byte {
	return append(c.owner("kith claim 1"), body...)
}

func (c Claim) possession(lane int) []byte {
	return append(append(c.owner("kith lane key 1"), byte(lane)), c.Keys[lane][:]...)
}

func (c Claim) owner(purpose string) []byte {
	var b []byte
	for _, s := range []string{purpose, c.Node, c.UID} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
		b = append(b, s...)
	}
	return b
}

// SealedClaim is a claim that has been read and not been verified.
type SealedClaim struct {
	claim  Claim
	proofs [Lanes]Signature
	sig    Signature
	raw    []byte
}

// Epoch is the one that the claim says it is of.
func (s SealedClaim) Epoch() uint64 { return s.claim.Epoch }

// Open verifies that the claim is the node's own and returns it.
func (s SealedClaim) Open(node, uid string, key SigningKey) (Claim, error) {
	c := s.claim
	c.Node, c.UID = node, uid
	if !key.Verify(c.signed(s.raw[:len(s.raw)-len(s.sig)]), s.sig) {
		return Claim{}, ErrSignature
	}
	for lane, held := range c.Keys {
		if !held.IsZero() && !held.provenBy(c.possession(lane), s.proofs[lane]) {
			return Claim{}, fmt.Errorf("lane %d %w", lane, ErrPossession)
		}
	}
	return c, nil
}
