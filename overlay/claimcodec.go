package overlay

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
)

// The largest sealed claim, of 426 bytes, fits the 512 that gossip grants.
const (
	claimVersion = 1
	maxEndpoints = 8
)

// appendBody lays the claim out as: version, epoch, generation, settled, keys,
// endpoints (counted; family 4 or 6, address, port). Seal puts the proofs and the
// signature behind it. Integers are big-endian. A value has exactly one encoding.
func (c Claim) appendBody(b []byte) ([]byte, error) {
	if len(c.Endpoints) > maxEndpoints {
		return nil, fmt.Errorf("%d endpoints, at most %d", len(c.Endpoints), maxEndpoints)
	}
	if c.Keys == [Lanes]Key{} {
		return nil, fmt.Errorf("no WireGuard key")
	}
	b = append(b, claimVersion)
	b = binary.BigEndian.AppendUint64(b, c.Epoch)
	b = binary.BigEndian.AppendUint32(b, c.Generation)
	b = binary.BigEndian.AppendUint32(b, c.Settled)
	for _, key := range c.Keys {
		b = append(b, key[:]...)
	}
	b = append(b, byte(len(c.Endpoints)))
	for _, ep := range c.Endpoints {
		if !ep.Addr().IsValid() || ep.Addr().Zone() != "" {
			return nil, fmt.Errorf("endpoint %s has no plain address", ep)
		}
		b = appendEndpoint(b, ep)
	}
	return b, nil
}

func appendEndpoint(b []byte, ep netip.AddrPort) []byte {
	addr := ep.Addr().Unmap()
	family := byte(6)
	if addr.Is4() {
		family = 4
	}
	b = append(b, family)
	b = append(b, addr.AsSlice()...)
	return binary.BigEndian.AppendUint16(b, ep.Port())
}

// ParseClaim reads what Seal wrote, and nothing else.
func ParseClaim(b []byte) (SealedClaim, error) {
	c := cursor{rest: b}
	if version := c.byte(); c.failed || version != claimVersion {
		return SealedClaim{}, fmt.Errorf("parse claim: %w", ErrVersion)
	}
	s := SealedClaim{raw: bytes.Clone(b)}
	s.claim.Epoch = binary.BigEndian.Uint64(c.take(8))
	s.claim.Generation = binary.BigEndian.Uint32(c.take(4))
	s.claim.Settled = binary.BigEndian.Uint32(c.take(4))
	for lane := range s.claim.Keys {
		s.claim.Keys[lane] = Key(c.take(len(Key{})))
	}
	for range c.count(maxEndpoints) {
		s.claim.Endpoints = append(s.claim.Endpoints, c.endpoint())
	}
	for lane, key := range s.claim.Keys {
		s.proofs[lane] = Signature(c.take(len(Signature{})))
		if key.IsZero() && s.proofs[lane] != (Signature{}) {
			c.failed = true
		}
	}
	s.sig = Signature(c.take(len(Signature{})))
	if c.failed || len(c.rest) > 0 || s.claim.Keys == [Lanes]Key{} {
		return SealedClaim{}, fmt.Errorf("parse claim: %w", ErrMalformed)
	}
	return s, nil
}

// cursor takes fields off a slice. After a field that is not there, or wrong, it
// yields zeroes and has failed.
type cursor struct {
	rest   []byte
	failed bool
}

func (c *cursor) take(n int) []byte {
	if c.failed || len(c.rest) < n {
		c.failed = true
		return make([]byte, n)
	}
	field := c.rest[:n]
	c.rest = c.rest[n:]
	return field
}

func (c *cursor) byte() byte { return c.take(1)[0] }

func (c *cursor) count(limit int) int {
	n := int(c.byte())
	if n > limit {
		c.failed = true
		return 0
	}
	return n
}

func (c *cursor) endpoint() netip.AddrPort {
	size := 16
	switch c.byte() {
	case 4:
		size = 4
	case 6:
	default:
		c.failed = true
	}
	addr, _ := netip.AddrFromSlice(c.take(size))
	// A mapped address would be a second spelling of an IPv4 one.
	if addr.Is4In6() {
		c.failed = true
	}
	return netip.AddrPortFrom(addr, binary.BigEndian.Uint16(c.take(2)))
}
