package guest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/kithnet/kith/e2e/debian"
	"github.com/kithnet/kith/e2e/guest/cpio"
	"github.com/kithnet/kith/e2e/guest/job"
)

// layout changes when what a cached kernel folder holds changes.
const layout = "1"

// Kernel is a kernel ready to boot: files in the cache.
type Kernel struct {
	Package string
	dir     string
}

// CacheDir is where kernels are kept: $KITH_CACHE, or kith in the user's cache folder.
func CacheDir() (string, error) {
	if dir := os.Getenv("KITH_CACHE"); dir != "" {
		return dir, nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("cache folder: %w", err)
	}
	return filepath.Join(dir, "kith"), nil
}

// Fetch brings Debian's newest cloud kernel into the cache, or finds it there.
func Fetch(ctx context.Context, cache string, log *slog.Logger) (Kernel, error) {
	err := debian.Install(ctx, log,
		debian.Tool{Command: "qemu-system-x86_64", Package: "qemu-system-x86"},
		debian.Tool{Command: "xz", Package: "xz-utils"})
	if err != nil {
		return Kernel{}, err
	}
	name, err := debian.Newest(ctx, log, "linux-image-6.12-cloud-amd64", "linux-image-cloud-amd64")
	if err != nil {
		return Kernel{}, err
	}
	sum := sha256.Sum256([]byte(layout + strings.Join(wanted, " ")))
	kernel := Kernel{Package: name, dir: filepath.Join(cache, "guest", fmt.Sprintf("%s-%x", name, sum[:4]))}
	if _, err := os.Stat(kernel.dir); err == nil {
		return kernel, nil
	}
	if err := kernel.make(ctx, log); err != nil {
		return Kernel{}, fmt.Errorf("guest kernel %s: %w", name, err)
	}
	return kernel, nil
}

func (k Kernel) image() string   { return filepath.Join(k.dir, "vmlinuz") }
func (k Kernel) modules() string { return filepath.Join(k.dir, "modules.cpio") }

// make fills a folder beside the final one and renames it, so that a folder in the cache is always whole.
func (k Kernel) make(ctx context.Context, log *slog.Logger) error {
	if err := os.MkdirAll(filepath.Dir(k.dir), 0o755); err != nil {
		return err
	}
	work, err := os.MkdirTemp(filepath.Dir(k.dir), ".new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	tree := filepath.Join(work, "package")
	if err := debian.Unpack(ctx, log, k.Package, tree); err != nil {
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
	log.Info("packing kernel modules", "release", release)
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
func buildInit(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "init")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, "github.com/kithnet/kith/e2e/guest/init")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build init: %w\n%s", err, out)
	}
	return path, nil
}
