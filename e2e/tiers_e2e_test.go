//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kithnet/kith/e2e/parts"
)

const tiersNamespace = `
apiVersion: v1
kind: Namespace
metadata: {name: tiers}
`

const tiersPods = `
apiVersion: v1
kind: Pod
metadata: {name: server, namespace: tiers, labels: {app: server}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: server
    image: ` + parts.AgnhostImage + `
    args: [netexec, --http-port=8080]
    readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1, timeoutSeconds: 5}
---
apiVersion: v1
kind: Service
metadata: {name: server, namespace: tiers}
spec: {selector: {app: server}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: tiers, labels: {app: client}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: client, image: "` + parts.AgnhostImage + `", args: [pause]}
`

// clusterPolicy is a ClusterNetworkPolicy for the pods of an app.
func clusterPolicy(name, tier, app, rules string) string {
	return `
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: ` + name + `}
spec:
  tier: ` + tier + `
  priority: 10
  subject: {pods: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: tiers}}, podSelector: {matchLabels: {app: ` + app + `}}}}
  ` + rules
}

const openPolicy = `
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: open, namespace: tiers}
spec: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{}], egress: [{}]}
`

// TestClusterNetworkPolicy goes through the tiers on a real cluster: who reaches whom follows, and probes go on.
func TestClusterNetworkPolicy(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
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
	tiersApply(ctx, t, tiersPods)
	for _, pod := range []string{"server", "client"} {
		tiersGet(ctx, t, "wait", "--for=condition=Ready", "pod/"+pod, "--timeout=120s")
	}
	address := func(pod, field string) string {
		return tiersGet(ctx, t, "get", "pod", pod, "-o", "jsonpath={.status."+field+"}")
	}
	server, service := address("server", "podIP")+":8080", tiersGet(ctx, t, "get", "service", "server", "-o", "jsonpath={.spec.clusterIP}")+":80"
	ownKubelet := address("client", "hostIP") + ":10250"
	ways := map[string][2]string{"server": {"client", server}, "node": {"client", ownKubelet}, "itself": {"server", service}}
	fromAll := `ingress: [{action: Deny, from: [{namespaces: {}}]}]`
	toNodes := `egress: [{action: Deny, to: [{nodes: {}}, {networks: [0.0.0.0/0]}]}]`
	for _, step := range []struct{ name, apply, remove, open string }{
		{"no policy", "", "", "server node itself"},
		{"Admin denies", clusterPolicy("admin", "Admin", "server", fromAll), "", "node"},
		{"Admin denies over NetworkPolicy", openPolicy, "", "node"},
		{"Admin passes", clusterPolicy("admin", "Admin", "server", strings.ReplaceAll(fromAll, "Deny", "Pass")), "", "server node itself"},
		{"NetworkPolicy over Baseline", clusterPolicy("baseline", "Baseline", "client", toNodes), "", "server node itself"},
		{"Baseline", "", "networkpolicy/open", "itself"},
		{"Admin over Baseline", clusterPolicy("first", "Admin", "client", strings.ReplaceAll(toNodes, "Deny", "Accept")), "", "server node itself"},
	} {
		if step.apply != "" {
			tiersApply(ctx, t, step.apply)
		}
		if step.remove != "" {
			tiersGet(ctx, t, "delete", step.remove)
		}
		for name, way := range ways {
			want := strings.Contains(step.open, name)
			if !tiersReach(ctx, way[0], way[1], want) {
				t.Errorf("%s: %s reaches %s (%s) is not %t", step.name, way[0], way[1], name, want)
			}
		}
		if ready := address("server", `conditions[?(@.type=="Ready")].status`); ready != "True" {
			t.Errorf("%s: the server is not ready: its probes do not pass", step.name)
		}
	}
	tiersConditions(ctx, t)
}

// tiersConditions waits until each policy says that it is accepted, and enforced on all nodes.
func tiersConditions(ctx context.Context, t *testing.T) {
	t.Helper()
	nodes := len(strings.Fields(tiersGet(ctx, t, "get", "nodes", "-o", "name")))
	want := fmt.Sprintf("Accepted=True Enforced=True enforced on %d of %d nodes", nodes, nodes)
	for _, name := range []string{"admin", "baseline", "first"} {
		said := ""
		for end := time.Now().Add(time.Minute); said != want; time.Sleep(time.Second) {
			said = tiersGet(ctx, t, "get", "clusternetworkpolicy", name, "-o", `jsonpath=Accepted={.status.conditions[?(@.type=="Accepted")].status} `+
				`Enforced={.status.conditions[?(@.type=="Enforced")].status} {.status.conditions[?(@.type=="Enforced")].message}`)
			if time.Now().After(end) {
				t.Errorf("policy %s says %q, want %q", name, said, want)
				break
			}
		}
	}
}

func tiersApply(ctx context.Context, t *testing.T, text string) {
	t.Helper()
	if err := shared.Apply(ctx, text); err != nil {
		t.Fatal(err)
	}
}

func tiersGet(ctx context.Context, t *testing.T, args ...string) string {
	t.Helper()
	out, err := shared.Kubectl(ctx, append([]string{"-n", "tiers"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// tiersReach waits until a pod reaches an address or does not, as wanted.
func tiersReach(ctx context.Context, pod, address string, want bool) bool {
	for range 20 {
		_, err := shared.Kubectl(ctx, "-n", "tiers", "exec", pod, "--", "/agnhost", "connect", address, "--timeout=2s")
		if (err == nil) == want {
			return true
		}
		time.Sleep(500 * time.Millisecond)
	}
	return false
}
