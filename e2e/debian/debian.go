// Package debian unpacks Debian packages somewhere without installing them, with the machine's own apt.
//
// Input: names of packages. Output: their content in a folder. Invariants: nothing is installed and no script
// of a package runs, so no service starts; the network is used for a download or when apt's lists lack a
// package, and not else. Out of scope: installing (package parts), other distributions.
package debian

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ErrUnknown says that apt's lists, freshly updated, hold none of the packages asked for.
var ErrUnknown = errors.New("no such Debian package")

// Newest names the package that the first known one of the meta packages stands for today.
func Newest(ctx context.Context, metas ...string) (string, error) {
	if name := newest(ctx, metas); name != "" {
		return name, nil
	}
	if err := apt(ctx, "", "update", "-qq"); err != nil {
		return "", err
	}
	if name := newest(ctx, metas); name != "" {
		return name, nil
	}
	return "", fmt.Errorf("%w: %s", ErrUnknown, strings.Join(metas, ", "))
}

func newest(ctx context.Context, metas []string) string {
	for _, meta := range metas {
		out, err := exec.CommandContext(ctx, "apt-cache", "depends", "--important", meta).Output()
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(out)) {
			if name, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: "); ok {
				return name
			}
		}
	}
	return ""
}

// Unpack lays the content of one package out in dir.
func Unpack(ctx context.Context, name, dir string) error {
	return unpack(ctx, dir, "download", "-qq", name)
}

// UnpackAll lays packages out in dir together with those they depend on that this machine lacks.
func UnpackAll(ctx context.Context, dir string, names ...string) error {
	if err := apt(ctx, "", "update", "-qq"); err != nil {
		return err
	}
	args := []string{"install", "-y", "-qq", "--no-install-recommends", "--download-only"}
	return unpack(ctx, dir, append(args, names...)...)
}

// unpack runs an apt-get command that downloads packages, and unpacks what came.
func unpack(ctx context.Context, dir string, args ...string) error {
	downloads, err := os.MkdirTemp("", "kith-deb-")
	if err != nil {
		return fmt.Errorf("download packages: %w", err)
	}
	defer os.RemoveAll(downloads)
	if err := os.Mkdir(filepath.Join(downloads, "partial"), 0o700); err != nil {
		return fmt.Errorf("download packages: %w", err)
	}
	if err := apt(ctx, downloads, args...); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(downloads, "*.deb"))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("apt-get %s: no package came", strings.Join(args, " "))
	}
	for _, file := range files {
		if err := run(ctx, "", "dpkg-deb", "-x", file, dir); err != nil {
			return err
		}
	}
	return nil
}

// apt runs apt-get; what it downloads goes to the given folder.
func apt(ctx context.Context, downloads string, args ...string) error {
	// Another apt may be at work: wait for it rather than fail.
	options := []string{"-o", "DPkg::Lock::Timeout=600", "-o", "APT::Sandbox::User=root"}
	if downloads != "" {
		options = append(options, "-o", "Dir::Cache::archives="+downloads)
	}
	return run(ctx, downloads, "apt-get", append(options, args...)...)
}

func run(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, bytes.TrimSpace(out.Bytes()))
	}
	return nil
}
