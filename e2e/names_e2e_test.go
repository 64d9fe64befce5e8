//go:build e2e

package e2e

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kithnet/kith/e2e/parts"
)

// namesPods are two servers under names of their own (headless Services), one of them allowed.
const namesPods = tiersPods + `
---
apiVersion: v1
kind: Service
metadata: {name: allowed, namespace: tiers}
spec: {clusterIP: None, selector: {app: server}, ports: [{port: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: other, namespace: tiers}
spec: {clusterIP: None, selector: {app: other}, ports: [{port: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: other, namespace: tiers, labels: {app: other}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: server, image: "` + parts.AgnhostImage + `", args: [netexec, --http-port=8080]}
`

const namesRules = `egress:
  - {action: Accept, to: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {k8s-app: kube-dns}}}}]}
  - {action: Accept, to: [{domainNames: [allowed.tiers.svc.cluster.local]}], protocols: [{tcp: {destinationPort: {number: 8080}}}]}
  - {action: Deny, to: [{networks: [0.0.0.0/0, "::/0"]}]}`

// TestDomainNames: a pod reaches an allowed name at the first attempt, its address only once the pod was told it, no other
// name, and all that again after the agent came back.
func TestDomainNames(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	t.Cleanup(func() {
		for _, args := range [][]string{{"delete", "clusternetworkpolicies", "--all"}, {"delete", "namespace", "tiers", "--timeout=120s"}} {
			if _, err := shared.Kubectl(context.Background(), args...); err != nil {
				t.Error(err)
			}
		}
	})
	tiersApply(ctx, t, tiersNamespace)
	waitServiceAccounts(ctx, t, "tiers")
	tiersApply(ctx, t, namesPods)
	for _, pod := range []string{"server", "other", "client"} {
		tiersGet(ctx, t, "wait", "--for=condition=Ready", "pod/"+pod, "--timeout=120s")
	}
	address := tiersGet(ctx, t, "get", "pod", "server", "-o", "jsonpath={.status.podIP}") + ":8080"
	const allowed, other = "allowed.tiers.svc.cluster.local.:8080", "other.tiers.svc.cluster.local.:8080"
	for _, name := range []string{allowed, other} {
		if !tiersReach(ctx, "client", name, true) {
			t.Fatalf("%s is not reached without a policy", name)
		}
	}
	tiersApply(ctx, t, clusterPolicy("names", "Admin", "client", namesRules))
	tiersGet(ctx, t, "wait", "--for=condition=Enforced", "clusternetworkpolicy/names", "--timeout=120s")
	if !tiersReach(ctx, "client", address, false) {
		t.Error("the address is reached before the pod was told it")
	}
	// Once, with less time than a lost answer costs, and without a second SYN: its first packet was not lost, however long a
	// busy machine took for all of it.
	again := tiersSYNsAgain(ctx, t, "client")
	if _, err := shared.Kubectl(ctx, "-n", "tiers", "exec", "client", "--", "/agnhost", "connect", allowed, "--timeout=4s"); err != nil {
		t.Errorf("the allowed name is not reached at once: %v", err)
	}
	if now := tiersSYNsAgain(ctx, t, "client"); now != again {
		t.Errorf("the allowed name is not reached at the first attempt: %s SYNs were sent again, %s before", now, again)
	}
	for to, want := range map[string]bool{address: true, other: false} {
		if !tiersReach(ctx, "client", to, want) {
			t.Errorf("%s is reached: %t", to, !want)
		}
	}
	for _, args := range [][]string{{"rollout", "restart", "daemonset/kith"}, {"rollout", "status", "daemonset/kith", "--timeout=180s"}} {
		if _, err := shared.Kubectl(ctx, append([]string{"-n", "kith-system"}, args...)...); err != nil {
			t.Fatal(err)
		}
	}
	for to, want := range map[string]bool{allowed: true, other: false} {
		if !tiersReach(ctx, "client", to, want) {
			t.Errorf("after the agent came back, %s is reached: %t", to, !want)
		}
	}
}

// tiersSYNsAgain is how many SYNs a pod has sent again.
func tiersSYNsAgain(ctx context.Context, t *testing.T, pod string) string {
	t.Helper()
	var names []string
	for line := range strings.Lines(tiersGet(ctx, t, "exec", pod, "--", "cat", "/proc/net/netstat")) {
		words := strings.Fields(line)
		at := slices.Index(names, "TCPSynRetrans")
		switch {
		case len(words) == 0 || words[0] != "TcpExt:":
		case names == nil:
			names = words
		case at >= 0 && at < len(words):
			return words[at]
		}
	}
	t.Fatalf("%s does not count SYNs: %q", pod, names)
	return ""
}
