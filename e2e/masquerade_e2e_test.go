//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"
)

const masqueradeNamespace = "masquerade"

// TestNodesAreReachedUnmasqueraded: where pods show their own addresses, everywhere or in a range that has the nodes in it,
// they still reach other nodes and the API server: other nodes drop pods' addresses that come by the underlay.
func TestNodesAreReachedUnmasqueraded(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	config := kubectl(ctx, t, "-n", "kith-system", "get", "configmap", "kith", "-o", `jsonpath={.data.kith\.yaml}`)
	t.Cleanup(func() {
		configure(context.Background(), t, config)
		if _, err := shared.Kubectl(context.Background(), "delete", "namespace", masqueradeNamespace, "--ignore-not-found", "--timeout=120s"); err != nil {
			t.Error(err)
		}
	})
	tiersApply(ctx, t, "apiVersion: v1\nkind: Namespace\nmetadata: {name: "+masqueradeNamespace+"}\n")
	waitServiceAccounts(ctx, t, masqueradeNamespace)
	tiersApply(ctx, t, attacksPod(masqueradeNamespace, "shown", shared.Members[1].Name))
	kubectl(ctx, t, "-n", masqueradeNamespace, "wait", "--for=condition=Ready", "pod/shown", "--timeout=180s")
	var nodes []string
	for _, a := range shared.Members[0].Addresses {
		nodes = append(nodes, fmt.Sprintf("%q", a.String()+map[bool]string{true: "/32", false: "/128"}[a.Is4()]))
	}
	for name, setting := range map[string]string{
		"Everywhere":  "masquerade: false",
		"ANodesRange": "nonMasqueradeCIDRs: [" + strings.Join(nodes, ", ") + "]",
	} {
		t.Run(name, func(t *testing.T) {
			configure(ctx, t, config+"\n"+setting+"\n")
			if shown := nomasquerade(ctx, t); !strings.Contains(shown, "elements") {
				t.Fatalf("the agent runs without the setting: %s", shown)
			}
			for _, a := range shared.Members[0].Addresses {
				reaches(ctx, t, net.JoinHostPort(a.String(), "10250"))
			}
			reaches(ctx, t, "kubernetes.default:443")
		})
	}
}

// configure gives all agents a configuration, and waits until they run with it.
func configure(ctx context.Context, t *testing.T, config string) {
	t.Helper()
	patch, err := json.Marshal(map[string]any{"data": map[string]string{"kith.yaml": config}})
	if err != nil {
		t.Fatal(err)
	}
	kubectl(ctx, t, "-n", "kith-system", "patch", "configmap", "kith", "--type=merge", "-p", string(patch))
	kubectl(ctx, t, "-n", "kith-system", "delete", "pods", "-l", "app.kubernetes.io/name=kith", "--timeout=120s")
	kubectl(ctx, t, "-n", "kith-system", "rollout", "status", "daemonset/kith", "--timeout=180s")
}

// nomasquerade is where the pod's node shows pods, as the kernel has it once the agent has written it.
func nomasquerade(ctx context.Context, t *testing.T) (set string) {
	t.Helper()
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end) && !strings.Contains(set, "elements"); time.Sleep(100 * time.Millisecond) {
		netns := "--net=/run/netns/" + shared.Members[1].Name
		if set, err = commandOutput(ctx, "nsenter", netns, "nft", "list", "set", "inet", "kith", "nomasquerade4"); err != nil {
			t.Log(err)
		}
	}
	return set
}

func commandOutput(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
	return string(out), err
}

// reaches waits until the pod connects.
func reaches(ctx context.Context, t *testing.T, to string) {
	t.Helper()
	var out string
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if out, err = shared.Kubectl(ctx, "-n", masqueradeNamespace, "exec", "shown", "--", "/agnhost", "connect", "--timeout=5s", to); err == nil {
			return
		}
	}
	t.Errorf("a pod does not reach %s: %s %v", to, out, err)
}
