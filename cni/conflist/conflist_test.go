package conflist

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/google/go-cmp/cmp"

	"github.com/kithnet/kith/cni"
)

var update = flag.Bool("update", false, "rewrite golden files")

func TestRenderGolden(t *testing.T) {
	for name, socket := range map[string]string{"default": cni.DefaultSocket, "socket": "/run/other.sock"} {
		got, err := Render(socket)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join("testdata", name+".conflist")
		if *update {
			if err := os.WriteFile(path, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Error(diff)
		}
		list, err := libcni.NetworkConfFromBytes(got)
		if err != nil {
			t.Fatalf("a runtime cannot read it: %v", err)
		}
		var first struct{ CNIVersion string }
		if err := json.Unmarshal(got, &first); err != nil || list.CNIVersion != "1.1.0" || first.CNIVersion != "1.0.0" {
			t.Errorf("runtimes of today speak %s, those that do not know cniVersions %s: %v", list.CNIVersion, first.CNIVersion, err)
		}
	}
}

// TestOldReferencePluginsAreNotAsked: a runtime asks each plugin of the list whether it knows the list's version. Those
// that a distribution has put there may be older.
func TestOldReferencePluginsAreNotAsked(t *testing.T) {
	src, dir := t.TempDir(), t.TempDir()
	plugin := func(path, versions string) {
		script := fmt.Sprintf("#!/bin/sh\necho '{\"cniVersion\":\"1.0.0\",\"supportedVersions\":[%s]}'\n", versions)
		if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for binary, name := range map[string]string{"kith-cni": "kith-cni", "portmap": cni.Portmap, "bandwidth": cni.Bandwidth} {
		plugin(filepath.Join(dir, binary), `"0.3.1","1.0.0"`)
		plugin(filepath.Join(src, binary), `"1.0.0","1.1.0"`)
		if err := Install(filepath.Join(src, binary), dir, name); err != nil {
			t.Fatal(err)
		}
	}
	data, err := Render(cni.DefaultSocket)
	if err != nil {
		t.Fatal(err)
	}
	list, err := libcni.NetworkConfFromBytes(data)
	if err != nil {
		t.Fatal(err)
	}
	if !list.DisableCheck {
		t.Error("a runtime that starts while the agent is away would take its pods for gone")
	}
	if _, err := libcni.NewCNIConfig([]string{dir}, nil).ValidateNetworkList(t.Context(), list); err != nil {
		t.Error(err)
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func TestWrite(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "net.d")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(dir, "10-other.conflist")
	if err := os.WriteFile(other, []byte("theirs"), 0o644); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, FileName)
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Write(dir, cni.DefaultSocket); err != nil {
		t.Fatal(err)
	}
	first, err := os.Stat(path)
	if err != nil || first.Mode().Perm() != 0o644 {
		t.Errorf("%v %v", first, err)
	}
	if err := Write(dir, cni.DefaultSocket); err != nil {
		t.Fatal(err)
	}
	if second, err := os.Stat(path); err != nil || !os.SameFile(first, second) {
		t.Error("what was right was written again")
	}
	if diff := cmp.Diff([]string{FileName, "10-other.conflist"}, names(t, dir)); diff != "" {
		t.Error(diff)
	}
	if data, _ := os.ReadFile(other); string(data) != "theirs" {
		t.Error("another's file was changed")
	}
}

func TestInstall(t *testing.T) {
	src, dir := t.TempDir(), filepath.Join(t.TempDir(), "bin")
	for _, name := range []string{"kith-cni", "portmap"} {
		if err := os.WriteFile(filepath.Join(src, name), []byte("ours"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := InstallMissing(filepath.Join(src, "portmap"), dir, "portmap"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"kith-cni", "portmap"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte("there"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := Install(filepath.Join(src, "kith-cni"), dir, "kith-cni"); err != nil {
		t.Fatal(err)
	}
	if err := Install(filepath.Join(src, "portmap"), dir, cni.Portmap); err != nil {
		t.Fatal(err)
	}
	if err := InstallMissing(filepath.Join(src, "portmap"), dir, "portmap"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"kith-cni": "ours", "portmap": "there", cni.Portmap: "ours"} {
		if got, _ := os.ReadFile(filepath.Join(dir, name)); string(got) != want {
			t.Errorf("%s is %q", name, got)
		}
	}
	if info, err := os.Stat(filepath.Join(dir, "kith-cni")); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	if diff := cmp.Diff([]string{"kith-cni", cni.Portmap, "portmap"}, names(t, dir)); diff != "" {
		t.Error(diff)
	}
	before, err := os.Stat(filepath.Join(dir, "kith-cni"))
	if err != nil {
		t.Fatal(err)
	}
	if err := Install(filepath.Join(src, "kith-cni"), dir, "kith-cni"); err != nil {
		t.Fatal(err)
	}
	if after, err := os.Stat(filepath.Join(dir, "kith-cni")); err != nil || !os.SameFile(before, after) {
		t.Error("what was right was written again: a full disk would keep the agent from starting")
	}
	if err := Install(filepath.Join(src, "none"), dir, "none"); err == nil {
		t.Error("installed what is not there")
	}
}
