//go:build kernel

package userspace

import (
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTUNThatCannotBeHad: a container that may not open TUN, and one whose node has none, say so and what to do.
func TestTUNThatCannotBeHad(t *testing.T) {
	for name, c := range map[string]struct {
		flags uintptr
		node  bool
		want  string
	}{
		"refused": {unix.MS_NODEV, true, "open /dev/net/tun: permission denied: the container runtime keeps this container from it"},
		"absent":  {unix.MS_RDONLY, false, "make /dev/net/tun: read-only file system: the node has no TUN"},
	} {
		failed := make(chan error, 1)
		go func() {
			// The thread is not unlocked and so ends with its mounts.
			runtime.LockOSThread()
			failed <- withDevNet(c.flags, c.node)
		}()
		if err := <-failed; err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// withDevNet is what openTUN fails with where the folder of TUN is mounted so.
func withDevNet(flags uintptr, node bool) error {
	dir := filepath.Dir(tunNode)
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", flags, ""); err != nil {
		return err
	}
	if node {
		if err := unix.Mknod(tunNode, unix.S_IFCHR|0o600, int(unix.Mkdev(tunMajor, tunMinor))); err != nil {
			return err
		}
	}
	dev, err := openTUN("kithtest")
	if err == nil {
		_ = dev.Close()
	}
	return err
}
