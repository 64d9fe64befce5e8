package overlay

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"
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

// ParseKeys reads the keys of all lanes, which differ.
func ParseKeys(s string) ([Lanes]Key, error) {
	var keys [Lanes]Key
	words := strings.Split(s, ",")
	if len(words) != Lanes {
		return keys, fmt.Errorf("parse WireGuard keys: %d instead of %d", len(words), Lanes)
	}
	for i, word := range words {
		key, err := ParseKey(word)
		if err != nil {
			return [Lanes]Key{}, err
		}
		keys[i] = key
	}
	if keys[0] == keys[1] {
		return [Lanes]Key{}, fmt.Errorf("parse WireGuard keys: one key for two lanes")
	}
	return keys, nil
}

// PrintKeys writes what ParseKeys reads.
func PrintKeys(keys [Lanes]Key) string { return keys[0].String() + "," + keys[1].String() }
