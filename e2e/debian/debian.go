// Package debian fetches Debian packages with the machine's own apt: to install a tool that is missing, or to
// unpack a package somewhere without installing it.
//
// Input: names of packages and of the commands they bring. Output: the commands are in PATH, or the content of
// a package lies in a folder. Invariant: nothing is installed, and no network is used, when the commands are
// there already. Out of scope: removing anything, other distributions.
package debian

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ErrUnknown says that apt's lists, freshly updated, hold none of the packages asked for.
var ErrUnknown = errors.New("no such Debian package")

// Tool is a command and the package that brings it.
type Tool struct {
	Command string
	Package string
}

// Install installs the packages of those tools whose command is missing.
func Install(ctx context.Context, log *slog.Logger, tools ...Tool) error {
	var packages []string
	for _, tool := range tools {
		if _, err := exec.LookPath(tool.Command); err != nil {
			packages = append(packages, tool.Package)
		}
	}
	if len(packages) == 0 {
		return nil
	}
	log.Info("installing Debian packages", "packages", strings.Join(packages, " "))
	if err := run(ctx, "", "apt-get", "update", "-qq"); err != nil {
		return err
	}
	args := append([]string{"install", "-y", "-qq", "--no-install-recommends"}, packages...)
	return run(ctx, "", "apt-get", args...)
}

// Newest names the package that the first known one of the meta packages stands for today.
func Newest(ctx context.Context, log *slog.Logger, metas ...string) (string, error) {
	if name := newest(ctx, metas); name != "" {
		return name, nil
	}
	log.Info("updating apt's package lists")
	if err := run(ctx, "", "apt-get", "update", "-qq"); err != nil {
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

// Unpack downloads a package and lays its content out in dir, without running its scripts.
func Unpack(ctx context.Context, log *slog.Logger, name, dir string) error {
	download, err := os.MkdirTemp("", "kith-deb-")
	if err != nil {
		return fmt.Errorf("unpack %s: %w", name, err)
	}
	defer os.RemoveAll(download)
	log.Info("downloading Debian package", "package", name)
	if err := run(ctx, download, "apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", name); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(download, "*.deb"))
	if err != nil || len(files) != 1 {
		return fmt.Errorf("unpack %s: %d files downloaded, want one", name, len(files))
	}
	return run(ctx, "", "dpkg-deb", "-x", files[0], dir)
}

func run(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C")
	if name == "apt-get" {
		// Another apt may be at work: wait for it rather than fail.
		cmd.Args = append([]string{name, "-o", "DPkg::Lock::Timeout=600"}, args...)
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, args[0], err, bytes.TrimSpace(out.Bytes()))
	}
	return nil
}
