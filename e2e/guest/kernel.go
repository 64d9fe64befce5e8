package guest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/kithnet/kith/e2e/debian"
	"github.com/kithnet/kith/e2e/guest/cpio"
	"github.com/kithnet/kith/e2e/guest/job"
	"github.com/kithnet/kith/e2e/parts"
)

// layout changes when what a cached kernel folder holds changes.
const layout = "1"

// Kernel is a kernel ready to boot: files in the cache.
type Kernel struct {
	Package string
	dir     string
	// source is the e2e module's folder: the guest's init process is compiled there.
	source string
}

// Fetch brings Debian's newest cloud kernel into the builder's cache, or finds it there, and installs the emulator.
func Fetch(ctx context.Context, b *parts.Builder) (Kernel, error) {
	if err := b.EnsurePackages(ctx, "qemu-system-x86", "xz-utils"); err != nil {
		return Kernel{}, err
	}
	name, err := debian.Newest(ctx, "linux-image-6.12-cloud-amd64", "linux-image-cloud-amd64")
	if err != nil {
		return Kernel{}, err
	}
	sum := sha256.Sum256([]byte(layout + strings.Join(wanted, " ")))
	kernel := Kernel{Package: name, source: b.Module, dir: filepath.Join(b.Cache, "guest", fmt.Sprintf("%s-%x", name, sum[:4]))}
	if _, err := os.Stat(kernel.dir); err == nil {
		return kernel, nil
	}
	if err := kernel.make(ctx, b); err != nil {
		return Kernel{}, fmt.Errorf("guest kernel %s: %w", name, err)
	}
	return kernel, nil
}

func (k Kernel) image() string   { return filepath.Join(k.dir, "vmlinuz") }
func (k Kernel) modules() string { return filepath.Join(k.dir, "modules.cpio") }

// make fills a folder beside the final one and renames it, so that a folder in the cache is always whole.
func (k Kernel) make(ctx context.Context, b *parts.Builder) error {
	if err := os.MkdirAll(filepath.Dir(k.dir), 0o755); err != nil {
		return err
	}
	work, err := os.MkdirTemp(filepath.Dir(k.dir), ".new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	tree := filepath.Join(work, "package")
	b.Say("downloading %s", k.Package)
	if err := debian.Unpack(ctx, k.Package, tree); err != nil {
		return err
	}
	ready := Kernel{Package: k.Package, dir: filepath.Join(work, "ready")}
	if err := os.Mkdir(ready.dir, 0o755); err != nil {
		return err
	}
	release, err := installImage(tree, ready)
	if err != nil {
		return err
	}
	if err := packModules(ctx, tree, release, ready); err != nil {
		return err
	}
	if err := os.Rename(ready.dir, k.dir); err != nil && !os.IsExist(err) {
		return err
	}
	return nil
}

func installImage(tree string, ready Kernel) (string, error) {
	images, err := filepath.Glob(filepath.Join(tree, "boot", "vmlinuz-*"))
	if err != nil || len(images) != 1 {
		return "", fmt.Errorf("%d kernel images in the package, want one", len(images))
	}
	data, err := os.ReadFile(images[0])
	if err != nil {
		return "", err
	}
	release := strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-")
	return release, os.WriteFile(ready.image(), data, 0o644)
}

func packModules(ctx context.Context, tree, release string, ready Kernel) error {
	root := filepath.Join(tree, "lib", "modules", release)
	if _, err := os.Stat(root); err != nil {
		root = filepath.Join(tree, "usr", "lib", "modules", release)
	}
	set, err := openModules(root)
	if err != nil {
		return err
	}
	list, err := set.resolve(ctx, wanted)
	if err != nil {
		return err
	}
	var archive bytes.Buffer
	var order strings.Builder
	w := cpio.NewWriter(&archive)
	for _, m := range list {
		w.File(job.Modules+"/"+m.name+".ko", 0o644, m.data)
		order.WriteString(m.name + ".ko\n")
	}
	w.File(job.ModuleOrder, 0o644, []byte(order.String()))
	if err := w.Close(); err != nil {
		return err
	}
	return os.WriteFile(ready.modules(), archive.Bytes(), 0o644)
}

// buildInit compiles the guest's init process; the go command's cache makes the second time quick.
func (k Kernel) buildInit(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "init")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, "./guest/init")
	cmd.Dir = k.source
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build init: %w\n%s", err, out)
	}
	return path, nil
}
