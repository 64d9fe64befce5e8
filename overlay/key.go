package overlay

import (
	"bytes"
	"encoding/base64"
	"fmt"
)

// Key is a WireGuard public key.
type Key [32]byte

// ParseKey reads a key as WireGuard's tools print it: standard base64 of 32 bytes.
func ParseKey(s string) (Key, error) {
	raw, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil {
		return Key{}, fmt.Errorf("parse WireGuard key: %w", err)
	}
	if len(raw) != len(Key{}) {
		return Key{}, fmt.Errorf("parse WireGuard key: %d bytes instead of %d", len(raw), len(Key{}))
	}
	key := Key(raw)
	if key.IsZero() {
		return Key{}, fmt.Errorf("parse WireGuard key: all zero")
	}
	return key, nil
}

func (k Key) String() string { return base64.StdEncoding.EncodeToString(k[:]) }

func (k Key) IsZero() bool { return k == Key{} }

func (k Key) Compare(other Key) int { return bytes.Compare(k[:], other[:]) }
