package gossip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/kithnet/kith/overlay"
)

// Record is what a member says of itself. Epoch and Signature are carried, not
// judged, by the codec.
type Record struct {
	Keys      [overlay.Lanes]overlay.Key
	Endpoints []netip.AddrPort
	Epoch     uint64
	Signature []byte
}

// Reasons for refusing a record.
var (
	ErrVersion   = errors.New("unknown record version")
	ErrMalformed = errors.New("malformed record")
)

// The largest record is well under the 512 bytes that memberlist grants.
const (
	recordVersion = 1
	maxEndpoints  = 8
	maxSignature  = 128
)

// MarshalBinary lays the record out as: version, epoch, keys, endpoints (counted;
// family 4 or 6, address, port), signature (counted). Integers are big-endian.
// A value has exactly one encoding.
func (r Record) MarshalBinary() ([]byte, error) {
	if len(r.Endpoints) > maxEndpoints {
		return nil, fmt.Errorf("encode record: %d endpoints, at most %d", len(r.Endpoints), maxEndpoints)
	}
	if len(r.Signature) > maxSignature {
		return nil, fmt.Errorf("encode record: signature of %d bytes, at most %d", len(r.Signature), maxSignature)
	}
	b := []byte{recordVersion}
	b = binary.BigEndian.AppendUint64(b, r.Epoch)
	for _, key := range r.Keys {
		b = append(b, key[:]...)
	}
	b = append(b, byte(len(r.Endpoints)))
	for _, ep := range r.Endpoints {
		if !ep.Addr().IsValid() || ep.Addr().Zone() != "" {
			return nil, fmt.Errorf("encode record: endpoint %s has no plain address", ep)
		}
		b = appendEndpoint(b, ep)
	}
	b = append(b, byte(len(r.Signature)))
	return append(b, r.Signature...), nil
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

// ParseRecord reads what MarshalBinary wrote, and nothing else.
func ParseRecord(b []byte) (Record, error) {
	c := cursor{rest: b}
	if version := c.byte(); c.failed || version != recordVersion {
		return Record{}, fmt.Errorf("parse record: %w", ErrVersion)
	}
	var r Record
	r.Epoch = binary.BigEndian.Uint64(c.take(8))
	for i := range r.Keys {
		r.Keys[i] = overlay.Key(c.take(len(overlay.Key{})))
	}
	for range c.count(maxEndpoints) {
		r.Endpoints = append(r.Endpoints, c.endpoint())
	}
	if n := c.count(maxSignature); n > 0 {
		r.Signature = append([]byte(nil), c.take(n)...)
	}
	if c.failed || len(c.rest) > 0 || r.Keys[0].IsZero() || r.Keys[1].IsZero() {
		return Record{}, fmt.Errorf("parse record: %w", ErrMalformed)
	}
	return r, nil
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
