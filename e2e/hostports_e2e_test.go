//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

const (
	toollessNamespace = "toolless"
	// aside is kith-cni while the runtime finds a program in its place that runs it without tools.
	aside    = "/opt/cni/bin/.kith-cni.aside"
	toolless = "#!/bin/sh\nPATH=/nonexistent exec " + aside + "\n"
)

// TestNodeWithoutToolsInACluster: on a node without nft and iptables a pod starts and ends; one with a host port does not
// start, its events say what is missing, and nothing of it stays.
func TestNodeWithoutToolsInACluster(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	node := shared.Members[1].Name
	tiersApply(ctx, t, "apiVersion: v1\nkind: Namespace\nmetadata: {name: "+toollessNamespace+"}\n")
	t.Cleanup(func() {
		if _, err := shared.Kubectl(context.Background(), "delete", "namespace", toollessNamespace, "--timeout=120s"); err != nil {
			t.Error(err)
		}
	})
	waitServiceAccounts(ctx, t, toollessNamespace)
	waitNamespacesEnd(ctx, t)
	before := attachments(t, node)
	onNode(t, node, "sh", "-c", "mv /opt/cni/bin/kith-cni "+aside+" && printf '%s' \"$1\" > /opt/cni/bin/kith-cni && chmod 755 /opt/cni/bin/kith-cni",
		"sh", toolless)
	t.Cleanup(func() { onNode(t, node, "mv", aside, "/opt/cni/bin/kith-cni") })

	port := strings.Replace(attacksPod(toollessNamespace, "port", node), "args: [netexec,", "ports: [{containerPort: 8080, hostPort: 18099}], args: [netexec,", 1)
	tiersApply(ctx, t, attacksPod(toollessNamespace, "plain", node)+port)
	kubectl(ctx, t, "-n", toollessNamespace, "wait", "--for=condition=Ready", "pod/plain", "--timeout=120s")
	for _, want := range []string{"cannot make the pod's host ports", "install nftables or iptables on the node, or remove hostPort from the pod"} {
		awaitEvent(ctx, t, "port", want)
	}
	kubectl(ctx, t, "-n", toollessNamespace, "delete", "pod", "port", "plain", "--timeout=120s")
	if after := attachments(t, node); after != before {
		t.Errorf("attachments before:\n%s\nand after:\n%s", before, after)
	}
}

// awaitEvent waits until an event of a pod says something.
func awaitEvent(ctx context.Context, t *testing.T, pod, want string) {
	t.Helper()
	for {
		events := kubectl(ctx, t, "-n", toollessNamespace, "get", "events", "--field-selector=involvedObject.name="+pod, "-o", "jsonpath={.items[*].message}")
		if strings.Contains(events, want) {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("no event says %q: %s", want, events)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// attachments are the host sides of a node's pods.
func attachments(t *testing.T, node string) string {
	t.Helper()
	return onNode(t, node, "sh", "-c", "ls /sys/class/net; ip route show | grep 'dev kith-'; true")
}

func onNode(t *testing.T, node string, args ...string) string {
	t.Helper()
	out, err := shared.ExecRun(node, args...)
	if err != nil {
		t.Fatal(fmt.Errorf("%s: %w", node, err))
	}
	return out
}
