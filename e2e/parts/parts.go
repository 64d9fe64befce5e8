// Package parts builds what a cluster is made of: Kubernetes, etcd, containerd, runc, CoreDNS, the
// reference CNI plugins, upstream's tests, and container images of them.
//
// Input: module versions (versions.go) and the Go client, which fetches and verifies modules; a few
// Debian packages. Output: files in a cache folder, each keyed by version, flags and toolchain, so
// that a part is built once. No registry and no container engine is needed. Out of scope: running
// any of it (package cluster).
package parts

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Builder builds parts into a cache folder and says on Progress what it waits for.
type Builder struct {
	Cache    string // folder of finished parts
	Module   string // folder of the e2e module
	Progress io.Writer
	start    time.Time
}

// New makes a Builder for the e2e module around the working directory; the cache is $KITH_CACHE or
// ~/.cache/kith.
func New(progress io.Writer) (*Builder, error) {
	cache := os.Getenv("KITH_CACHE")
	if cache == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return nil, fmt.Errorf("cache folder: %w", err)
		}
		cache = filepath.Join(home, ".cache", "kith")
	}
	root, err := RepoRoot()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, fmt.Errorf("cache folder: %w", err)
	}
	return &Builder{Cache: cache, Module: filepath.Join(root, "e2e"), Progress: progress, start: time.Now()}, nil
}

// RepoRoot finds the checkout that holds the working directory.
func RepoRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, "e2e", "go.mod")); err == nil {
			return d, nil
		}
		if d == filepath.Dir(d) {
			return "", fmt.Errorf("%s lies in no checkout of Kith", dir)
		}
	}
}

// Say writes one progress line with the time since the start.
func (b *Builder) Say(format string, args ...any) {
	fmt.Fprintf(b.Progress, "[%5.1fs] %s\n", time.Since(b.start).Seconds(), fmt.Sprintf(format, args...))
}

// lock keeps two builders off the same cache; the lock goes with the process.
func (b *Builder) lock() (func(), error) {
	f, err := os.OpenFile(filepath.Join(b.Cache, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock parts: %w", err)
	}
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		b.Say("waiting for another build of parts (%s)", f.Name())
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
			return nil, fmt.Errorf("lock parts: %w", err)
		}
	}
	return func() { f.Close() }, nil
}

// cached returns the path of the part's file, built by make if it is not there yet.
func (b *Builder) cached(name, key string, make func(out string) error) (string, error) {
	dir := filepath.Join(b.Cache, "parts", name+"-"+key)
	out := filepath.Join(dir, name)
	if _, err := os.Stat(out); err == nil {
		return out, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("part %s: %w", name, err)
	}
	b.Say("building %s", name)
	began := time.Now()
	tmp := filepath.Join(dir, "."+name)
	if err := make(tmp); err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	if err := os.Rename(tmp, out); err != nil {
		return "", fmt.Errorf("part %s: %w", name, err)
	}
	b.Say("built %s in %.0fs", name, time.Since(began).Seconds())
	return out, nil
}

// hash makes a key of the parts' inputs, the toolchain and the architecture.
func hash(inputs ...string) string {
	h := sha256.New()
	for _, s := range append(inputs, runtime.Version(), runtime.GOARCH) {
		fmt.Fprintf(h, "%d:%s,", len(s), s)
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}

// hashTree makes a key of the files below dir.
func hashTree(dir string) (string, error) {
	var inputs []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		inputs = append(inputs, path[len(dir):], string(content))
		return err
	})
	return hash(inputs...), err
}

// run runs a command to its end; its output is shown only when it fails.
func run(ctx context.Context, dir string, env []string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s%s", strings.Join(args, " "), err, stdout.String(), stderr.String())
	}
	return stdout.String(), nil
}
