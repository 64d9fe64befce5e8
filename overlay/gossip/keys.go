package gossip

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/memberlist"
)

func checkKeys(keys [][]byte) error {
	if len(keys) == 0 {
		return errors.New("no key")
	}
	for _, key := range keys {
		if len(key) != keyLength {
			return fmt.Errorf("key of %d bytes instead of %d", len(key), keyLength)
		}
	}
	return nil
}

func newKeys(keys [][]byte) (*memberlist.Keyring, error) {
	if err := checkKeys(keys); err != nil {
		return nil, err
	}
	return memberlist.NewKeyring(keys, keys[0])
}

// SetKeys replaces the cluster's keys while gossip goes on. No moment is without
// the keys that were there before and stay.
func (g *Gossip) SetKeys(keys [][]byte) error {
	if err := checkKeys(keys); err != nil {
		return fmt.Errorf("set gossip keys: %w", err)
	}
	for _, key := range keys {
		if err := g.keys.AddKey(key); err != nil {
			return fmt.Errorf("set gossip keys: %w", err)
		}
	}
	if err := g.keys.UseKey(keys[0]); err != nil {
		return fmt.Errorf("set gossip keys: %w", err)
	}
	for _, old := range slices.Clone(g.keys.GetKeys()) {
		if slices.ContainsFunc(keys, func(k []byte) bool { return bytes.Equal(k, old) }) {
			continue
		}
		if err := g.keys.RemoveKey(old); err != nil {
			return fmt.Errorf("set gossip keys: %w", err)
		}
	}
	return nil
}
