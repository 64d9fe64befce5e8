//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"text/template"
	"time"
)

// TestAgentRights: whoever holds the token of one node's agent can annotate that Node and no other, change nothing
// else there, and make no Secret but the gossip key.
func TestAgentRights(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	own, pod, other := agentOfOneNode(ctx, t)
	config := agentConfig(ctx, t, "--bound-object-kind", "Pod", "--bound-object-name", pod)
	unbound := agentConfig(ctx, t)
	annotate := func(node, key, value string) []string { return merge(node, `{"annotations":{"`+key+`":`+value+`}}`) }
	tests := []right{
		{"own annotation", config, annotate(own, "kith.network/test", `"1"`), ""},
		{"own annotation away", config, annotate(own, "kith.network/test", "null"), ""},
		{"another node", config, annotate(other, "kith.network/test", `"1"`), "the Node that it runs on"},
		{"a token of no node", unbound, annotate(own, "kith.network/test", `"1"`), "the Node that it runs on"},
		{"another's annotation", config, annotate(own, "example.com/test", `"1"`), "annotations kith.network/*"},
		{"another's annotation away", config, annotate(own, "node.alpha.kubernetes.io/ttl", "null"), "annotations kith.network/*"},
		{"label", config, merge(own, `{"labels":{"test":"1"}}`), "nothing of a Node but annotations"},
		{"finalizer", config, merge(own, `{"finalizers":["example.com/test"]}`), "nothing of a Node but annotations"},
		{"spec", config, []string{"patch", "node", own, "--type", "merge", "-p", `{"spec":{"unschedulable":true}}`}, "nothing of a Node but annotations"},
		{"status", config, []string{"patch", "node", own, "--subresource", "status", "--type", "merge", "-p", "{}"}, "forbidden"},
		{"delete", config, []string{"delete", "node", other, "--dry-run=server"}, "forbidden"},
		{"the gossip key", config, []string{"-n", "kith-system", "get", "secret", "kith-gossip", "-o", "name"}, ""},
		{"another secret", config, []string{"-n", "kith-system", "get", "secret", "other"}, "forbidden"},
		{"all secrets", config, []string{"-n", "kith-system", "get", "secrets"}, "forbidden"},
		{"make another secret", config, []string{"-n", "kith-system", "create", "secret", "generic", "other"}, "only make the Secret kith-gossip"},
		{"a gossip key with another's signing key", config, []string{"-n", "kith-system", "create", "secret", "generic", "kith-gossip", "--from-literal=key=x", "--from-literal=node.x=y"}, "only make the gossip key"},
		{"the gossip key again", config, []string{"-n", "kith-system", "create", "secret", "generic", "kith-gossip", "--from-literal=key=x"}, "already exists"},
		{"a secret elsewhere", config, []string{"-n", "default", "create", "secret", "generic", "kith-gossip"}, "forbidden"},
		{"pods", config, []string{"get", "pods", "-A", "-o", "name"}, ""},
		{"change pods", config, []string{"-n", "kith-system", "label", "pod", pod, "test=1"}, "forbidden"},
		{"look at what holds others", config, []string{"get", "validatingadmissionpolicy/kith-annotations", "validatingadmissionpolicybinding/kith-pod-cidrs", "-o", "name"}, ""},
		{"look at other policies", config, []string{"get", "validatingadmissionpolicies"}, "forbidden"},
		{"take away what holds others", config, []string{"delete", "validatingadmissionpolicybinding", "kith-annotations"}, "forbidden"},
		{"accept a signing key", config, []string{"-n", "kith-system", "patch", "secret", "kith-gossip", "--type=merge", "-p", `{"stringData":{"node.x":"u k"}}`}, "forbidden"},
		{"change cluster policies", config, []string{"auth", "can-i", "patch", "clusternetworkpolicies.policy.networking.k8s.io"}, "no"},
		{"exec", config, []string{"auth", "can-i", "create", "pods/exec", "-A"}, "no"},
	}
	tryRights(ctx, t, tests)
}

// right is what somebody tries, and a part of what must refuse it.
type right struct {
	name   string
	config string
	args   []string
	denied string
}

// TestNodesAnnotationsAreTheirAgents: nobody else who may write Nodes changes what a node says of itself, nor does a kubelet
// choose its pod CIDRs; what kubelets and administrators otherwise write, they go on writing.
func TestNodesAnnotationsAreTheirAgents(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	own, _, other := agentOfOneNode(ctx, t)
	kubelet, err := shared.KubeletConfig(own)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := shared.KubeletConfig("not-there")
	if err != nil {
		t.Fatal(err)
	}
	admin := shared.Kubeconfig()
	node := func(fields string) string {
		path := filepath.Join(t.TempDir(), "node")
		if err := os.WriteFile(path, []byte(`{"apiVersion":"v1","kind":"Node","metadata":{"name":"not-there"`+fields+`}`), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const agents, claim = "its own Kith agent's", `{"annotations":{"kith.network/claim":"x"}}`
	const breaks = "--as-group=kith:break-glass"
	tryRights(ctx, t, []right{
		{"an administrator", admin, merge(other, claim), agents},
		{"an administrator takes one away", admin, merge(other, `{"annotations":{"kith.network/signing-public-key":null}}`), agents},
		{"by status", admin, append(merge(other, claim), "--subresource=status"), agents},
		{"breaking the glass", admin, append(merge(other, `{"annotations":{"kith.network/test":"1"}}`), "--as=somebody", "--as-group=system:masters", breaks), ""},
		{"and mending it", admin, append(merge(other, `{"annotations":{"kith.network/test":null}}`), "--as=somebody", "--as-group=system:masters", breaks), ""},
		{"breaking the glass needs rights to Nodes", admin, append(merge(other, claim), "--as=somebody", breaks), "User \"somebody\" cannot"},
		{"its kubelet", kubelet, merge(own, claim), agents},
		{"a new Node with a claim", stranger, []string{"create", "-f", node(`,"annotations":{"kith.network/claim":"x"}}`)}, agents},
		{"a new Node with a pod CIDR", stranger, []string{"create", "-f", node(`},"spec":{"podCIDR":"198.51.100.0/24","podCIDRs":["198.51.100.0/24"]}`)}, "choose its own pod CIDRs"},
		{"a new Node with a pod CIDR in the old field", stranger, []string{"create", "-f", node(`},"spec":{"podCIDR":"198.51.100.0/24"}`)}, "choose its own pod CIDRs"},
		{"a new Node", stranger, []string{"create", "--dry-run=server", "-f", node(`}`)}, ""},
		{"a kubelet's annotation", kubelet, merge(own, `{"annotations":{"example.com/test":"1"}}`), ""},
		{"and away", kubelet, merge(own, `{"annotations":{"example.com/test":null}}`), ""},
		{"an administrator's label", admin, merge(other, `{"labels":{"example.com/test":null}}`), ""},
	})
	// The policies are as shipped, whatever the API server has filled in.
	for _, r := range allSay(t) {
		for _, problem := range r.Problems {
			if strings.Contains(problem, "admission polic") {
				t.Errorf("%s: %s", r.Node, problem)
			}
		}
	}
}

// TestKubeletsPodsStayInTheirNamespaces: where mirrorPodNamespaces says so, a kubelet makes pods for its static pods there and
// nowhere else; everybody else goes on as before.
func TestKubeletsPodsStayInTheirNamespaces(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	own, _, _ := agentOfOneNode(ctx, t)
	kubelet, err := shared.KubeletConfig(own)
	if err != nil {
		t.Fatal(err)
	}
	uid := kubectl(ctx, t, "get", "node", own, "-o", "jsonpath={.metadata.uid}")
	pod := filepath.Join(t.TempDir(), "pod")
	manifest := fmt.Sprintf(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"mirror","annotations":{"kubernetes.io/config.mirror":"x"},`+
		`"ownerReferences":[{"apiVersion":"v1","kind":"Node","name":%q,"uid":%q,"controller":true}]},`+
		`"spec":{"nodeName":%q,"containers":[{"name":"c","image":"x"}]}}`, own, uid, own)
	if err := os.WriteFile(pod, []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	create := func(namespace string) []string {
		return []string{"-n", namespace, "create", "--dry-run=server", "-f", pod}
	}
	tryRights(ctx, t, []right{{"before", kubelet, create("default"), ""}})
	text := mirrorPolicy(t, "kube-system")
	t.Cleanup(func() {
		if _, err := shared.Kubectl(context.Background(), "delete", "validatingadmissionpolicy/kith-mirror-pods", "validatingadmissionpolicybinding/kith-mirror-pods"); err != nil {
			t.Error(err)
		}
	})
	if err := shared.Apply(ctx, text); err != nil {
		t.Fatal(err)
	}
	// The API server takes a while to hear of its own policies.
	for {
		out, err := shared.Kubectl(ctx, append([]string{"--kubeconfig", kubelet}, create("default")...)...)
		if err != nil && strings.Contains(out+err.Error(), "mirrorPodNamespaces") {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("allowed: %s (%v)", out, err)
		}
	}
	tryRights(ctx, t, []right{
		{"a kubelet elsewhere", kubelet, create("default"), "in the namespaces of mirrorPodNamespaces alone"},
		{"a kubelet there", kubelet, create("kube-system"), ""},
		{"an administrator", shared.Kubeconfig(), create("default"), ""},
	})
}

// mirrorPolicy is the chart's policy for these namespaces.
func mirrorPolicy(t *testing.T, namespaces ...string) string {
	t.Helper()
	file := filepath.Join(filepath.Dir(shared.builder.Module), "deploy", "helm", "kith", "templates", "mirrorpods.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	toJSON := func(v any) (string, error) { b, err := json.Marshal(v); return string(b), err }
	// Labels are of no use here.
	label := func(string, any) string { return "app.kubernetes.io/name: kith" }
	indent := func(by int, text string) string { return "\n" + strings.Repeat(" ", by) + text }
	chart, err := template.New("mirrorpods").Funcs(template.FuncMap{"toJson": toJSON, "include": label, "nindent": indent}).Parse(string(text))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := chart.Execute(&b, map[string]any{
		"Values": map[string]any{"mirrorPodNamespaces": namespaces}, "Release": map[string]any{"Namespace": "kith-system", "Name": "kith"},
	}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func tryRights(ctx context.Context, t *testing.T, tests []right) {
	t.Helper()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out, err := shared.Kubectl(ctx, append([]string{"--kubeconfig", tt.config}, tt.args...)...)
			switch {
			case tt.denied == "" && err != nil:
				t.Errorf("not allowed: %v", err)
			case tt.denied != "" && err == nil:
				t.Errorf("allowed: %s", out)
			case tt.denied != "" && !strings.Contains(out+err.Error(), tt.denied):
				t.Errorf("denied, but not because of %q: %v", tt.denied, err)
			}
		})
	}
}

func merge(node, metadata string) []string {
	return []string{"patch", "node", node, "--type", "merge", "-p", `{"metadata":` + metadata + `}`}
}

// agentOfOneNode is a node, its agent's pod, and another node.
func agentOfOneNode(ctx context.Context, t *testing.T) (node, pod, other string) {
	t.Helper()
	out := kubectl(ctx, t, "-n", "kith-system", "get", "pods", "-l", "app.kubernetes.io/name=kith", "-o",
		`jsonpath={range .items[*]}{.spec.nodeName} {.metadata.name} {end}`)
	words := strings.Fields(out)
	if len(words) < 4 {
		t.Fatalf("want at least two agents, got %q", out)
	}
	return words[0], words[1], words[2]
}

// agentConfig writes a kubeconfig with a token of the agents' service account.
func agentConfig(ctx context.Context, t *testing.T, bound ...string) string {
	t.Helper()
	token := kubectl(ctx, t, append([]string{"-n", "kith-system", "create", "token", "kith"}, bound...)...)
	cluster := kubectl(ctx, t, "config", "view", "--raw", "--minify", "-o", `jsonpath={.clusters[0].cluster}`)
	text := `{"apiVersion":"v1","kind":"Config","current-context":"c","clusters":[{"name":"c","cluster":` + cluster + `}],` +
		`"contexts":[{"name":"c","context":{"cluster":"c","user":"agent"}}],"users":[{"name":"agent","user":{"token":"` + token + `"}}]}`
	path := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func kubectl(ctx context.Context, t *testing.T, args ...string) string {
	t.Helper()
	out, err := shared.Kubectl(ctx, args...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}
