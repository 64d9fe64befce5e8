package announce

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/kithnet/kith/identity"
)

const (
	magic        = "khnt"
	version      = 1
	headLength   = 14 // magic, version, how many addresses, sequence
	maxText      = 255
	maxAddresses = 8
	maxLength    = headLength + 3*(1+maxText) + maxAddresses*(1+16)
)

var errNotHint = errors.New("not a hint")

// encode writes what a node says: whose addresses, and in which order it said so.
func encode(h identity.Hint) ([]byte, error) {
	if len(h.Addresses) == 0 || len(h.Addresses) > maxAddresses {
		return nil, fmt.Errorf("%d addresses: want 1 to %d", len(h.Addresses), maxAddresses)
	}
	b := append(make([]byte, 0, maxLength), magic...)
	b = append(b, version, byte(len(h.Addresses)))
	b = binary.BigEndian.AppendUint64(b, h.Sequence)
	for _, s := range []string{h.Pod.Namespace, h.Pod.Name, h.UID} {
		if len(s) > maxText {
			return nil, fmt.Errorf("%.20q… is longer than %d bytes", s, maxText)
		}
		b = append(append(b, byte(len(s))), s...)
	}
	for _, a := range h.Addresses {
		raw := a.AsSlice()
		b = append(append(b, byte(len(raw))), raw...)
	}
	return b, nil
}

func parse(b []byte) (identity.Hint, error) {
	if len(b) < headLength || len(b) > maxLength || string(b[:4]) != magic {
		return identity.Hint{}, errNotHint
	}
	if b[4] != version {
		return identity.Hint{}, fmt.Errorf("hint of version %d", b[4])
	}
	count := int(b[5])
	if count == 0 || count > maxAddresses {
		return identity.Hint{}, fmt.Errorf("hint of %d addresses", count)
	}
	h := identity.Hint{Sequence: binary.BigEndian.Uint64(b[6:])}
	parts, err := split(b[headLength:], 3+count)
	if err != nil {
		return identity.Hint{}, err
	}
	h.Pod.Namespace, h.Pod.Name, h.UID = string(parts[0]), string(parts[1]), string(parts[2])
	for _, part := range parts[3:] {
		a, ok := netip.AddrFromSlice(part)
		if !ok || a.Is4In6() {
			return identity.Hint{}, fmt.Errorf("hint of address %x", part)
		}
		h.Addresses = append(h.Addresses, a)
	}
	return h, nil
}

// split takes exactly so many parts, each after its length.
func split(b []byte, count int) ([][]byte, error) {
	parts := make([][]byte, 0, count)
	for range count {
		if len(b) == 0 || len(b) <= int(b[0]) {
			return nil, errors.New("hint is cut")
		}
		parts = append(parts, b[1:1+int(b[0])])
		b = b[1+int(b[0]):]
	}
	if len(b) > 0 {
		return nil, errors.New("hint is too long")
	}
	return parts, nil
}
