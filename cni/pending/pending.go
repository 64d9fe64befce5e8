// Package pending models the DELs that a runtime asked for while the agent was away: one small file
// each, in a folder that only root can enter. The plugin puts them there; the agent finishes them.
//
// Invariants: a file is either whole or not there; its name follows from its key, so a DEL asked for
// twice is there once; there are never more than maxFiles; a file whose name and content do not fit
// is reported and never followed.
//
// Out of scope: doing the DELs.
package pending

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/kithnet/kith/cni"
)

const (
	// maxFiles is more than the pods of a node.
	maxFiles = 1024
	maxSize  = 4096
	suffix   = ".json"
)

// Folder is a folder of pending DELs. It need not exist yet.
type Folder string

// Put records that the attachment is to be deleted.
func (f Folder) Put(k cni.Key) error {
	if err := k.Validate(); err != nil {
		return err
	}
	if err := os.MkdirAll(string(f), 0o700); err != nil {
		return fmt.Errorf("record pending DEL of %s: %w", k, err)
	}
	names, err := f.names()
	if err != nil {
		return fmt.Errorf("record pending DEL of %s: %w", k, err)
	}
	if len(names) >= maxFiles {
		return fmt.Errorf("record pending DEL of %s: %d are waiting already", k, len(names))
	}
	data, err := json.Marshal(k)
	if err != nil {
		return fmt.Errorf("record pending DEL of %s: %w", k, err)
	}
	if err := f.write(f.path(k), data); err != nil {
		return fmt.Errorf("record pending DEL of %s: %w", k, err)
	}
	return nil
}

func (f Folder) write(path string, data []byte) error {
	tmp, err := os.CreateTemp(string(f), ".new-*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return nil
}

// Has says whether a DEL of the attachment is pending.
func (f Folder) Has(k cni.Key) bool {
	_, err := os.Lstat(f.path(k))
	return err == nil
}

// Remove forgets a pending DEL. It succeeds if there is none.
func (f Folder) Remove(k cni.Key) error {
	if err := os.Remove(f.path(k)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("forget pending DEL of %s: %w", k, err)
	}
	return nil
}

// List returns the pending DELs, and an error for each file that is none.
func (f Folder) List() ([]cni.Key, error) {
	names, err := f.names()
	if err != nil {
		return nil, fmt.Errorf("list pending DELs: %w", err)
	}
	var keys []cni.Key
	var errs []error
	for _, name := range names {
		k, err := f.read(name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("read pending DEL %s: %w", filepath.Join(string(f), name), err))
			continue
		}
		keys = append(keys, k)
	}
	return keys, errors.Join(errs...)
}

func (f Folder) read(name string) (cni.Key, error) {
	file, err := os.Open(filepath.Join(string(f), name))
	if err != nil {
		return cni.Key{}, err
	}
	defer func() { _ = file.Close() }()
	data, err := io.ReadAll(io.LimitReader(file, maxSize))
	if err != nil {
		return cni.Key{}, err
	}
	var k cni.Key
	if err := json.Unmarshal(data, &k); err != nil {
		return cni.Key{}, err
	}
	if err := k.Validate(); err != nil {
		return cni.Key{}, err
	}
	if fileName(k) != name {
		return cni.Key{}, fmt.Errorf("the name is not that of %s", k)
	}
	return k, nil
}

func (f Folder) names() ([]string, error) {
	entries, err := os.ReadDir(string(f))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.Type().IsRegular() && strings.HasSuffix(e.Name(), suffix) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

func (f Folder) path(k cni.Key) string { return filepath.Join(string(f), fileName(k)) }

func fileName(k cni.Key) string {
	sum := sha256.Sum256([]byte(k.String()))
	return hex.EncodeToString(sum[:]) + suffix
}
