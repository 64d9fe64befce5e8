// Package conflist puts on the node what the container runtime reads: the plugins' binaries, and the
// network configuration list that names them.
//
// Invariants: a file is replaced in one step or not at all; one that is right already is not touched;
// nothing of others is removed or replaced.
//
// Out of scope: when to do so. The list makes the runtime call the node ready, so it is to be written
// only when the agent can serve.
package conflist

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/kithnet/kith/cni"
)

// FileName sorts before what other providers use: the runtime takes the first.
const FileName = "05-kith.conflist"

type list struct {
	CNIVersion string   `json:"cniVersion"`
	Name       string   `json:"name"`
	Plugins    []plugin `json:"plugins"`
}

type plugin struct {
	Type         string          `json:"type"`
	Socket       string          `json:"socket,omitempty"`
	Capabilities map[string]bool `json:"capabilities,omitempty"`
	SNAT         *bool           `json:"snat,omitempty"`
}

// Render returns the list for an agent at this socket.
func Render(socket string) ([]byte, error) {
	kith := plugin{Type: "kith-cni"}
	if socket != cni.DefaultSocket {
		kith.Socket = socket
	}
	snat := true
	data, err := json.MarshalIndent(list{
		CNIVersion: types100.ImplementedSpecVersion,
		Name:       "kith",
		Plugins: []plugin{
			kith,
			{Type: "portmap", Capabilities: map[string]bool{"portMappings": true}, SNAT: &snat},
			{Type: "bandwidth", Capabilities: map[string]bool{"bandwidth": true}},
		},
	}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode network configuration: %w", err)
	}
	return append(data, '\n'), nil
}

// Write writes the list into the runtime's folder.
func Write(dir, socket string) error {
	data, err := Render(socket)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make network configuration folder: %w", err)
	}
	path := filepath.Join(dir, FileName)
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, data) {
		return nil
	}
	if err := replace(path, bytes.NewReader(data), 0o644); err != nil {
		return fmt.Errorf("write network configuration: %w", err)
	}
	return nil
}

// Install copies a plugin's binary into the runtime's folder, in place of an older one.
func Install(binary, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make plugin folder: %w", err)
	}
	src, err := os.Open(binary)
	if err != nil {
		return fmt.Errorf("install plugin: %w", err)
	}
	defer func() { _ = src.Close() }()
	if err := replace(filepath.Join(dir, filepath.Base(binary)), src, 0o755); err != nil {
		return fmt.Errorf("install plugin %s: %w", filepath.Base(binary), err)
	}
	return nil
}

// InstallMissing copies a plugin's binary unless the runtime's folder has one of the name: it is for
// plugins that are not ours alone.
func InstallMissing(binary, dir string) error {
	_, err := os.Stat(filepath.Join(dir, filepath.Base(binary)))
	if err == nil {
		return nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("install plugin %s: %w", filepath.Base(binary), err)
	}
	return Install(binary, dir)
}

// replace writes beside the file and renames. The other name begins with a dot and has no suffix that
// the runtime looks for.
func replace(path string, data io.Reader, mode os.FileMode) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".new-*")
	if err != nil {
		return err
	}
	_, err = io.Copy(tmp, data)
	err = errors.Join(err, tmp.Chmod(mode), tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return nil
}
