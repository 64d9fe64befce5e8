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
	"os"
	"path/filepath"

	"github.com/kithnet/kith/cni"
)

// FileName sorts before what other providers use: the runtime takes the first.
const FileName = "05-kith.conflist"

// The versions of the specification that the list speaks. A runtime of before 1.1.0 (containerd 1.x, CRI-O up to 1.30,
// cri-dockerd) reads the first alone, and refuses results of any that it does not know. One that knows cniVersions takes
// the newest there that it knows.
const (
	oldestVersion = "1.0.0"
	newestVersion = "1.1.0"
)

type list struct {
	CNIVersion  string   `json:"cniVersion"`
	CNIVersions []string `json:"cniVersions"`
	Name        string   `json:"name"`
	// DisableCheck keeps runtimes from calling CHECK. CRI-O does for every pod when it starts, and takes one for gone
	// that is not answered for, as while the agent is upgraded: its pods would be made anew.
	DisableCheck bool     `json:"disableCheck"`
	Plugins      []plugin `json:"plugins"`
}

type plugin struct {
	Type         string          `json:"type"`
	Socket       string          `json:"socket,omitempty"`
	Capabilities map[string]bool `json:"capabilities"`
}

// Render returns the list for an agent at this socket. It has one plugin, which asks others for the pods that want
// them: a plugin of the list is asked for every pod, and where one fails at DEL, those before it are not asked.
func Render(socket string) ([]byte, error) {
	kith := plugin{Type: "kith-cni", Capabilities: map[string]bool{"portMappings": true, "bandwidth": true}}
	if socket != cni.DefaultSocket {
		kith.Socket = socket
	}
	data, err := json.MarshalIndent(list{
		CNIVersion:   oldestVersion,
		CNIVersions:  []string{oldestVersion, newestVersion},
		Name:         "kith",
		DisableCheck: true,
		Plugins:      []plugin{kith},
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
	if err := replace(path, data, 0o644); err != nil {
		return fmt.Errorf("write network configuration: %w", err)
	}
	return nil
}

// Install copies a plugin's binary into the runtime's folder under a name, in place of an older one.
func Install(binary, dir, name string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make plugin folder: %w", err)
	}
	data, err := os.ReadFile(binary)
	if err != nil {
		return fmt.Errorf("install plugin %s: %w", name, err)
	}
	path := filepath.Join(dir, name)
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, data) && executable(path) {
		return nil
	}
	if err := replace(path, data, 0o755); err != nil {
		return fmt.Errorf("install plugin %s: %w", name, err)
	}
	return nil
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().Perm() == 0o755
}

// InstallMissing copies a plugin's binary unless the runtime's folder has one of the name: it is for
// plugins that are not ours alone.
func InstallMissing(binary, dir, name string) error {
	_, err := os.Stat(filepath.Join(dir, name))
	if err == nil {
		return nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("install plugin %s: %w", name, err)
	}
	return Install(binary, dir, name)
}

// replace writes beside the file and renames. The other name begins with a dot and has no suffix that
// the runtime looks for.
func replace(path string, data []byte, mode os.FileMode) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".new-*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Chmod(mode), tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return nil
}
