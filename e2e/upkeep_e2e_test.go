//go:build e2e

package e2e

import (
	"context"
	"strings"
	"testing"
	"time"
)

const upkeepNamespace = "undone"

// TestUndoneOnTheNode: what other programs of a node undo of a pod's interface, of forwarding and of the mesh is put right by
// event, and a pod that is deleted meanwhile gets nothing back.
func TestUndoneOnTheNode(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	t.Cleanup(func() {
		if _, err := shared.Kubectl(context.Background(), "delete", "namespace", upkeepNamespace, "--ignore-not-found", "--timeout=120s"); err != nil {
			t.Error(err)
		}
	})
	tiersApply(ctx, t, "apiVersion: v1\nkind: Namespace\nmetadata: {name: "+upkeepNamespace+"}\n")
	waitServiceAccounts(ctx, t, upkeepNamespace)
	tiersApply(ctx, t, attacksPod(upkeepNamespace, "kept", shared.Members[1].Name))
	kubectl(ctx, t, "-n", upkeepNamespace, "wait", "--for=condition=Ready", "pod/kept", "--timeout=180s")
	address := kubectl(ctx, t, "-n", upkeepNamespace, "get", "pod", "kept", "-o", "jsonpath={.status.podIP}")
	onNode := func(args ...string) (string, error) {
		return commandOutput(ctx, append([]string{"nsenter", "--net=/run/netns/" + shared.Members[1].Name}, args...)...)
	}
	way, err := onNode("ip", "-o", "route", "get", address)
	if err != nil || !strings.Contains(way, "dev kith-") {
		t.Fatalf("way to the pod: %q, %v", way, err)
	}
	device := strings.Fields(way[strings.Index(way, "dev kith-"):])[1]
	script := "ip -br link show dev DEV; ip route show dev DEV; ip -6 route show dev DEV; ip neigh show dev DEV; sysctl net.ipv4.ip_forward " +
		"net.ipv4.conf.DEV.forwarding net.ipv4.conf.DEV.rp_filter net.ipv4.conf.kith0.rp_filter net.ipv4.conf.kith1.forwarding"
	state := func() string {
		out, err := onNode("sh", "-c", strings.ReplaceAll(script, "DEV", device))
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	before := state()
	for _, command := range []string{
		"ip route del " + address, "ip neigh flush dev DEV nud permanent", "ip link set DEV down", "ip link set DEV address 02:00:00:00:00:09",
		"sysctl -qw net.ipv4.ip_forward=0", "sysctl -qw net.ipv4.conf.DEV.rp_filter=1", "sysctl -qw net.ipv4.conf.kith0.rp_filter=1",
	} {
		if _, err := onNode("sh", "-c", strings.ReplaceAll(command, "DEV", device)); err != nil {
			t.Fatalf("%s: %v", command, err)
		}
		start := time.Now()
		for now := state(); now != before; now = state() {
			if time.Since(start) > patience {
				t.Fatalf("after %s: was\n%sis\n%s", command, before, now)
			}
		}
		t.Logf("%s: as before after %s", command, time.Since(start).Round(time.Millisecond))
		if out, err := shared.ExecRun(shared.Members[0].Name, "ping", "-c", "1", "-W", "20", address); err != nil {
			t.Errorf("after %s another node does not reach the pod: %s %v", command, out, err)
		}
	}
	// Docker and ufw do this to a node.
	if _, err := onNode("iptables", "-P", "FORWARD", "DROP"); err != nil {
		t.Fatal(err)
	}
	if out, err := shared.ExecRun(shared.Members[0].Name, "ping", "-c", "1", "-w", "20", address); err != nil {
		t.Errorf("where iptables drops what is forwarded, another node does not reach the pod: %s %v", out, err)
	}
	if _, err := onNode("iptables", "-P", "FORWARD", "ACCEPT"); err != nil {
		t.Fatal(err)
	}
	deleted := make(chan struct{})
	go func() {
		defer close(deleted)
		if _, err := shared.Kubectl(ctx, "-n", upkeepNamespace, "delete", "pod", "kept", "--timeout=120s"); err != nil {
			t.Error(err)
		}
	}()
	for going := true; going; {
		select {
		case <-deleted:
			going = false
		default:
			_, _ = onNode("ip", "route", "del", address) // there or not
		}
	}
	out, err := onNode("sh", "-c", "ip route show "+address+"; ip -o link show | grep "+device+" || true")
	if err != nil || strings.TrimSpace(out) != "" {
		t.Errorf("after the pod was deleted: %q, %v", out, err)
	}
}
