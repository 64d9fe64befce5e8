package overlay

import (
	"fmt"
	"io"
)

// Preshared is a secret of two nodes that goes into the handshakes of one lane,
// beside WireGuard's own keys. The zero one is none. It does not show itself.
type Preshared [32]byte

const hidden = "(preshared key)"

// IsZero says that there is none.
func (k Preshared) IsZero() bool { return k == Preshared{} }

// Format answers every verb, %d and %x among them.
func (Preshared) Format(s fmt.State, _ rune) { io.WriteString(s, hidden) }

// MarshalText keeps the secret out of JSON and structured logs.
func (Preshared) MarshalText() ([]byte, error) { return []byte(hidden), nil }
