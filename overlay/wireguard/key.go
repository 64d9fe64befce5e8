package wireguard

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/kithnet/kith/overlay"
)

// PrivateKey is this node's WireGuard key. It does not show itself.
type PrivateKey struct{ key wgtypes.Key }

// NewPrivateKey makes a key.
func NewPrivateKey() (PrivateKey, error) {
	key, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		return PrivateKey{}, fmt.Errorf("make WireGuard key: %w", err)
	}
	return PrivateKey{key: key}, nil
}

// Public returns the public half.
func (k PrivateKey) Public() overlay.Key { return overlay.Key(k.key.PublicKey()) }

const hidden = "(private key)"

// Format answers every verb, %d and %x among them.
func (PrivateKey) Format(s fmt.State, _ rune) { io.WriteString(s, hidden) }

// LogValue keeps the key out of structured logs.
func (PrivateKey) LogValue() slog.Value { return slog.StringValue(hidden) }

const keyFile = "wireguard.key"

// LoadKey returns the key kept in the state folder, and makes it at first start.
// A key file that cannot be read is an error: a new key in its place would cut
// this node off until every other node knows it.
func LoadKey(stateDir string) (PrivateKey, error) {
	path := filepath.Join(stateDir, keyFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return makeKey(path)
	}
	if err != nil {
		return PrivateKey{}, fmt.Errorf("read WireGuard key: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return PrivateKey{}, fmt.Errorf("close WireGuard key to others: %w", err)
	}
	key, err := wgtypes.ParseKey(strings.TrimSpace(string(text)))
	if err != nil || key == (wgtypes.Key{}) {
		// The cause would quote the file.
		return PrivateKey{}, fmt.Errorf("read WireGuard key: %s does not hold 32 bytes in base64", path)
	}
	return PrivateKey{key: key}, nil
}

// makeKey writes the key whole or not at all, also over a crash.
func makeKey(path string) (PrivateKey, error) {
	key, err := NewPrivateKey()
	if err != nil {
		return PrivateKey{}, err
	}
	if err := writeFile(path, []byte(key.key.String()+"\n")); err != nil {
		return PrivateKey{}, fmt.Errorf("write WireGuard key: %w", err)
	}
	return key, nil
}

func writeFile(path string, data []byte) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, filepath.Base(path)+".tmp-")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(data)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
