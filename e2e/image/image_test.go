package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"testing"
)

func read(t *testing.T, r io.Reader) map[string]string {
	t.Helper()
	got := map[string]string{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return got
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		if h.Linkname != "" {
			b = []byte("-> " + h.Linkname)
		}
		got[h.Name] = string(b)
	}
}

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	if err := os.WriteFile(program, []byte("binary"), 0o755); err != nil {
		t.Fatal(err)
	}
	img := Image{Names: []string{"docker.io/kithnet/kith:v0.1.0"}, Entrypoint: []string{"/program"}, Files: []File{
		{Path: "/program", Source: program}, {Path: "/bin/sh", Link: "dash"}, {Path: "/etc/motd", Text: "hello"},
	}}
	var archives [][]byte
	for range 2 {
		out := filepath.Join(dir, "image.tar")
		if err := Write(out, img); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		archives = append(archives, b)
	}
	if !bytes.Equal(archives[0], archives[1]) {
		t.Error("the same image written twice differs")
	}
	outer := read(t, bytes.NewReader(archives[0]))
	var man []manifest
	if err := json.Unmarshal([]byte(outer["manifest.json"]), &man); err != nil || len(man) != 1 {
		t.Fatalf("manifest %q: %v", outer["manifest.json"], err)
	}
	layer := read(t, bytes.NewReader([]byte(outer[man[0].Layers[0]])))
	want := map[string]string{"program": "binary", "bin/sh": "-> dash", "etc/motd": "hello"}
	for name, content := range want {
		if layer[name] != content {
			t.Errorf("layer %s: got %q, want %q", name, layer[name], content)
		}
	}
}
