//go:build kernel

package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"golang.org/x/sys/unix"

	"github.com/kithnet/kith/cni"
	"github.com/kithnet/kith/cni/conflist"
	"github.com/kithnet/kith/cni/ipam"
)

const inside = "KITH_TEST_NAMESPACE"

// isolated runs the rest of the test in a process with network and mount namespaces of its own. It
// returns false in the process that need not go on.
func isolated(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inside) != "" {
		return true
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Errorf("in a namespace, which needs root: %v", err)
	}
	return false
}

// node is a node of which the agent is a process that can be killed.
type node struct {
	dir     string
	runtime *libcni.CNIConfig
	list    *libcni.NetworkConfigList
	agent   *exec.Cmd
}

func newNode(t *testing.T, version string) *node {
	t.Helper()
	run(t, "ip", "link", "set", "lo", "up")
	run(t, "ip", "addr", "replace", "192.0.2.1/32", "dev", "lo")
	run(t, "ip", "addr", "replace", "2001:db8::1/128", "dev", "lo")
	dir, bin := t.TempDir(), t.TempDir()
	run(t, "go", "build", "-o", bin+"/kith-cni", ".")
	n := &node{
		dir:     dir,
		runtime: libcni.NewCNIConfigWithCacheDir([]string{bin}, t.TempDir(), nil),
		list:    config(t, version, filepath.Join(dir, "run", "agent.sock")),
	}
	n.start(t)
	t.Cleanup(func() { n.stop(t, syscall.SIGKILL) })
	return n
}

func (n *node) start(t *testing.T) {
	t.Helper()
	n.agent = exec.Command("/proc/self/exe")
	n.agent.Env = append(os.Environ(), agentEnv+"="+n.dir)
	n.agent.Stderr = os.Stderr
	n.agent.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	// The signal of a parent's death is that of the thread's.
	runtime.LockOSThread()
	if err := n.agent.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		conn, err := net.Dial("unix", filepath.Join(n.dir, "run", "agent.sock"))
		if err == nil {
			_ = conn.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the agent does not start: %v", err)
		}
	}
}

func (n *node) stop(t *testing.T, signal os.Signal) {
	t.Helper()
	if n.agent == nil {
		return
	}
	_ = n.agent.Process.Signal(signal)
	err := n.agent.Wait()
	if signal == syscall.SIGTERM && err != nil {
		t.Errorf("agent: %v", err)
	}
	n.agent = nil
}

func (n *node) add(t *testing.T, id, netns string) *libcni.RuntimeConf {
	t.Helper()
	conf := runtimeConf(id, netns)
	if _, err := n.runtime.AddNetworkList(context.Background(), n.list, conf); err != nil {
		t.Fatalf("ADD %s: %v", id, err)
	}
	return conf
}

// left returns what there is on the node of any attachment, once the agent has had the time to finish pending DELs.
func (n *node) left(t *testing.T) string {
	t.Helper()
	for end := time.Now().Add(40 * time.Second); n.pending() > 0 && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	n.stop(t, syscall.SIGTERM)
	defer n.start(t)
	store, err := ipam.Open(filepath.Join(n.dir, "ipam"))
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, a := range store.List() {
		left = append(left, a.Key.String()+"\n")
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"gate", filepath.Join("run", cni.PendingDir)} {
		entries, _ := os.ReadDir(filepath.Join(n.dir, dir))
		for _, e := range entries {
			left = append(left, dir+"/"+e.Name()+"\n")
		}
	}
	out := run(t, "ip", "-o", "link") + run(t, "ip", "route") + run(t, "ip", "-6", "route") + run(t, "ip", "neigh")
	for line := range strings.Lines(out) {
		if strings.Contains(line, "kith-") {
			left = append(left, line)
		}
	}
	return strings.Join(left, "")
}

// pending counts the DELs that wait for the agent.
func (n *node) pending() int {
	entries, _ := os.ReadDir(filepath.Join(n.dir, "run", cni.PendingDir))
	return len(entries)
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
		done <- unix.Mount(own, path, "", unix.MS_BIND, "")
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

// chain is the list as the agent writes it.
func chain(t *testing.T, socket string) *libcni.NetworkConfigList {
	t.Helper()
	data, err := conflist.Render(socket)
	if err != nil {
		t.Fatal(err)
	}
	list, err := libcni.NetworkConfFromBytes(data)
	if err != nil {
		t.Fatal(err)
	}
	return list
}
