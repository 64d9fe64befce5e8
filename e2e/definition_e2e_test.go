//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

const keepOut = `
apiVersion: policy.networking.k8s.io/v1beta1
kind: ClusterNetworkPolicy
metadata: {name: keep-out}
spec:
  tier: Admin
  priority: 100
  subject: {pods: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: flows}}, podSelector: {matchLabels: {role: server}}}}
  ingress:
  - action: Deny
    from: [{pods: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: flows}}, podSelector: {matchLabels: {role: intruder}}}}]
`

// definitionChanges has the API server serve ClusterNetworkPolicies in one version after the other, while one of them alone keeps
// intruders out: agents follow, and neither does a flow end nor an intruder come through.
func definitionChanges(ctx context.Context, t *testing.T) {
	t.Helper()
	serve := func(v1alpha2, v1beta1 bool) {
		t.Helper()
		patch := fmt.Sprintf(`[{"op":"replace","path":"/spec/versions/0/served","value":%t},{"op":"replace","path":"/spec/versions/1/served","value":%t}]`, v1alpha2, v1beta1)
		kubectl(ctx, t, "patch", "crd", "clusternetworkpolicies.policy.networking.k8s.io", "--type=json", "-p", patch)
	}
	names := kubectl(ctx, t, "get", "crd", "clusternetworkpolicies.policy.networking.k8s.io", "-o", "jsonpath={.spec.versions[*].name}")
	if names != "v1alpha2 v1beta1" {
		t.Fatalf("the definition has the versions %q: let this test follow", names)
	}
	tiersApply(ctx, t, keepOut)
	t.Cleanup(func() {
		serve(true, true)
		if _, err := shared.Kubectl(context.Background(), "delete", "clusternetworkpolicies", "--all"); err != nil {
			t.Error(err)
		}
	})
	enforced(ctx, t, "v1beta1")
	kubectl(ctx, t, "-n", "flows", "delete", "networkpolicy", "clients-only")
	before := flowStates(ctx, t, "role=client")
	for i, step := range []struct {
		v1alpha2, v1beta1 bool
		by                string
	}{{true, false, "v1alpha2"}, {true, true, "v1beta1"}, {false, true, "v1beta1"}, {true, true, "v1alpha2"}} {
		serve(step.v1alpha2, step.v1beta1)
		patch := fmt.Sprintf(`{"spec":{"priority":%d}}`, 200+i)
		for end := time.Now().Add(patience); ; {
			_, err := shared.Kubectl(ctx, "patch", "clusternetworkpolicies."+step.by+".policy.networking.k8s.io", "keep-out", "--type=merge", "-p", patch)
			if err == nil {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%+v: %v", step, err)
			}
		}
		took := enforced(ctx, t, step.by)
		t.Logf("v1alpha2 served %t, v1beta1 %t: a change by %s is enforced after %s", step.v1alpha2, step.v1beta1, step.by, took.Round(time.Millisecond))
	}
	for pod, s := range flowStates(ctx, t, "role=client") {
		if s.Broken != 0 || s.Open != before[pod].Open || s.Echoes <= before[pod].Echoes {
			t.Errorf("client %s: %+v, before %+v", pod, s, before[pod])
		}
	}
	checkDenied(ctx, t)
}

// enforced waits until all nodes have the policy as it is now, and says how long that took.
func enforced(ctx context.Context, t *testing.T, version string) time.Duration {
	t.Helper()
	start := time.Now()
	for {
		out, err := shared.Kubectl(ctx, "get", "clusternetworkpolicies."+version+".policy.networking.k8s.io", "keep-out", "-o",
			`jsonpath={.metadata.generation} {.status.conditions[?(@.type=="Enforced")].observedGeneration} {.status.conditions[?(@.type=="Enforced")].status}`)
		if f := strings.Fields(out); err == nil && len(f) == 3 && f[0] == f[1] && f[2] == "True" {
			return time.Since(start)
		}
		if time.Since(start) > patience {
			t.Fatalf("not enforced: %q, %v", out, err)
		}
	}
}
