//go:build kernel

package veth

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const inside = "KITH_TEST_NAMESPACE"

// TestMain runs the tests in a process of their own, in network and mount namespaces of its own.
func TestMain(m *testing.M) {
	if os.Getenv(inside) != "" {
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "kernel tests, which need root:", err)
		os.Exit(1)
	}
}

// node makes the process's own namespace one like a node's: addresses to send from, and forwarding.
func node(t *testing.T) *Links {
	t.Helper()
	run(t, "ip", "link", "set", "lo", "up")
	for _, addr := range []string{"192.0.2.1/32", "2001:db8::1/128"} {
		run(t, "ip", "addr", "replace", addr, "dev", "lo")
	}
	l := New("/proc/sys")
	if err := l.ForwardIPv4(); err != nil {
		t.Fatal(err)
	}
	if err := l.ForwardIPv6(); err != nil {
		t.Fatal(err)
	}
	return l
}

// sandbox makes a network namespace and returns its path.
func sandbox(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "netns")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		// The thread is not unlocked and so ends with its namespace.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		own := fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())
		if err := unix.Mount(own, path, "", unix.MS_BIND, ""); err != nil {
			done <- err
			return
		}
		lo, err := netlink.LinkByName("lo")
		if err == nil {
			err = netlink.LinkSetUp(lo)
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
	return path
}

func run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func within(t *testing.T, netns string, args ...string) string {
	t.Helper()
	return run(t, append([]string{"nsenter", "--net=" + netns}, args...)...)
}
