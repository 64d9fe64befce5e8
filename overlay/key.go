package overlay

import (
	"bytes"
	"encoding/base64"
)

// Key is a WireGuard public key.
type Key [32]byte

func (k Key) String() string { return base64.StdEncoding.EncodeToString(k[:]) }

func (k Key) IsZero() bool { return k == Key{} }

func (k Key) Compare(other Key) int { return bytes.Compare(k[:], other[:]) }
