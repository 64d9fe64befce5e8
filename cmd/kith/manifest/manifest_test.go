package manifest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
	"github.com/kithnet/kith/policy/matrix"
)

// read reads one text.
func read(text string) (Manifests, error) {
	return Read(Source{Paths: []string{"-"}, Stdin: strings.NewReader(text), PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}})
}

func mustRead(t *testing.T, text string) Manifests {
	t.Helper()
	found, err := read(text)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestMistakes: every mistake is refused with its line and its field.
func TestMistakes(t *testing.T) {
	const np = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: m}\n"
	const cnp = "apiVersion: policy.networking.k8s.io/v1beta1\nkind: ClusterNetworkPolicy\nmetadata: {name: p}\nspec:\n  tier: Admin\n  priority: 1\n"
	const pod = "apiVersion: v1\nkind: Pod\n"
	tests := []struct{ name, text, want string }{
		{"no YAML", "a: b\n c: d\n", ":2: not YAML"},
		{"no object", "- a\n", ":1: is a list, want an object"},
		{"no kind", "\napiVersion: v1\n", ":2: kind: is missing"},
		{"no version", "kind: Pod\n", ":1: apiVersion: is missing"},
		{"no name", pod + "metadata: {}\n", ":3: Pod: metadata.name: is missing"},
		{"no metadata", pod, ":1: Pod: metadata.name: is missing"},
		{"name", pod + "metadata:\n  name: A b\n", ":4: Pod A b: metadata.name: a lowercase RFC 1123 subdomain"},
		{"namespace", pod + "metadata:\n  name: a\n  namespace: b.c\n", ":5: Pod b.c/a: metadata.namespace: "},
		{"label's key", pod + "metadata:\n  name: a\n  labels:\n    ok: fine\n    a/b/c: d\n", `:7: Pod a: metadata.labels: a/b/c="d": a valid label key`},
		{"label's value", pod + "metadata:\n  name: a\n  labels:\n    app: a-\n", `:6: Pod a: metadata.labels: app="a-": a valid label`},
		{"label that is a number", pod + "metadata:\n  name: a\n  labels:\n    app: 1\n", ":6: Pod a: metadata.labels.app: is the number 1, want text: write it in quotes"},
		{"label that is yes", pod + "metadata:\n  name: a\n  labels:\n    app: yes\n", ":6: Pod a: metadata.labels.app: is yes, which YAML takes for true or false, want text: write it in quotes"},
		{"address", pod + "metadata: {name: a}\nstatus:\n  podIP: 10.0.0.256\n", `:5: Pod a: status.podIP: "10.0.0.256" is not an address`},
		{"second address", pod + "metadata: {name: a}\nstatus:\n  podIPs:\n  - ip: 10.0.0.2\n  - ip: x\n", `:7: Pod a: status.podIPs[1].ip: "x" is not an address`},
		{"wrong type", pod + "metadata: {name: a}\nspec:\n  hostNetwork: 1\n", ":5: Pod a: spec.hostNetwork: is the number 1, want true or false"},
		{"list for mapping", pod + "metadata: {name: a}\nspec: []\n", ":4: Pod a: spec: is a list, want fields"},
		{"mapping for list", pod + "metadata: {name: a}\nspec:\n  containers: {}\n", ":5: Pod a: spec.containers: is a mapping, want a list"},
		{"number", pod + "metadata: {name: a}\nspec:\n  containers:\n  - ports:\n    - containerPort: 99999999999\n", ":7: Pod a: spec.containers[0].ports[0].containerPort: is the number 99999999999, want a whole number"},
		{"twice", pod + "metadata: {name: a}\n---\n" + pod + "metadata: {name: a, labels: {b: c}}\n", ":5: Pod a: is given already at standard input:1"},
		{"twice, once by default", "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: default}}\n---\n" + pod + "metadata: {name: a}\n", ":3: Pod a: is given already at standard input:1"},
		{"twice in no namespace", "{apiVersion: v1, kind: Node, metadata: {name: a}}\n---\n{apiVersion: v1, kind: Node, metadata: {name: a, namespace: b}}\n", ":3: Node b/a: is given already at standard input:1"},
		{"key twice", np + "spec:\n  podSelector: {}\n  podSelector: {}\n", ":6: NetworkPolicy m/p: spec.podSelector: is given already in line 5"},
		{"node's range", "apiVersion: v1\nkind: Node\nmetadata: {name: a}\nspec:\n  podCIDRs:\n  - 10.0.0.0\n", `:6: Node a: spec.podCIDRs[0]: "10.0.0.0" is not an address range`},
		{"node's address", "apiVersion: v1\nkind: Node\nmetadata: {name: a}\nstatus:\n  addresses:\n  - {type: Hostname, address: a}\n  - {type: ExternalIP, address: a}\n", `:7: Node a: status.addresses[1].address: "a" is not an address`},
		{"unknown field", np + "spec:\n  podselector: {}\n", ":5: NetworkPolicy m/p: spec.podselector: there is no such field; did you mean podSelector?"},
		{"unknown field deep", np + "spec:\n  ingress:\n  - from:\n    - podSelectors: {}\n", ":7: NetworkPolicy m/p: spec.ingress[0].from[0].podSelectors: there is no such field; here are ipBlock, namespaceSelector, podSelector"},
		{"unknown field of metadata", np + "spec: {}\nstatus: {any: 1}\nmeta: {}\n", ":6: NetworkPolicy m/p: meta: there is no such field"},
		{"policy's version", "apiVersion: networking.k8s.io/v1beta1\nkind: NetworkPolicy\n", ":1: NetworkPolicy: apiVersion: networking.k8s.io/v1beta1 NetworkPolicy is not a policy that Kith knows"},
		{"old admin policy", "kind: AdminNetworkPolicy\napiVersion: policy.networking.k8s.io/v1alpha1\n", ":2: AdminNetworkPolicy: apiVersion: policy.networking.k8s.io/v1alpha1 AdminNetworkPolicy is not a policy that Kith knows"},
		{"CIDR", np + "spec:\n  egress:\n  - to:\n    - ipBlock:\n        cidr: 10.0.0.0/33\n", `:8: NetworkPolicy m/p: spec.egress[0].to[0].ipBlock.cidr: "10.0.0.0/33" is not an address range`},
		{"except", np + "spec:\n  egress:\n  - to:\n    - ipBlock:\n        cidr: 10.0.0.0/8\n        except:\n        - 10.1.0.0/16\n        - 11.0.0.0/16\n", ":11: NetworkPolicy m/p: spec.egress[0].to[0].ipBlock.except[1]: 11.0.0.0/16 does not lie in 10.0.0.0/8"},
		{"selector", np + "spec:\n  podSelector:\n    matchExpressions: [{key: a, operator: Like}]\n", `:6: NetworkPolicy m/p: spec.podSelector.matchExpressions[0]: "Like" is not a valid label selector operator`},
		{"policy type", np + "spec:\n  policyTypes:\n  - Ingress\n  - Egres\n", `:7: NetworkPolicy m/p: spec.policyTypes[1]: "Egres" is not a policy type`},
		{"port", np + "spec:\n  ingress:\n  - ports:\n    - port: true\n", ":7: NetworkPolicy m/p: spec.ingress[0].ports[0].port: is true, which YAML takes for true or false, want a number, or a name in quotes"},
		{"endPort", np + "spec:\n  ingress:\n  - ports:\n    - {port: 9, endPort: 8}\n", ":7: NetworkPolicy m/p: spec.ingress[0].ports[0].endPort: 8 is below port 9"},
		{"missing in a cluster's", "apiVersion: policy.networking.k8s.io/v1beta1\nkind: ClusterNetworkPolicy\nmetadata: {name: p}\nspec:\n  tier: Admin\n  subject: {namespaces: {}}\n", ":4: ClusterNetworkPolicy p: spec.priority: is missing"},
		{"action", cnp + "  subject: {namespaces: {}}\n  ingress:\n  - action: Allow\n    from: [{namespaces: {}}]\n", `:9: ClusterNetworkPolicy p: spec.ingress[0].action: "Allow" is not an action`},
		{"action of none", cnp + "  subject: {namespaces: {}}\n  ingress:\n  - from: [{namespaces: {}}]\n", ":9: ClusterNetworkPolicy p: spec.ingress[0].action: "},
		{"priority", strings.Replace(cnp, "priority: 1", "priority: 1001", 1) + "  subject: {namespaces: {}}\n", ":6: ClusterNetworkPolicy p: spec.priority: is 1001, at most 1000"},
		{"below the first priority", strings.Replace(cnp, "priority: 1", "priority: -5", 1) + "  subject: {namespaces: {}}\n", ":6: ClusterNetworkPolicy p: spec.priority: is -5, at least 0"},
		{"rules", cnp + "  subject: {namespaces: {}}\n  egress:\n" + strings.Repeat("  - {action: Deny, to: [{nodes: {}}]}\n", 26), ":8: ClusterNetworkPolicy p: spec.egress: has 26 entries, at most 25"},
		{"peers", cnp + "  subject: {namespaces: {}}\n  egress:\n  - action: Deny\n    to:\n" + strings.Repeat("    - {nodes: {}}\n", 26), ":10: ClusterNetworkPolicy p: spec.egress[0].to: has 26 entries, at most 25"},
		{"rule's name", cnp + "  subject: {namespaces: {}}\n  ingress:\n  - action: Deny\n    name: " + strings.Repeat("é", 101) + "\n    from: [{namespaces: {}}]\n", ":10: ClusterNetworkPolicy p: spec.ingress[0].name: has 101 characters, at most 100"},
		{"no protocol", cnp + "  subject: {namespaces: {}}\n  ingress:\n  - action: Deny\n    from: [{namespaces: {}}]\n    protocols: []\n", ":11: ClusterNetworkPolicy p: spec.ingress[0].protocols: has 0 entries, at least 1"},
		{"no selector of pods", cnp + "  subject:\n    pods: {namespaceSelector: {}}\n", ":8: ClusterNetworkPolicy p: spec.subject.pods.podSelector: is missing"},
		{"a network twice", cnp + "  subject: {namespaces: {}}\n  egress:\n  - action: Deny\n    to:\n    - networks: [10.0.0.0/8, 10.0.0.0/8]\n", `:11: ClusterNetworkPolicy p: spec.egress[0].to[0].networks[1]: "10.0.0.0/8" is in the list already`},
		{"in a list", "apiVersion: v1\nkind: List\nitems:\n- kind: Pod\n  apiVersion: v1\n  metadata: {name: a}\n  status: {podIP: x}\n", `:7: Pod a: status.podIP: "x" is not an address`},
		{"in a typed list", "apiVersion: v1\nkind: PodList\nitems:\n- metadata: {name: a}\n  status: {podIP: x}\n", `:5: Pod a: status.podIP: "x" is not an address`},
		{"in a list of JSON", "{\n \"items\": [\n {\"metadata\": {\"name\": \"a\"}},\n\n {\n\"metadata\":\n{\"name\": 7}}],\n \"kind\": \"PodList\", \"apiVersion\": \"v1\"}", ":7: Pod: metadata.name: is the number 7, want text"},
		{"in a list in the second document", "a: b\n---\napiVersion: v1\n# c\nitems:\n# d\n- metadata: {name: a}\n- metadata:\n    name: 7\nkind: PodList\n", ":9: Pod: metadata.name: is the number 7, want text"},
		{"no YAML in a list", "apiVersion: v1\nitems:\n- metadata: {name: a}\n- metadata:\n    name: [\nkind: PodList\n", ":5: not YAML"},
		{"a list of no list", "apiVersion: v1\nkind: List\nitems: {}\n", ":3: items: is a mapping, want a list written out"},
		{"an item of no object", "apiVersion: v1\nkind: List\nitems:\n- x\n", `:4: is "x", want an object`},
		{"in JSON", "{\n\"apiVersion\": \"v1\",\n\"kind\": \"Pod\",\n\"metadata\": {\"name\": 7}}", ":4: Pod: metadata.name: is the number 7, want text"},
		{"in the second document", "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\n---\n# nothing\n---\napiVersion: v1\nkind: Pod\n", ":8: Pod: metadata.name: is missing"},
		{"merge", "x: &x {name: a}\napiVersion: v1\nkind: Pod\nmetadata:\n  <<: *x\n", ":1: Pod a: x: there is no such field"},
		{"merge of no mapping", pod + "metadata:\n  <<: x\n  name: a\n", `:4: merges "x", want a mapping`},
		{"merge of no mappings", pod + "metadata:\n  <<: [{name: a}, [x]]\n", ":4: merges a list, want a mapping"},
		{"merge into itself", pod + "metadata: &m\n  name: a\n  <<: *m\n", ":3: is merged into itself"},
		{"mistake that is merged", pod + "metadata: {name: a, labels: {<<: {app: 1}}}\n", ":3: Pod a: metadata.labels.app: is the number 1, want text"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := read(tt.text)
			if err == nil || !strings.Contains(err.Error(), "standard input"+tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

// TestAliases: small texts that stand for large ones end soon.
func TestAliases(t *testing.T) {
	text := "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  - &c\n    env: &e [" + strings.Repeat("{name: x},", 1000) + "]\n"
	text += strings.Repeat("  - *c\n", 1000)
	if _, err := read(text); err == nil || strings.Count(err.Error(), "the aliases stand for too much") != 1 {
		t.Errorf("error %v", err)
	}
	found := mustRead(t, "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  labels: &l {app: b}\n---\napiVersion: v1\nkind: Pod\nmetadata: &m\n  name: c\n  annotations: &x {d: e}\n  labels: *x\n")
	if got := found.Ends[1].Labels["d"]; got != "e" {
		t.Errorf("label by alias is %q", got)
	}
}

const everything = `
apiVersion: v1
kind: Namespace
metadata: {name: a, labels: {team: x}}
---
apiVersion: v1
kind: Node
metadata: {name: one, labels: {zone: z}}
spec: {podCIDRs: [10.244.1.0/24, "fd00:1::/64"], taints: []}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}, {type: Hostname, address: one}]}
---
apiVersion: v1
kind: Pod
metadata: {name: running, namespace: a, labels: {app: r}}
spec: {containers: [{name: c, image: i, ports: [{name: http, containerPort: 8080}]}], nodeName: one}
status: {phase: Running, podIP: 10.244.1.2, podIPs: [{ip: 10.244.1.2}, {ip: "fd00:1::2"}]}
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Pod, metadata: {name: ended, namespace: a}, status: {phase: Succeeded, podIP: 10.244.1.3}}
- {apiVersion: v1, kind: Pod, metadata: {name: placed, namespace: a}, spec: {nodeName: one}}
- {apiVersion: v1, kind: Pod, metadata: {name: nowhere}}
- {apiVersion: v1, kind: Pod, metadata: {name: host, namespace: a}, spec: {hostNetwork: true, nodeName: one}}
- {apiVersion: v1, kind: Pod, metadata: {name: lost, namespace: a}, spec: {hostNetwork: true, nodeName: gone}}
---
{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "absent", "namespace": "a"},
 "spec": {"template": {"metadata": {"labels": {"app": "absent"}}, "spec": {"containers": [{"ports": [{"name": "web", "containerPort": 80}]}]}}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: present, namespace: a}
spec: {template: {metadata: {labels: {app: r}}}}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: absent, namespace: a}
spec: {jobTemplate: {spec: {template: {metadata: {labels: {app: cron}}}}}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: none, namespace: a}
spec: {replicas: 0, template: {metadata: {labels: {app: none}}}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: a}
spec: {podSelector: {}}
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: first}
spec:
  tier: Admin
  priority: 7
  subject: {namespaces: {}}
  ingress: [{action: Deny, from: [{namespaces: {}}]}]
---
apiVersion: v1
kind: Service
metadata: {name: s}
spec: {whatever: 1}
`

func TestRead(t *testing.T) {
	found := mustRead(t, everything)
	prefix, addr := netip.MustParsePrefix, netip.MustParseAddr
	nodes := []policy.Node{{Name: "one", Labels: map[string]string{"zone": "z"}, PodCIDRs: []netip.Prefix{prefix("10.244.1.0/24"), prefix("fd00:1::/64")},
		Addresses: []netip.Addr{addr("192.0.2.1")}, Mesh: []netip.Addr{addr("10.244.1.1"), addr("fd00:1::1")}}}
	address := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	if diff := cmp.Diff(nodes, found.Cluster.Nodes, address, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("nodes (-want +got):\n%s", diff)
	}
	var ends []string
	for _, e := range found.Ends {
		ends = append(ends, fmt.Sprint(e.Name, e.Addresses))
	}
	// What is on no node gets an address outside of the nodes' ranges.
	want := []string{
		"a/absent[10.244.0.1]", "a/absent-deployment[10.244.0.2]", "a/placed[10.244.1.3 fd00:1::3]",
		"a/running[10.244.1.2 fd00:1::2]", "default/nowhere[10.244.0.3]",
	}
	if h := found.Hosts; len(h) != 2 || fmt.Sprint(h[0].Name, h[0].Addresses) != "a/host[192.0.2.1]" || fmt.Sprint(h[1].Name, h[1].Addresses) != "a/lost[]" {
		t.Errorf("hosts: %v", h)
	}
	if diff := cmp.Diff(want, ends); diff != "" {
		t.Errorf("ends (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]identity.Namespace{{Name: "a", Labels: map[string]string{"team": "x"}}, {Name: "default"}}, found.Cluster.Namespaces); diff != "" {
		t.Errorf("namespaces (-want +got):\n%s", diff)
	}
	var policies []string
	for _, p := range found.Cluster.Policies {
		policies = append(policies, fmt.Sprint(p.Tier, " ", p.Key()))
	}
	if diff := cmp.Diff([]string{"NetworkPolicy a/deny", "Admin first"}, policies); diff != "" {
		t.Errorf("policies (-want +got):\n%s", diff)
	}
	notes := []string{
		"objects without metadata.namespace, taken as in namespace default (-n): 1",
		"workloads none of whose pods is here, each taken as one pod of its name: 2",
		"workloads left out, as their pods are here: 1",
		"workloads left out, as they have ended or want no pod: 1",
		"namespaces that are not here, taken without labels but their name: default",
		"pods without status.podIP, given addresses (-pod-cidr) that an ipBlock may see otherwise in the cluster: 4",
		"pods that have ended, left out: 1",
		"pods on their node's network, left out of a matrix that does not name them: 2",
		"passed over, as no policy looks at them: Service 1",
	}
	if diff := cmp.Diff(notes, found.Notes); diff != "" {
		t.Errorf("notes (-want +got):\n%s", diff)
	}
}

// TestOrderOfFilesDoesNotMatter: documents in any order and in any number of files describe one cluster.
func TestOrderOfFilesDoesNotMatter(t *testing.T) {
	documents := regexp.MustCompile(`(?m)^---$`).Split(everything, -1)
	want := mustRead(t, everything)
	r := rand.New(rand.NewPCG(1, 1))
	for range 20 {
		dir := t.TempDir()
		r.Shuffle(len(documents), func(i, j int) { documents[i], documents[j] = documents[j], documents[i] })
		for i, d := range documents {
			write(t, filepath.Join(dir, fmt.Sprint(i%3), fmt.Sprint(i, ".yml")), d)
		}
		got, err := Read(Source{Paths: []string{dir, dir + "/0"}, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}})
		if err != nil {
			t.Fatal(err)
		}
		same := cmp.Options{
			cmp.Comparer(func(a, b labels.Selector) bool { return fmt.Sprint(a) == fmt.Sprint(b) }),
			cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}),
		}
		if diff := cmp.Diff(want, got, same); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestFiles: a folder is read whole, but for what is hidden and what is no manifest by its name.
func TestFiles(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a.yaml", "b/c.json", "b/d.yml", "b/.hidden.yaml", ".git/e.yaml", "README.md"} {
		write(t, filepath.Join(dir, name), "")
	}
	files, err := list([]string{dir, filepath.Join(dir, "b", "c.json"), filepath.Join(dir, "README.md"), "-"})
	for i := range files {
		files[i].name = strings.TrimPrefix(files[i].name, dir+"/")
	}
	if want := []file{{"a.yaml", true}, {"b/c.json", false}, {"b/d.yml", true}, {"README.md", false}, {"-", false}}; err != nil || !slices.Equal(files, want) {
		t.Errorf("%v, %v, want %v", files, err, want)
	}
	for _, paths := range [][]string{{dir + "/nothing"}, {dir + "/.git/none"}, {t.TempDir()}} {
		if _, err := Read(Source{Paths: paths}); err == nil {
			t.Errorf("%v: no error", paths)
		}
	}
}

// TestFolders: what a repository has besides manifests is passed over with a note, unless its file is named; a link to a
// folder is that folder.
func TestFolders(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/real/pod.yaml", "{apiVersion: v1, kind: Pod, metadata: {name: a}}\n")
	others := []string{"Chart.yaml:2", "patch.json:1", "text.yaml:1", "values.yaml:3"}
	write(t, dir+"/real/Chart.yaml", "\napiVersion: v2\nname: shop\n")
	write(t, dir+"/real/patch.json", `[{"op": "replace", "path": "/spec/replicas", "value": 2}]`)
	write(t, dir+"/real/text.yaml", "text\n")
	write(t, dir+"/real/values.yaml", "{apiVersion: v1, kind: Service, metadata: {name: a}}\n---\nkind: DaemonSet\n")
	if err := os.Symlink("real", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	cidrs := []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}
	for _, path := range []string{dir + "/real", dir + "/link", dir + "/link/"} {
		found, err := Read(Source{Paths: []string{path}, PodCIDRs: cidrs})
		if err != nil {
			t.Fatal(err)
		}
		for i := range others {
			others[i] = filepath.Join(path, filepath.Base(others[i]))
		}
		if want := "passed over in folders, as they are no manifests (no kind or no apiVersion): " + strings.Join(others, ", "); len(found.Ends) != 1 || !slices.Contains(found.Notes, want) {
			t.Errorf("%s: ends %v, notes %q, want %q", path, found.Ends, found.Notes, want)
		}
	}
	for _, name := range []string{"Chart.yaml", "patch.json", "text.yaml", "values.yaml"} {
		if _, err := Read(Source{Paths: []string{dir + "/real", dir + "/real/" + name}, PodCIDRs: cidrs}); err == nil {
			t.Errorf("%s is taken though it is named", name)
		}
	}
	for _, text := range []string{"apiVersion: networking.k8s.io/v1\n", "kind: ClusterNetworkPolicy\n", "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n"} {
		write(t, dir+"/real/policy.yaml", text)
		if _, err := Read(Source{Paths: []string{dir}, PodCIDRs: cidrs}); err == nil {
			t.Errorf("a folder's policy is passed over: %s", text)
		}
	}
}

func TestNoAddressLeft(t *testing.T) {
	text := ""
	for i := range 4 {
		text += fmt.Sprintf("---\n{apiVersion: v1, kind: Pod, metadata: {name: p%d}}\n", i)
	}
	source := Source{Paths: []string{"-"}, Stdin: strings.NewReader(text), PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/30")}}
	if _, err := Read(source); err == nil || !strings.Contains(err.Error(), "give pod default/p3 an address: none is left in [10.0.0.0/30]") {
		t.Errorf("error %v", err)
	}
}

// TestAddressesOfTwoPods: an address given out again is the newer pod's, as in the kernel.
func TestAddressesOfTwoPods(t *testing.T) {
	found := mustRead(t, `
{apiVersion: v1, kind: Pod, metadata: {name: new, creationTimestamp: "2026-01-02T00:00:00Z"}, status: {podIP: 10.0.0.1}}
---
{apiVersion: v1, kind: Pod, metadata: {name: old, creationTimestamp: "2026-01-01T00:00:00Z"}, status: {podIP: 10.0.0.1}}
`)
	if len(found.Ends) != 1 || found.Ends[0].Name != "default/new" || !slices.Contains(found.Notes, "pod default/old is left out: its address is that of a newer pod") {
		t.Errorf("ends %v, notes %q", found.Ends, found.Notes)
	}
}

// TestChunks: long lists are cut where that is safe, and nothing is lost by it.
func TestChunks(t *testing.T) {
	tests := []struct {
		name, text string
		lines      []int
	}{
		{"documents", "a: b\n--- # c\nd: e\n---\n", []int{0, 1, 3}},
		{"directive", "%YAML 1.2\n---\na: b\n---\nc: d\n", []int{0}},
		{"list", "apiVersion: v1\nitems:\n- a: b\n  c: |\n    - d\n- e: f\nkind: List\nmetadata: {}\n", []int{2, 5}},
		{"list with a comment", "apiVersion: v1\nkind: List\nitems:\n# c\n- a: b\n", []int{4}},
		{"no list", "apiVersion: v1\nitems:\n- a: b\nkind: Pod\n", []int{0}},
		{"indented", "apiVersion: v1\nkind: List\nitems:\n  - a: b\n", []int{0}},
		{"anchor", "apiVersion: v1\nkind: List\nitems:\n- a: &x b\n- a: *x\n", []int{0}},
		{"dash alone", "apiVersion: v1\nkind: List\nitems:\n- a: b\n-\n  a: b\n", []int{0}},
		{"JSON", "{\"kind\": \"List\",\n\"apiVersion\": \"v1\", \"items\": [\n{}, {},\n {}]}", []int{2, 2, 3}},
		{"JSON and more", "{\"kind\": \"List\", \"apiVersion\": \"v1\", \"items\": [{}]}\n{}", []int{0, 1}},
		{"JSON and no JSON", "{\"kind\": \"List\", \"apiVersion\": \"v1\", \"items\": [{}]}\n{a: b}", []int{0}},
		{"list with items twice", "apiVersion: v1\nkind: List\nitems:\n- a: b\nitems:\n- c: d\n", []int{0}},
		{"list with its kind twice", "apiVersion: v1\nkind: List\nkind: List\nitems:\n- a: b\n", []int{0}},
		{"JSON with items twice", "{\"kind\": \"List\", \"apiVersion\": \"v1\", \"items\": [{}], \"items\": []}", []int{0}},
	}
	for _, tt := range tests {
		var lines []int
		for c := range chunks([]byte(tt.text)) {
			lines = append(lines, c.line)
		}
		if !slices.Equal(lines, tt.lines) {
			t.Errorf("%s: %v, want %v", tt.name, lines, tt.lines)
		}
	}
}

// TestNewerFields: what a newer API server may add to pods and nodes is no mistake.
func TestNewerFields(t *testing.T) {
	found := mustRead(t, "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  - {name: a}\n  - {name: b, novelty: 1}\n")
	if want := "standard input:7: there is no field Pod spec.containers[].novelty in the API that this program knows"; !slices.Contains(found.Notes, want) {
		t.Errorf("notes %q, want %q", found.Notes, want)
	}
}

// FuzzRead: no text makes Read fail otherwise than by a Mistake with a line, and what is read can be decided.
func FuzzRead(f *testing.F) {
	f.Add(everything)
	for _, file := range []string{"../../../examples/policies.yaml", "../../../deploy/kith.yaml"} {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Add("a: &a [*a]\napiVersion: v1\nkind: Pod\nmetadata: *a")
	f.Add("apiVersion: v1\nkind: List\nitems: &y [&x {apiVersion: v1, kind: List, items: [*x]}]")
	f.Add("apiVersion: v1\nkind: List\nitems: &x [{apiVersion: v1, kind: List, items: *x}]")
	f.Add("x: &x [*x]\napiVersion: v1\nkind: Pod\nmetadata: &m {name: a, <<: [*x, *m, {<<: *x}], labels: {<<: *m}}")
	f.Add("apiVersion: v1\nkind: Pod\nmetadata: {name: a, creationTimestamp: {a: *b}, ? [a] : b}\nspec: {containers: [{resources: {limits: {cpu: 1}}}]}")
	f.Fuzz(func(t *testing.T, text string) {
		found, err := read(text)
		if err != nil {
			var m *Mistake
			if errors.As(err, &m) && m.Line < 1 {
				t.Errorf("mistake without a line: %v", m)
			}
			return
		}
		for _, e := range found.Ends {
			if len(e.Addresses) == 0 {
				t.Errorf("%s has no address", e.Name)
			}
			flow := policy.Flow{Source: e.Addresses[0], Destination: found.Ends[0].Addresses[0], Protocol: identity.TCP, Port: 80}
			policy.Decide(found.Cluster, flow)
		}
	})
}

// BenchmarkRead: ten thousand pods and a thousand policies.
func BenchmarkRead(b *testing.B) {
	var text strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&text, "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: pod%d\n  namespace: ns%d\n  labels: {app: app%d, part: shop}\n", i, i%50, i/50%10)
		fmt.Fprintf(&text, "spec:\n  nodeName: node%d\n  containers:\n  - name: main\n    image: example.com/app:v1\n    ports:\n    - {name: http, containerPort: 8080}\n", i%100)
		fmt.Fprintf(&text, "status:\n  phase: Running\n  podIP: 10.244.%d.%d\n", i/200, i%200+2)
	}
	for i := range 1_000 {
		fmt.Fprintf(&text, "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p%d, namespace: ns%d}\n", i, i%50)
		fmt.Fprintf(&text, "spec:\n  podSelector: {matchLabels: {app: app%d}}\n  ingress:\n  - from: [{podSelector: {matchLabels: {app: app%d}}}]\n", i/50%10, i%10)
	}
	b.SetBytes(int64(text.Len()))
	for b.Loop() {
		found, err := read(text.String())
		if err != nil || len(found.Ends) != 10_000 || len(found.Cluster.Policies) != 1_000 {
			b.Fatal(len(found.Ends), err)
		}
	}
}

// TestNamespace: what names no namespace is in that of -n, or else in default, which is told where not all is there.
func TestNamespace(t *testing.T) {
	const here, elsewhere = "{apiVersion: v1, kind: Pod, metadata: {name: a}}\n---\n", "{apiVersion: v1, kind: Pod, metadata: {name: b, namespace: m}}\n"
	const note = "objects without metadata.namespace, taken as in namespace default (-n): 1"
	for _, tt := range []struct {
		text, namespace, pod string
		told                 bool
	}{
		{here, "", "default/a", false}, {here + elsewhere, "", "default/a", true}, {here + elsewhere, "z", "z/a", false},
	} {
		found, err := Read(Source{Paths: []string{"-"}, Stdin: strings.NewReader(tt.text), PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}, Namespace: tt.namespace})
		if err != nil {
			t.Fatal(err)
		}
		named := slices.ContainsFunc(found.Ends, func(e matrix.End) bool { return e.Name == tt.pod })
		if told := slices.Contains(found.Notes, note); !named || told != tt.told {
			t.Errorf("-n %q: ends %v, notes %q", tt.namespace, found.Ends, found.Notes)
		}
	}
}

// TestIdlePolicies: a policy that holds for nobody is told, as its selector or namespace may be mistyped.
func TestIdlePolicies(t *testing.T) {
	policy := func(namespace, name, selector string) string {
		return fmt.Sprintf("---\n{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: %s, name: %s}, spec: {podSelector: {matchLabels: {%s}}}}\n", namespace, name, selector)
	}
	found := mustRead(t, "{apiVersion: v1, kind: Namespace, metadata: {name: m}}\n---\n{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: z, labels: {app: a}}}\n---\n"+
		"{apiVersion: v1, kind: Pod, metadata: {name: h, namespace: z, labels: {app: h}}, spec: {hostNetwork: true}}\n"+
		policy("z", "holds", "app: a")+policy("z", "none", "app: b")+policy("z", "node", "app: h")+policy("m", "empty", "")+policy("o", "nowhere", "app: a")+
		"---\n{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: c}, spec: {tier: Admin, priority: 1, subject: {namespaces: {matchLabels: {a: b}}}}}\n")
	for _, want := range []string{"policies whose namespace neither a Namespace nor a pod here has: o/nowhere", "policies that select no pod here: c, m/empty, z/node, z/none"} {
		if !slices.Contains(found.Notes, want) {
			t.Errorf("notes %q lack %q", found.Notes, want)
		}
	}
}
