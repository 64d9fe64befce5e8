// Package disk keeps what a node may not forget of the mesh over a restart: its
// signing key, its own last claim, and what it knew of all nodes.
//
// Input and output: files of mode 0600 in the state folder. The key is text; the
// others begin with a line that names the format, its version and a checksum.
//
// Invariants:
//   - A file is written whole or not at all, also over a crash. What that leaves of a
//     new one is swept away at the next start.
//   - A file that is torn, changed or of another version is refused as a whole,
//     with a word why; nothing of it is used.
//   - The signing key never shows itself.
//
// Out of scope: whether what was remembered is still true (claims are verified
// again), and what others keep in a File: WireGuard's private keys.
package disk

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/kithnet/kith/overlay"
)

// Folder is the state folder.
type Folder string

// Own is this node's last claim. It is kept before anybody hears of it, so that an
// epoch is never used twice.
type Own struct {
	UID    string
	Sealed []byte
}

// Memory is what a node needs to take its place in the mesh without the API server.
// The claims are in the nodes.
type Memory struct {
	Nodes      []overlay.Node
	GossipKeys [][]byte
}

// ErrRefused is the error of a file that is there and cannot be used.
var ErrRefused = errors.New("refused")

// The version grows whenever what is written changes its meaning.
const (
	version    = 1
	ownFile    = "claim"
	memoryFile = "mesh"
)

// LoadOwn returns this node's last claim; none yet is no error.
func (f Folder) LoadOwn() (Own, error) {
	var own Own
	return own, f.load(ownFile, &own)
}

// SaveOwn keeps this node's claim.
func (f Folder) SaveOwn(own Own) error { return f.save(ownFile, own) }

// LoadMemory returns what was remembered; nothing yet is no error.
func (f Folder) LoadMemory() (Memory, error) {
	var m Memory
	return m, f.load(memoryFile, &m)
}

// SaveMemory keeps what there is to remember.
func (f Folder) SaveMemory(m Memory) error { return f.save(memoryFile, m) }

func header(name string, body []byte) []byte {
	return fmt.Appendf(nil, "kith %s %d %x\n", name, version, sha256.Sum256(body))
}

func (f Folder) save(name string, v any) error {
	body, err := json.Marshal(v)
	if err == nil {
		err = f.File(name).Write(append(header(name, body), body...))
	}
	if err != nil {
		return fmt.Errorf("keep %s: %w", name, err)
	}
	return nil
}

func (f Folder) load(name string, v any) error {
	file := f.File(name)
	text, err := file.Read()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	first, body, _ := bytes.Cut(text, []byte("\n"))
	if want := fmt.Appendf(nil, "kith %s %d ", name, version); !bytes.HasPrefix(first, want) {
		return fmt.Errorf("%s %w: it does not begin with %q", file, ErrRefused, want)
	}
	if !bytes.Equal(append(first, '\n'), header(name, body)) {
		return fmt.Errorf("%s %w: its checksum is wrong: it was cut or changed", file, ErrRefused)
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("%s %w: %v", file, ErrRefused, err)
	}
	return nil
}
