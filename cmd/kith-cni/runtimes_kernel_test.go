//go:build kernel

package main

import (
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/kithnet/kith/cni"
	"github.com/kithnet/kith/cni/conflist"
)

// chained is a node whose runtime reads the list that the agent writes, with all plugins of it.
func chained(t *testing.T) (n *node, file string) {
	t.Helper()
	n = newNode(t, "1.1.0")
	bin, dir, socket := n.runtime.Path[0], t.TempDir(), filepath.Join(n.dir, "run", "agent.sock")
	for name, plugin := range map[string]string{cni.Portmap: "portmap", cni.Bandwidth: "bandwidth"} {
		run(t, "go", "build", "-o", filepath.Join(bin, name), "github.com/containernetworking/plugins/plugins/meta/"+plugin)
	}
	if err := conflist.Write(dir, socket); err != nil {
		t.Fatal(err)
	}
	n.list = chain(t, socket)
	n.list.DisableCheck = false
	return n, filepath.Join(dir, conflist.FileName)
}

// TestRuntimesOfBothVersions: the list serves runtimes that know CNI 1.0.0 alone, and gives those that know 1.1.0 GC and
// STATUS; an attachment outlives an upgrade of its runtime.
func TestRuntimesOfBothVersions(t *testing.T) {
	if !isolated(t) {
		return
	}
	n, file := chained(t)
	old, cache := filepath.Join(t.TempDir(), "runtime"), t.TempDir()
	run(t, "go", "-C", "testdata/runtime", "build", "-o", old, ".")
	n.runtime = libcni.NewCNIConfigWithCacheDir(n.runtime.Path, cache, nil)
	netns := map[string]string{"aaa": sandbox(t), "bbb": sandbox(t)}
	by := func(operation, id, want string) {
		t.Helper()
		out, err := exec.Command(old, operation, file, n.runtime.Path[0], cache, id, netns[id]).CombinedOutput()
		if err != nil || string(out) != want {
			t.Errorf("%s by libcni 1.1.2: %v\n%s", operation, err, out)
		}
	}
	by("ADD", "aaa", "list 1.0.0\nresult 1.0.0\n")
	by("ADD", "bbb", "list 1.0.0\nresult 1.0.0\n")
	run(t, "ping", "-c1", "-W20", "10.1.0.2")
	by("CHECK", "aaa", "list 1.0.0\n")
	by("DEL", "aaa", "list 1.0.0\n")
	by("DEL", "aaa", "list 1.0.0\n")
	n.upgraded(t, netns["bbb"], netns["aaa"])
	if left := n.left(t); left != "" {
		t.Error(left)
	}
}

// upgraded does what a runtime of today does on a node with an attachment, bbb, that an older one made.
func (n *node) upgraded(t *testing.T, made, free string) {
	t.Helper()
	before := runtimeConf("bbb", made)
	if err := n.runtime.CheckNetworkList(t.Context(), n.list, before); err != nil {
		t.Errorf("CHECK of what libcni 1.1.2 made: %v", err)
	}
	now := runtimeConf("ccc", free)
	result, err := n.runtime.AddNetworkList(t.Context(), n.list, now)
	if err != nil || result.Version() != "1.1.0" {
		t.Fatalf("ADD: %v %v", result, err)
	}
	valid := []types.GCAttachment{{ContainerID: "bbb", IfName: "eth0"}, {ContainerID: "ccc", IfName: "eth0"}}
	if err := n.runtime.GCNetworkList(t.Context(), n.list, &libcni.GCArgs{ValidAttachments: valid}); err != nil {
		t.Errorf("GC: %v", err)
	}
	if err := n.runtime.GetStatusNetworkList(t.Context(), n.list); err != nil {
		t.Errorf("STATUS: %v", err)
	}
	for _, conf := range []*libcni.RuntimeConf{before, now} {
		if err := n.runtime.CheckNetworkList(t.Context(), n.list, conf); err != nil {
			t.Errorf("CHECK %s: %v", conf.ContainerID, err)
		}
		if err := n.runtime.DelNetworkList(t.Context(), n.list, conf); err != nil {
			t.Errorf("DEL %s: %v", conf.ContainerID, err)
		}
	}
	n.stop(t, syscall.SIGTERM)
	if err := n.runtime.GetStatusNetworkList(t.Context(), n.list); codeOf(t, err) != types.ErrPluginNotAvailable {
		t.Errorf("STATUS without an agent: %v", err)
	}
	n.start(t)
}
