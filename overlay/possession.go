package overlay

import (
	"crypto/ed25519"
	"crypto/sha512"
	"math/big"
	"slices"
)

// A WireGuard key of the mesh is an Ed25519 key seen as a point of Curve25519,
// the same curve in other coordinates (RFC 7748, 4.1). That lets a node sign with
// it, and so prove that it holds the private half, which WireGuard itself cannot.

// WireGuardKeys returns the private and the public key that WireGuard takes.
func WireGuardKeys(key ed25519.PrivateKey) (private [32]byte, public Key) {
	h := sha512.Sum512(key.Seed())
	private = [32]byte(h[:32])
	private[0] &= 248
	private[31] = private[31]&127 | 64
	// u = (1+y) / (1-y)
	y := littleEndian(key.Public().(ed25519.PublicKey), signBit)
	return private, Key(bytesOf(ratio(plusOne(y), oneMinus(y))))
}

// ProveKey signs with a lane's key. A WireGuard public key has lost one bit of the
// Ed25519 one: the signature bears it, at a place that is zero in every signature.
func ProveKey(key ed25519.PrivateKey, message []byte) Signature {
	sig := Signature(ed25519.Sign(key, message))
	sig[63] |= key.Public().(ed25519.PublicKey)[31] & signBit
	return sig
}

const signBit = 0x80

// provenBy tells whether ProveKey made the proof with the private half of k.
func (k Key) provenBy(message []byte, proof Signature) bool {
	u := littleEndian(k[:], 0)
	if u.Cmp(fieldPrime()) >= 0 || plusOne(u).Cmp(fieldPrime()) == 0 {
		return false
	}
	// y = (u-1) / (u+1)
	public := bytesOf(ratio(new(big.Int).Sub(u, big.NewInt(1)), plusOne(u)))
	public[31] |= proof[63] & signBit
	proof[63] &^= signBit
	return ed25519.Verify(public[:], message, proof[:])
}

// fieldPrime is 2^255 - 19.
func fieldPrime() *big.Int {
	p := new(big.Int).Lsh(big.NewInt(1), 255)
	return p.Sub(p, big.NewInt(19))
}

func plusOne(n *big.Int) *big.Int  { return new(big.Int).Add(n, big.NewInt(1)) }
func oneMinus(n *big.Int) *big.Int { return new(big.Int).Sub(big.NewInt(1), n) }

// ratio is a/b in the field; b is not zero.
func ratio(a, b *big.Int) *big.Int {
	p := fieldPrime()
	q := new(big.Int).ModInverse(new(big.Int).Mod(b, p), p)
	return q.Mul(q, a).Mod(q, p)
}

// littleEndian reads a number without the bits of its last byte that mask names.
func littleEndian(b []byte, mask byte) *big.Int {
	r := slices.Clone(b)
	r[len(r)-1] &^= mask
	slices.Reverse(r)
	return new(big.Int).SetBytes(r)
}

func bytesOf(n *big.Int) (b [32]byte) {
	n.FillBytes(b[:])
	slices.Reverse(b[:])
	return b
}
