//go:build kernel

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"

	"github.com/kithnet/kith/cni"
)

// hostPort is a pod that wants port 8080 of its node.
func hostPort(id, netns string) *libcni.RuntimeConf {
	conf := runtimeConf(id, netns)
	conf.CapabilityArgs = map[string]any{"portMappings": []map[string]any{{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}}}
	return conf
}

// rules are all that there are, by whichever tool they were made.
func rules(t *testing.T) string {
	t.Helper()
	all := run(t, "nft", "list", "ruleset")
	if _, err := exec.LookPath("iptables-save"); err == nil {
		all += run(t, "iptables-save", "-t", "nat")
	}
	return all
}

// TestNodeWithoutTools: where the runtime finds neither nft nor iptables, pods without host ports live and end, and one with
// a host port fails with what is missing and leaves nothing. A pod whose ports were made while there were tools gives its
// address back all the same, and its ports once there are tools.
func TestNodeWithoutTools(t *testing.T) {
	if !isolated(t) {
		return
	}
	n, _ := chained(t)
	tools, none := os.Getenv("PATH"), t.TempDir()
	plain, ports, made := runtimeConf("plain", sandbox(t)), hostPort("ports", sandbox(t)), hostPort("made", sandbox(t))
	if _, err := n.runtime.AddNetworkList(t.Context(), n.list, made); err != nil {
		t.Fatal(err)
	}
	if rules := rules(t); !strings.Contains(rules, "8080") {
		t.Fatalf("the host port is not there:\n%s", rules)
	}
	t.Setenv("PATH", none)
	if _, err := n.runtime.AddNetworkList(t.Context(), n.list, plain); err != nil {
		t.Errorf("ADD of a pod without host ports: %v", err)
	}
	_, err := n.runtime.AddNetworkList(t.Context(), n.list, ports)
	if err == nil || !strings.Contains(err.Error(), "cannot make the pod's host ports (kith-portmap)") ||
		!strings.Contains(err.Error(), "neither nft nor iptables is in the container runtime's PATH ("+none+"): install nftables or iptables") {
		t.Errorf("ADD of a pod with a host port: %v", err)
	}
	if err := n.runtime.GetStatusNetworkList(t.Context(), n.list); err != nil {
		t.Errorf("STATUS: %v", err)
	}
	for _, conf := range []*libcni.RuntimeConf{plain, ports} {
		if err := n.runtime.DelNetworkList(t.Context(), n.list, conf); err != nil {
			t.Errorf("DEL %s: %v", conf.ContainerID, err)
		}
	}
	if err := n.runtime.DelNetworkList(t.Context(), n.list, made); err == nil || !strings.Contains(err.Error(), "cannot remove the pod's host ports") {
		t.Errorf("DEL of what there are no tools for: %v", err)
	}
	t.Setenv("PATH", tools)
	if left := n.left(t); left != "" {
		t.Error(left)
	}
	if err := n.runtime.DelNetworkList(t.Context(), n.list, made); err != nil {
		t.Errorf("DEL with tools again: %v", err)
	}
	if rules := rules(t); strings.Contains(rules, "8080") {
		t.Errorf("the host port is still there:\n%s", rules)
	}
}

// TestPodsOfTheListBefore: pods that were attached by a chain of three plugins are detached by the list of today, and, where
// the runtime remembers it, by the chain.
func TestPodsOfTheListBefore(t *testing.T) {
	if !isolated(t) {
		return
	}
	n, _ := chained(t)
	today := n.list
	before, err := libcni.NetworkConfFromBytes([]byte(`{"cniVersion":"1.0.0","cniVersions":["1.0.0","1.1.0"],"name":"kith","plugins":[
		{"type":"kith-cni","socket":"` + filepath.Join(n.dir, "run", "agent.sock") + `"},
		{"type":"` + cni.Portmap + `","capabilities":{"portMappings":true},"snat":true},
		{"type":"` + cni.Bandwidth + `","capabilities":{"bandwidth":true}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range []*libcni.NetworkConfigList{today, before} {
		conf := hostPort("aaa", sandbox(t))
		if _, err := n.runtime.AddNetworkList(t.Context(), before, conf); err != nil {
			t.Fatal(err)
		}
		if err := n.runtime.CheckNetworkList(t.Context(), list, conf); err != nil {
			t.Errorf("CHECK: %v", err)
		}
		for range 2 {
			if err := n.runtime.DelNetworkList(t.Context(), list, conf); err != nil {
				t.Errorf("DEL: %v", err)
			}
		}
		if rules := rules(t); strings.Contains(rules, "8080") {
			t.Errorf("the host port is still there:\n%s", rules)
		}
	}
	if left := n.left(t); left != "" {
		t.Error(left)
	}
}

// TestPluginsBehindOurs: what others put behind kith-cni in the list works on its result, for a pod with a host port, too.
func TestPluginsBehindOurs(t *testing.T) {
	if !isolated(t) {
		return
	}
	n, _ := chained(t)
	run(t, "go", "build", "-o", filepath.Join(n.runtime.Path[0], "tuning"), "github.com/containernetworking/plugins/plugins/meta/tuning")
	ours := n.list.Plugins[0].Bytes
	list, err := libcni.NetworkConfFromBytes([]byte(`{"cniVersion":"1.0.0","cniVersions":["1.0.0","1.1.0"],"name":"kith","plugins":[` +
		string(ours) + `,{"type":"tuning","sysctl":{"net.ipv4.conf.IFNAME.log_martians":"1"},"dataDir":"` + t.TempDir() + `"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	conf := hostPort("aaa", sandbox(t))
	if _, err := n.runtime.AddNetworkList(t.Context(), list, conf); err != nil {
		t.Fatal(err)
	}
	if got := within(t, conf.NetNS, "cat", "/proc/sys/net/ipv4/conf/eth0/log_martians"); got != "1\n" {
		t.Errorf("the plugin behind did nothing: %s", got)
	}
	if err := n.runtime.CheckNetworkList(t.Context(), list, conf); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	if err := n.runtime.DelNetworkList(t.Context(), list, conf); err != nil {
		t.Errorf("DEL: %v", err)
	}
	if left := n.left(t); left != "" {
		t.Error(left)
	}
}
