package disk

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"strings"

	"github.com/kithnet/kith/overlay"
)

// Signer is this node's signing key. It does not show itself.
type Signer struct{ seed [ed25519.SeedSize]byte }

const (
	signerFile = "signing.key"
	hidden     = "(signing key)"
)

// Format answers every verb.
func (Signer) Format(s fmt.State, _ rune) { io.WriteString(s, hidden) }

// LogValue keeps the key out of structured logs.
func (Signer) LogValue() slog.Value { return slog.StringValue(hidden) }

func (s Signer) private() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(s.seed[:]) }

// Public returns the public half.
func (s Signer) Public() overlay.SigningKey {
	return overlay.SigningKey(s.private().Public().(ed25519.PublicKey))
}

// Sign signs a message.
func (s Signer) Sign(message []byte) overlay.Signature {
	return overlay.Signature(ed25519.Sign(s.private(), message))
}

// LoadSigner returns the signing key, and makes it at first start. A file that
// cannot be read is an error: nodes that have heard this one under its
// key take no other until an administrator accepts it.
func (f Folder) LoadSigner() (Signer, error) {
	file := f.File(signerFile)
	text, err := file.Read()
	if errors.Is(err, fs.ErrNotExist) {
		return makeSigner(file)
	}
	if err != nil {
		return Signer{}, fmt.Errorf("read signing key: %w", err)
	}
	seed, err := base64.StdEncoding.Strict().DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(seed) != ed25519.SeedSize || [ed25519.SeedSize]byte(seed) == [ed25519.SeedSize]byte{} {
		// The cause would quote the file.
		return Signer{}, fmt.Errorf("read signing key: %s does not hold %d bytes in base64", file, ed25519.SeedSize)
	}
	return Signer{seed: [ed25519.SeedSize]byte(seed)}, nil
}

func makeSigner(file File) (Signer, error) {
	var s Signer
	rand.Read(s.seed[:])
	if err := file.Write([]byte(base64.StdEncoding.EncodeToString(s.seed[:]) + "\n")); err != nil {
		return Signer{}, fmt.Errorf("write signing key: %w", err)
	}
	return s, nil
}
