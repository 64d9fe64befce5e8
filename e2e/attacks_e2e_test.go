//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kithnet/kith/e2e/parts"
)

const (
	attacksNamespace = "attacks"
	tenantNamespace  = "attacks-tenant"
	// hangs is a limit for what hangs, not for what is slow.
	hangs = 2 * time.Minute
)

// attacks is what the attacks have in common: pods by name, and where the agents run.
type attacks struct {
	*testing.T
	pods   map[string]attackedPod
	agents map[string]string // pods by node
}

type attackedPod struct {
	node    string
	address netip.Addr
}

// TestAttacks: what a kubelet's certificate, a tenant's account and a pod with NET_RAW can be used for. Each attack has
// real credentials and takes nothing from others, not the cluster, not another's identity, not the agents' time, and it delivers nothing that policy
// denies.
func TestAttacks(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	a := newAttacks(ctx, t)
	t.Run("MirrorPod", func(t *testing.T) { a.in(t).mirrorPod(ctx) })
	t.Run("ICMPErrors", func(t *testing.T) { a.in(t).icmpErrors(ctx) })
	t.Run("LargePolicies", func(t *testing.T) { a.in(t).largePolicies(ctx) })
	t.Run("DNSAnswers", func(t *testing.T) { a.in(t).dnsAnswers(ctx) })
	// Where this succeeds, there is no cluster any more.
	t.Run("PodCIDRs", func(t *testing.T) { a.in(t).podCIDRs(ctx) })
}

func (a *attacks) in(t *testing.T) *attacks {
	c := *a
	c.T = t
	return &c
}

const attacksNamespaces = `
apiVersion: v1
kind: Namespace
metadata: {name: attacks}
---
apiVersion: v1
kind: Namespace
metadata: {name: attacks-tenant}
`

// The server takes from friends alone, a sealed pod from nobody, and it sends nothing.
const attacksPolicies = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: server, namespace: attacks}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress: [{from: [{podSelector: {matchLabels: {app: friend}}}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: sealed, namespace: attacks}
spec: {podSelector: {matchLabels: {app: sealed}}, policyTypes: [Ingress, Egress]}
`

// attacksPod is a pod that serves TCP port 8080 and UDP port 8081.
func attacksPod(namespace, app, node string) string {
	return fmt.Sprintf(`
---
apiVersion: v1
kind: Pod
metadata: {name: %[2]s, namespace: %[1]s, labels: {app: %[2]s}}
spec:
  nodeName: %[3]s
  terminationGracePeriodSeconds: 1
  tolerations: [{operator: Exists}]
  containers:
  - {name: c, image: "%[4]s", args: [netexec, --http-port=8080, --udp-port=8081]}
`, namespace, app, node, parts.AgnhostImage)
}

func newAttacks(ctx context.Context, t *testing.T) *attacks {
	t.Helper()
	t.Cleanup(func() {
		for _, args := range [][]string{
			{"delete", "namespace", attacksNamespace, tenantNamespace, "--ignore-not-found", "--timeout=120s"},
		} {
			if _, err := shared.Kubectl(context.Background(), args...); err != nil {
				t.Error(err)
			}
		}
	})
	tiersApply(ctx, t, attacksNamespaces)
	waitServiceAccounts(ctx, t, attacksNamespace, tenantNamespace)
	nodes := []string{shared.Members[0].Name, shared.Members[1].Name, shared.Members[2].Name}
	where := map[string]int{"server": 0, "sealed": 0, "friend": 1, "foe": 2}
	manifests := attacksPolicies + attacksPod(tenantNamespace, "tenant", nodes[0])
	for app, node := range where {
		manifests += attacksPod(attacksNamespace, app, nodes[node])
	}
	tiersApply(ctx, t, manifests)
	a := &attacks{T: t, pods: map[string]attackedPod{}, agents: map[string]string{}}
	for app, node := range where {
		a.kubectl(ctx, "wait", "--for=condition=Ready", "pod/"+app, "--timeout=180s")
		address, err := netip.ParseAddr(a.kubectl(ctx, "get", "pod", app, "-o", "jsonpath={.status.podIP}"))
		if err != nil {
			t.Fatal(err)
		}
		a.pods[app] = attackedPod{nodes[node], address}
	}
	agents := strings.Fields(kubectl(ctx, t, "-n", "kith-system", "get", "pods", "-l", "app.kubernetes.io/name=kith", "-o",
		`jsonpath={range .items[*]}{.spec.nodeName} {.metadata.name} {end}`))
	for i := 0; i+1 < len(agents); i += 2 {
		a.agents[agents[i]] = agents[i+1]
	}
	return a
}

// kubectl works in the victims' namespace.
func (a *attacks) kubectl(ctx context.Context, args ...string) string {
	a.Helper()
	return kubectl(ctx, a.T, append([]string{"-n", attacksNamespace}, args...)...)
}

// connects says whether a pod reaches the server, at one attempt.
func (a *attacks) connects(ctx context.Context, from string) bool {
	_, err := shared.Kubectl(ctx, "-n", attacksNamespace, "exec", from, "--", "/agnhost", "connect",
		netip.AddrPortFrom(a.pods["server"].address, 8080).String(), "--timeout=2s")
	return err == nil
}

// reaches waits until a pod reaches the server or does not, as wanted.
func (a *attacks) reaches(ctx context.Context, from, when string, want bool) {
	a.Helper()
	for end := time.Now().Add(hangs); a.connects(ctx, from) != want; time.Sleep(200 * time.Millisecond) {
		if time.Now().After(end) {
			a.Errorf("%s: it is not so that %s reaches the server: %t", when, from, want)
			return
		}
	}
}

// told waits until the status of each of the nodes names something as a problem.
func (a *attacks) told(ctx context.Context, nodes []string, names ...string) {
	a.Helper()
	for _, node := range nodes {
		for _, name := range names {
			for end := time.Now().Add(hangs); ; time.Sleep(500 * time.Millisecond) {
				out, err := shared.Kubectl(ctx, "--request-timeout=10s", "-n", "kith-system", "exec", a.agents[node], "-c", "agent", "--",
					"/kith", "status", "-local", "-o", "json")
				if _, problems, ok := strings.Cut(out, `"problems"`); err == nil && ok && strings.Contains(problems, name) {
					break
				}
				if time.Now().After(end) {
					a.Errorf("the status of %s does not name %s among its problems: %v", node, name, err)
					break
				}
			}
		}
	}
}

// mirrorPod: a node's root, with its kubelet's certificate, makes a pod with the labels that the server takes from, and
// says that it has the accomplice's address, which is another node's.
func (a *attacks) mirrorPod(ctx context.Context) {
	liar := a.pods["server"].node // not the clients': its kubelet is stopped, and runs nothing in pods
	config, err := shared.KubeletConfig(liar)
	if err != nil {
		a.Fatal(err)
	}
	a.reaches(ctx, "friend", "before", true)
	a.reaches(ctx, "foe", "before", false)
	// The node's own kubelet does not know such a pod and would delete it.
	if err := shared.Signal(liar, "kubelet", 19); err != nil {
		a.Fatal(err)
	}
	defer func() {
		if err := shared.Signal(liar, "kubelet", 18); err != nil {
			a.Error(err)
		}
	}()
	uid := a.kubectl(ctx, "get", "node", liar, "-o", "jsonpath={.metadata.uid}")
	manifest := fmt.Sprintf(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"mirror","namespace":%q,"labels":{"app":"friend"},`+
		`"annotations":{"kubernetes.io/config.mirror":"x","kubernetes.io/config.hash":"x","kubernetes.io/config.source":"file"},`+
		`"ownerReferences":[{"apiVersion":"v1","kind":"Node","name":%q,"uid":%q,"controller":true}]},`+
		`"spec":{"nodeName":%q,"containers":[{"name":"c","image":"x"}],"tolerations":[{"operator":"Exists"}]}}`,
		attacksNamespace, liar, uid, liar)
	if _, err := shared.Kubectl(ctx, "--kubeconfig", config, "create", "-f", a.file(manifest)); err != nil {
		a.Fatalf("the mirror pod is refused: %v", err)
	}
	foe := a.pods["foe"].address
	var pod map[string]any
	if err := json.Unmarshal([]byte(a.kubectl(ctx, "get", "pod", "mirror", "-o", "json")), &pod); err != nil {
		a.Fatal(err)
	}
	pod["status"] = map[string]any{"phase": "Running", "podIP": foe.String(), "podIPs": []any{map[string]any{"ip": foe.String()}}}
	stated, err := json.Marshal(pod)
	if err != nil {
		a.Fatal(err)
	}
	a.kubectl(ctx, "--kubeconfig", config, "replace", "--raw", "/api/v1/namespaces/"+attacksNamespace+"/pods/mirror/status", "-f", a.file(string(stated)))
	// The other nodes' agents have heard it then. This one's cannot be asked while its kubelet stands still.
	a.told(ctx, []string{a.pods["friend"].node, a.pods["foe"].node}, attacksNamespace+"/mirror")
	for range 5 {
		if a.connects(ctx, "foe") {
			a.Error("the accomplice reaches the server")
			break
		}
	}
	a.reaches(ctx, "friend", "with a pod that states another's address", true)
	a.kubectl(ctx, "delete", "pod", "mirror", "--grace-period=0", "--force")
}

func (a *attacks) file(content string) string {
	a.Helper()
	path := filepath.Join(a.TempDir(), "manifest")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		a.Fatal(err)
	}
	return path
}

// podCIDRs: Nodes that ask for CIDRs which are others'. A kubelet may not make them. When an administrator does, by accident,
// the cluster goes on as it was, and each node says which Nodes it does not believe.
func (a *attacks) podCIDRs(ctx context.Context) {
	dns := kubectl(ctx, a.T, "-n", "kube-system", "get", "service", "kube-dns", "-o", "jsonpath={.spec.clusterIP}")
	node := shared.Members[2].Addresses[0]
	lan, err := node.Prefix(24)
	if err != nil {
		a.Fatal(err)
	}
	cidrs := map[string]string{"claims-lan": lan.String(), "claims-node": node.String() + "/32", "claims-dns": dns + "/32"}
	a.Cleanup(func() {
		for name := range cidrs {
			for _, args := range [][]string{
				{"delete", "node", name, "--ignore-not-found"},
				{"delete", "pods", "-A", "--field-selector=spec.nodeName=" + name, "--force", "--grace-period=0"},
			} {
				if _, err := shared.Kubectl(context.Background(), append([]string{"--request-timeout=20s"}, args...)...); err != nil {
					a.Error(err)
				}
			}
		}
	})
	var names []string
	for name, cidr := range cidrs {
		file := a.file(fmt.Sprintf(`{"apiVersion":"v1","kind":"Node","metadata":{"name":%q},"spec":{"podCIDR":%q,"podCIDRs":[%[2]q]}}`, name, cidr))
		config, err := shared.KubeletConfig(name)
		if err != nil {
			a.Fatal(err)
		}
		if _, err := shared.Kubectl(ctx, "--kubeconfig", config, "create", "-f", file); err == nil || !strings.Contains(err.Error(), "may not choose its own pod CIDRs") {
			a.Errorf("a kubelet makes its Node with the pod CIDR %s: %v", cidr, err)
		}
		// Where the kubelet could, the Node is there already.
		kubectl(ctx, a.T, "apply", "-f", file)
		names = append(names, name)
	}
	var nodes []string
	for _, n := range shared.Members {
		nodes = append(nodes, n.Name)
	}
	a.told(ctx, nodes, names...)
	a.nothingIsCut(ctx)
}

// nothingIsCut: each node reaches each other and the API server, pods reach each other and the cluster's names.
func (a *attacks) nothingIsCut(ctx context.Context) {
	for _, from := range shared.Members {
		for _, to := range shared.Members {
			if out, err := shared.ExecRun(from.Name, "ping", "-c", "3", "-W", "5", to.Addresses[0].String()); err != nil {
				a.Errorf("%s does not reach %s: %v %s", from.Name, to.Name, err, out)
			}
		}
		if out, err := shared.ExecRun(from.Name, "nc", "-z", "-w", "10", shared.Members[0].Addresses[0].String(), "6443"); err != nil {
			a.Errorf("%s does not reach the API server: %v %s", from.Name, err, out)
		}
	}
	for _, pod := range []string{"friend", "foe"} {
		var err error
		for end := time.Now().Add(hangs); time.Now().Before(end); {
			if _, err = shared.Kubectl(ctx, "--request-timeout=20s", "-n", attacksNamespace, "exec", pod, "--", "/agnhost", "connect",
				"kubernetes.default.svc.cluster.local:443", "--timeout=10s"); err == nil {
				break
			}
		}
		if err != nil {
			a.Errorf("%s does not reach a Service by its name: %v", pod, err)
		}
	}
	a.reaches(ctx, "friend", "with Nodes that are not believed", true)
}
