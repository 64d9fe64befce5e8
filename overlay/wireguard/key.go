package wireguard

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/kithnet/kith/overlay"
)

// PrivateKey is a WireGuard key of this node, kept as the seed of an Ed25519 key, so
// that the node can prove that it holds it. It does not show itself.
type PrivateKey struct{ seed wgtypes.Key }

// NewPrivateKey makes a key.
func NewPrivateKey() (PrivateKey, error) {
	seed, err := wgtypes.GenerateKey()
	if err != nil {
		return PrivateKey{}, fmt.Errorf("make WireGuard key: %w", err)
	}
	return PrivateKey{seed: seed}, nil
}

// Public returns the public half.
func (k PrivateKey) Public() overlay.Key {
	_, public := overlay.WireGuardKeys(k.ed25519())
	return public
}

// Prove signs a message with the key.
func (k PrivateKey) Prove(message []byte) overlay.Signature {
	return overlay.ProveKey(k.ed25519(), message)
}

func (k PrivateKey) ed25519() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(k.seed[:]) }

// private is the key as WireGuard takes it.
func (k PrivateKey) private() wgtypes.Key {
	private, _ := overlay.WireGuardKeys(k.ed25519())
	return private
}

const hidden = "(private key)"

// Format answers every verb, %d and %x among them.
func (PrivateKey) Format(s fmt.State, _ rune) { io.WriteString(s, hidden) }

// LogValue keeps the key out of structured logs.
func (PrivateKey) LogValue() slog.Value { return slog.StringValue(hidden) }

// KeyFile is the name of the file that the keys are kept in.
const KeyFile = "wireguard.keys"

// Store is where the keys are kept: closed to others, and written whole or not at
// all, also over a crash.
type Store interface {
	fmt.Stringer
	// Read returns fs.ErrNotExist before the first Write.
	Read() ([]byte, error)
	Write([]byte) error
	Written() (time.Time, error)
}

// Keyring is this node's keys, one for each lane, and their generation: lane
// generation % 2 has keys of that generation, the other those of the one before.
// They are kept on disk; a key that was renewed is gone from there.
type Keyring struct {
	store Store

	mu         sync.Mutex
	generation uint32
	keys       [overlay.Lanes]PrivateKey
}

// Format keeps the keys out of every verb.
func (*Keyring) Format(s fmt.State, _ rune) { io.WriteString(s, hidden) }

// LogValue keeps the keys out of structured logs.
func (*Keyring) LogValue() slog.Value { return slog.StringValue(hidden) }

// Rotated is when the keys last changed.
func (k *Keyring) Rotated() (time.Time, error) {
	at, err := k.store.Written()
	if err != nil {
		return time.Time{}, fmt.Errorf("read age of WireGuard keys: %w", err)
	}
	return at, nil
}

// Public returns the public halves and their generation.
func (k *Keyring) Public() ([overlay.Lanes]overlay.Key, uint32) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out [overlay.Lanes]overlay.Key
	for i, key := range k.keys {
		out[i] = key.Public()
	}
	return out, k.generation
}

// Prover returns what signs with the private half of a key; nil if it is not there.
func (k *Keyring) Prover(public overlay.Key) overlay.Sign {
	if private, ok := k.find(public); ok {
		return private.Prove
	}
	return nil
}

// find returns the private half of a key.
func (k *Keyring) find(public overlay.Key) (PrivateKey, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, key := range k.keys {
		if key.Public() == public {
			return key, true
		}
	}
	return PrivateKey{}, false
}

// Label gives the keys that are there another generation of the same lanes.
func (k *Keyring) Label(generation uint32) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if generation%overlay.Lanes != k.generation%overlay.Lanes {
		return fmt.Errorf("label keys of generation %d as %d: other lanes", k.generation, generation)
	}
	return k.replace(generation, k.keys)
}

// Renew goes to the next generation: a new key for its lane.
func (k *Keyring) Renew() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	key, err := NewPrivateKey()
	if err != nil {
		return err
	}
	keys, next := k.keys, k.generation+1
	keys[next%overlay.Lanes] = key
	return k.replace(next, keys)
}

// replace keeps the keys, and takes them.
func (k *Keyring) replace(generation uint32, keys [overlay.Lanes]PrivateKey) error {
	text := fmt.Sprintf("%d\n%s\n%s\n", generation, keys[0].seed, keys[1].seed)
	if err := k.store.Write([]byte(text)); err != nil {
		return fmt.Errorf("write WireGuard keys: %w", err)
	}
	k.generation, k.keys = generation, keys
	return nil
}

// LoadKeys returns the keys that are kept, and makes them at first start. A file that cannot be read is an error: new keys in its place would cut this
// node off until every other node knows them.
func LoadKeys(store Store) (*Keyring, error) {
	k := &Keyring{store: store}
	text, err := store.Read()
	if errors.Is(err, fs.ErrNotExist) {
		return k, k.first()
	}
	if err != nil {
		return nil, fmt.Errorf("read WireGuard keys: %w", err)
	}
	if !k.parse(string(text)) {
		// The cause would quote the file.
		return nil, fmt.Errorf("read WireGuard keys: %s does not hold a generation and two keys of 32 bytes in base64", store)
	}
	return k, nil
}

func (k *Keyring) first() error {
	var keys [overlay.Lanes]PrivateKey
	for i := range keys {
		var err error
		if keys[i], err = NewPrivateKey(); err != nil {
			return err
		}
	}
	return k.replace(overlay.FirstGeneration, keys)
}

func (k *Keyring) parse(text string) bool {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if len(lines) != 1+overlay.Lanes {
		return false
	}
	generation, err := strconv.ParseUint(lines[0], 10, 32)
	if err != nil {
		return false
	}
	k.generation = uint32(generation)
	for i, line := range lines[1:] {
		seed, err := wgtypes.ParseKey(line)
		if err != nil || seed == (wgtypes.Key{}) {
			return false
		}
		k.keys[i] = PrivateKey{seed: seed}
	}
	return k.keys[0] != k.keys[1]
}
