package parts

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Set is a folder with all that a quick cluster runs: bin (programs), cni (reference CNI plugins),
// images (archives every node imports).
type Set struct{ Dir string }

// Bin is the folder of programs, or the path of one.
func (s Set) Bin(name ...string) string {
	return filepath.Join(append([]string{s.Dir, "bin"}, name...)...)
}

// CNI is the folder of the reference CNI plugins.
func (s Set) CNI() string { return filepath.Join(s.Dir, "cni") }

// Images is the folder of image archives.
func (s Set) Images() string { return filepath.Join(s.Dir, "images") }

// Cluster builds what the quick cluster needs.
func (b *Builder) Cluster(ctx context.Context) (Set, error) {
	if err := b.EnsurePackages(ctx, NodePackages()...); err != nil {
		return Set{}, err
	}
	unlock, err := b.lock()
	if err != nil {
		return Set{}, err
	}
	defer unlock()
	paths := map[string]string{}
	for _, name := range []string{"node", "runc-clamp", "runc", "containerd", "containerd-shim-runc-v2", "ctr", "etcd", "agnhost", "kubernetes"} {
		if paths[filepath.Join("bin", name)], err = b.program(ctx, name); err != nil {
			return Set{}, err
		}
	}
	for _, name := range []string{"loopback", "ptp", "host-local", "portmap", "bandwidth"} {
		if paths[filepath.Join("cni", name)], err = b.program(ctx, name); err != nil {
			return Set{}, err
		}
	}
	for _, name := range []string{"pause", "coredns", "agnhost", "busybox"} {
		if paths[filepath.Join("images", name+".tar")], err = b.image(ctx, name); err != nil {
			return Set{}, err
		}
	}
	return b.assemble(paths)
}

// assemble links the files into one folder, named by what it holds.
func (b *Builder) assemble(paths map[string]string) (Set, error) {
	set := Set{Dir: filepath.Join(b.Cache, "sets", hash(fmt.Sprint(paths)))}
	for name, path := range paths {
		if err := link(path, filepath.Join(set.Dir, name), os.Link); err != nil {
			return Set{}, fmt.Errorf("assemble parts: %w", err)
		}
	}
	for _, name := range KubernetesCommands() {
		if err := link("kubernetes", set.Bin(name), os.Symlink); err != nil {
			return Set{}, fmt.Errorf("assemble parts: %w", err)
		}
	}
	return set, nil
}

func link(from, to string, how func(from, to string) error) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if err := how(from, to); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}
