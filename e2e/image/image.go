// Package image writes container images without a container engine.
//
// Input: an Image value (names, configuration, files). Output: one docker-archive tar with a single
// layer, which `ctr images import`, `docker load` and `kind load image-archive` read. The same
// input gives the same bytes. Out of scope: pulling, registries, several layers or platforms.
package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"time"
)

// File is one entry of the image: exactly one of Source, Link, Text and Dir says what it is.
type File struct {
	Path   string // absolute path inside the image
	Source string // a file of this machine; its executable bit is kept
	Link   string // target of a symbolic link
	Text   string // literal content
	Dir    bool
}

// Image is what the archive will hold.
type Image struct {
	Names      []string // name:tag
	Entrypoint []string
	Cmd        []string
	User       string
	Files      []File
}

type config struct {
	Architecture string        `json:"architecture"`
	OS           string        `json:"os"`
	Created      time.Time     `json:"created"`
	Config       runConfig     `json:"config"`
	RootFS       rootFS        `json:"rootfs"`
	History      []historyItem `json:"history"`
}

type runConfig struct {
	Env        []string
	WorkingDir string
	User       string   `json:",omitempty"`
	Entrypoint []string `json:",omitempty"`
	Cmd        []string `json:",omitempty"`
}

type rootFS struct {
	Type    string   `json:"type"`
	DiffIDs []string `json:"diff_ids"`
}

type historyItem struct {
	Created   time.Time `json:"created"`
	CreatedBy string    `json:"created_by"`
}

type manifest struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// Write writes the image to the file out, whole or not at all.
func Write(out string, img Image) error {
	layer, err := os.CreateTemp(filepath.Dir(out), ".layer-*")
	if err != nil {
		return fmt.Errorf("image %s: %w", out, err)
	}
	defer os.Remove(layer.Name())
	defer layer.Close()
	sum := sha256.New()
	if err := writeLayer(io.MultiWriter(layer, sum), img.Files); err != nil {
		return fmt.Errorf("image %s: %w", out, err)
	}
	tmp := out + ".tmp"
	if err := writeArchive(tmp, layer, hex.EncodeToString(sum.Sum(nil)), img); err != nil {
		os.Remove(tmp)
		return fmt.Errorf("image %s: %w", out, err)
	}
	return os.Rename(tmp, out)
}

func epoch() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) }

func writeArchive(out string, layer *os.File, layerID string, img Image) error {
	cfg, err := json.Marshal(config{
		Architecture: runtime.GOARCH, OS: "linux", Created: epoch(),
		Config: runConfig{
			Env:        []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
			WorkingDir: "/", User: img.User, Entrypoint: img.Entrypoint, Cmd: img.Cmd,
		},
		RootFS:  rootFS{Type: "layers", DiffIDs: []string{"sha256:" + layerID}},
		History: []historyItem{{Created: epoch(), CreatedBy: "kith"}},
	})
	if err != nil {
		return err
	}
	cfgSum := sha256.Sum256(cfg)
	cfgName := hex.EncodeToString(cfgSum[:]) + ".json"
	man, err := json.Marshal([]manifest{{Config: cfgName, RepoTags: img.Names, Layers: []string{layerID + "/layer.tar"}}})
	if err != nil {
		return err
	}
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := layer.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if _, err := layer.Seek(0, io.SeekStart); err != nil {
		return err
	}
	t := tar.NewWriter(f)
	for _, e := range []struct {
		name string
		size int64
		r    io.Reader
	}{
		{cfgName, int64(len(cfg)), bytes.NewReader(cfg)},
		{layerID + "/layer.tar", size, layer},
		{"manifest.json", int64(len(man)), bytes.NewReader(man)},
	} {
		if err := t.WriteHeader(&tar.Header{Name: e.name, Size: e.size, Mode: 0o644, ModTime: epoch()}); err != nil {
			return err
		}
		if _, err := io.Copy(t, e.r); err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
	}
	if err := t.Close(); err != nil {
		return err
	}
	return f.Close()
}

func writeLayer(w io.Writer, files []File) error {
	l := layerWriter{t: tar.NewWriter(w), seen: map[string]bool{}}
	for _, d := range []string{"/tmp", "/etc", "/proc", "/sys", "/dev"} {
		files = append(files, File{Path: d, Dir: true})
	}
	sorted := append([]File(nil), files...)
	sort.SliceStable(sorted, func(i, j int) bool { return sorted[i].Path < sorted[j].Path })
	for _, f := range sorted {
		if err := l.add(f); err != nil {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
	}
	return l.t.Close()
}

type layerWriter struct {
	t    *tar.Writer
	seen map[string]bool
}

func (l layerWriter) add(f File) error {
	name := strings.TrimPrefix(path.Clean(f.Path), "/")
	if f.Dir {
		return l.mkdir(name)
	}
	if err := l.mkdir(path.Dir(name)); err != nil {
		return err
	}
	if l.seen[name] {
		return nil
	}
	l.seen[name] = true
	h := tar.Header{Name: name, Mode: 0o644, ModTime: epoch(), Format: tar.FormatGNU}
	switch {
	case f.Link != "":
		h.Typeflag, h.Linkname = tar.TypeSymlink, f.Link
		return l.t.WriteHeader(&h)
	case f.Source != "":
		return l.copyFile(h, f.Source)
	}
	h.Size = int64(len(f.Text))
	if err := l.t.WriteHeader(&h); err != nil {
		return err
	}
	_, err := io.WriteString(l.t, f.Text)
	return err
}

func (l layerWriter) copyFile(h tar.Header, source string) error {
	f, err := os.Open(source)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	h.Size = st.Size()
	if st.Mode()&0o111 != 0 {
		h.Mode = 0o755
	}
	if err := l.t.WriteHeader(&h); err != nil {
		return err
	}
	_, err = io.Copy(l.t, f)
	return err
}

func (l layerWriter) mkdir(name string) error {
	if name == "." || name == "" || l.seen[name] {
		return nil
	}
	if err := l.mkdir(path.Dir(name)); err != nil {
		return err
	}
	l.seen[name] = true
	h := tar.Header{Name: name + "/", Typeflag: tar.TypeDir, Mode: 0o755, ModTime: epoch(), Format: tar.FormatGNU}
	if name == "tmp" {
		h.Mode = 0o1777
	}
	return l.t.WriteHeader(&h)
}
