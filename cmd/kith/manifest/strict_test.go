package manifest

import (
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestAllMistakes: these are refused, each mistake with its line, and nothing else is said.
func TestAllMistakes(t *testing.T) {
	const np = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: m}\nspec:\n"
	const cnp = "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: p}\nspec:\n  tier: Admin\n  priority: 1\n"
	const config = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n"
	const block = np + "  podSelector: {}\n  ingress:\n  - from:\n    - ipBlock:\n        cidr: 10.0.0.0/8\n        except:\n"
	tests := []struct {
		name, text string
		want       []string
	}{
		{"a forgotten ---", config + np + "  podSelector: {}\n", []string{
			":4: ConfigMap c: apiVersion: is given already in line 1: is a --- missing between two objects?",
			":5: ConfigMap c: kind: is given already in line 2: is a --- missing between two objects?",
			":6: ConfigMap c: metadata: is given already in line 3: is a --- missing between two objects?"}},
		{"deep in a kind that is passed over", "---\n" + config + "data: {a: {b: [{c: 1, c: 2}]}}\n", []string{":5: ConfigMap c: data.a.b[0].c: is given already in line 5"}},
		{"a list with items twice", "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Pod, metadata: {name: a}}\nitems:\n- {apiVersion: v1, kind: Pod, metadata: {name: b}}\n", []string{":5: List: items: is given already in line 3"}},
		{"a list with items twice, in JSON", `{"apiVersion": "v1", "kind": "List", "items": [], "items": []}`, []string{":1: List: items: is given already in line 1"}},
		{"an object of a list", "apiVersion: v1\nkind: List\nitems:\n- " + strings.ReplaceAll(config, "\n", "\n  ") + "kind: X\n", []string{":7: ConfigMap c: kind: is given already in line 5: is a --- missing between two objects?"}},
		{"an object of a list that is not cut", "apiVersion: v1\nkind: List\nitems:\n  - {kind: X, apiVersion: v1, data: 1, data: 2}\n", []string{":4: X: data: is given already in line 4"}},
		{"keys that are one", np + "  podSelector: {matchLabels: {on: a, true: b}}\n", []string{":5: NetworkPolicy m/p: spec.podSelector.matchLabels.true: is given already in line 5"}},
		{"a kind with a small letter", "apiVersion: networking.k8s.io/v1\nkind: Networkpolicy\nmetadata: {name: p}\n", []string{":1: Networkpolicy: apiVersion: networking.k8s.io/v1 Networkpolicy is not a policy that Kith knows: " + knownPolicies}},
		{"a kind with a letter more", "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicys\n", []string{":1: NetworkPolicys: apiVersion: networking.k8s.io/v1 NetworkPolicys is not a policy that Kith knows: " + knownPolicies}},
		{"a kind in a list", "apiVersion: networking.k8s.io/v1\nkind: NetworkpolicyList\nitems:\n- metadata: {name: p}\n", []string{":4: Networkpolicy: apiVersion: networking.k8s.io/v1 Networkpolicy is not a policy that Kith knows: " + knownPolicies}},
		{"a list of item", "apiVersion: v1\nkind: List\nitem:\n- {kind: Pod}\n", []string{":1: items: is missing"}},
		{"a list of policies of item", "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicyList\nitem: []\n", []string{":1: items: is missing"}},
		{"no kind", "spec: {podSelector: {}}\n", []string{":1: kind: is missing"}},
		{"a template", np + "  podSelector: {matchLabels: {app: '{{ .Values.app }}'}}\n", []string{":1: " + templateProblem}},
		{"a template without quotes", np + "  podSelector: {matchLabels: {app: {{ .Values.app }}}}\n", []string{":1: " + templateProblem}},
		{"a template that is no YAML", "{{- if .Values.on }}\n" + np + "{{- end }}\n", []string{":1: " + templateProblem}},
		{"a kustomization by its kind", "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [a.yaml]\n", []string{":1: is a kustomization, which must be rendered first: kubectl kustomize . | kith policy … -f -"}},
		{"a direction that is left out", np + "  podSelector: {}\n  policyTypes: [Ingress]\n  egress:\n  - ports:\n    - port: 70000\n", []string{":9: NetworkPolicy m/p: spec.egress[0].ports[0].port: 70000 is not a port; use 1 to 65535"}},
		{"except that is all", block + "        - 10.0.0.0/8\n", []string{":11: NetworkPolicy m/p: spec.ingress[0].from[0].ipBlock.except[0]: 10.0.0.0/8 is the whole of cidr: name a part of it, or leave the ipBlock out"}},
		{"bits of a host", strings.Replace(block, "10.0.0.0", "10.0.0.1", 1) + "        - 10.1.2.3/16\n", []string{
			":9: NetworkPolicy m/p: spec.ingress[0].from[0].ipBlock.cidr: 10.0.0.1/8 would be all of 10.0.0.0/8: write that, or 10.0.0.1/32 for the one address",
			":11: NetworkPolicy m/p: spec.ingress[0].from[0].ipBlock.except[0]: 10.1.2.3/16 would be all of 10.1.0.0/16: write that, or 10.1.2.3/32 for the one address"}},
		{"three types", np + "  podSelector: {}\n  policyTypes: [Ingress, Egress, Ingress]\n", []string{":6: NetworkPolicy m/p: spec.policyTypes: has 3 entries, at most 2"}},
		{"null in a cluster's", cnp + "  subject: {namespaces: {}}\n  ingress: null\n  egress:\n  - {action: Deny, to: [{nodes: {}}], name: ~, protocols: null}\n", []string{
			":8: ClusterNetworkPolicy p: spec.ingress: is null, which the API refuses: leave the field out, or give it a value",
			":10: ClusterNetworkPolicy p: spec.egress[0].name: is null, which the API refuses: leave the field out, or give it a value",
			":10: ClusterNetworkPolicy p: spec.egress[0].protocols: is null, which the API refuses: leave the field out, or give it a value"}},
		{"several", np + "  podselector: {}\n  policyTypes:\n  - Ingres\n  ingress:\n  - from: [{ipBlock: {cidr: x}}]\n    ports: [{port: 0}, {port: http_x}, {protocol: tcp}]\n", []string{
			":5: NetworkPolicy m/p: spec.podselector: there is no such field; did you mean podSelector?",
			`:7: NetworkPolicy m/p: spec.policyTypes[0]: "Ingres" is not a policy type: both directions are isolated; use Ingress or Egress`,
			`:9: NetworkPolicy m/p: spec.ingress[0].from[0].ipBlock.cidr: "x" is not an address range; write an address range like 10.0.0.0/8 or fd00::/8`,
			":10: NetworkPolicy m/p: spec.ingress[0].ports[0].port: 0 is not a port; use 1 to 65535",
			`:10: NetworkPolicy m/p: spec.ingress[0].ports[1].port: "http_x" is no port's name: must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-); give a number, or a name`,
			`:10: NetworkPolicy m/p: spec.ingress[0].ports[2].protocol: "tcp" is not a protocol that a policy can name; use TCP, UDP or SCTP`}},
		{"several in a cluster's", cnp + "  ingress:\n  - action: Allow\n    from: [{namespaces: {matchLabels: {a: 1}}}]\n  - {action: Deny, from: []}\n", []string{
			":9: ClusterNetworkPolicy p: spec.ingress[0].from[0].namespaces.matchLabels.a: is the number 1, want text: write it in quotes",
			":4: ClusterNetworkPolicy p: spec.subject: is missing",
			`:8: ClusterNetworkPolicy p: spec.ingress[0].action: "Allow" is not an action; use Accept, Deny or Pass`,
			":10: ClusterNetworkPolicy p: spec.ingress[1].from: the list is empty; name who is meant"}},
		{"the line of a selector's mistake", np + "  podSelector:\n    matchLabels:\n      a: b\n      example.com/c.d: e f\n", []string{":8: NetworkPolicy m/p: spec.podSelector.matchLabels.example.com/c.d: "}},
		{"a name that is a number", "apiVersion: v1\nkind: Pod\nmetadata:\n  name: 123\n", []string{":4: Pod: metadata.name: is the number 123, want text: write it in quotes"}},
		{"a time", "apiVersion: v1\nkind: Pod\nmetadata: {name: a, creationTimestamp: soon}\n", []string{`:3: Pod a: metadata.creationTimestamp: is "soon", want a time like 2026-01-31T12:00:00Z`}},
		{"a port", np + "  podSelector: {}\n  ingress:\n  - ports: [{port: [80]}]\n", []string{":7: NetworkPolicy m/p: spec.ingress[0].ports[0].port: is a list, want a number, or a name in quotes"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := read(tt.text)
			if err == nil {
				t.Fatal("is taken")
			}
			got := strings.Split(err.Error(), "\n")
			same := slices.EqualFunc(got, tt.want, func(got, want string) bool { return strings.HasPrefix(got, "standard input"+want) })
			if !same {
				t.Errorf("%d mistakes, want %d:\n%s\nwant\n%s", len(got), len(tt.want), err, strings.Join(tt.want, "\n"))
			}
		})
	}
}

// TestTaken: these are read as kubectl reads them, and a note says what is worth knowing.
func TestTaken(t *testing.T) {
	const deny = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: deny, namespace: a}, spec: {podSelector: {}, policyTypes: [Ingress], egress: [{}]}}\n"
	const pod = `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "a"}}` + "\n"
	cluster := func(name, priority, action string) string {
		return "---\n{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: " + name + "}, spec: {tier: Admin, priority: " + priority + ", subject: {namespaces: {}}, ingress: [{action: " + action + ", from: [{namespaces: {}}]}]}}\n"
	}
	const open = "policies of one tier and priority that act differently on a pod here: the API leaves open which is asked first, Kith asks by name: "
	tests := []struct{ name, text, note, not string }{
		{"rules of no effect", pod + "---\n" + deny, "rules of a direction that their policy's policyTypes leave out, without effect: Egress of a/deny", ""},
		{"one object twice", pod + "---\n" + deny + "---\n" + pod + "---\n{kind: Pod, metadata: {namespace: a, name: p}, apiVersion: v1}\n", "objects that are here more than once, the same to the letter, taken once: 2", ""},
		{"JSON, one after the other", pod + pod + strings.ReplaceAll(pod, `"p"`, `"q"`), "objects that are here more than once, the same to the letter, taken once: 1", ""},
		{"kinds passed over", pod + "---\n{apiVersion: v1, kind: Secret}\n---\n{apiVersion: v1, kind: Secret}\n---\n{apiVersion: v1, kind: ConfigMap}\n", "passed over, as no policy looks at them: ConfigMap 1, Secret 2", ""},
		{"templates of others", pod + "---\n{apiVersion: v1, kind: ConfigMap, data: {a: '{{ .Values.x }}'}}\n---\n{apiVersion: v1, kind: Pod, metadata: {name: q, namespace: a, annotations: {a: '{{ $labels.pod }}'}}}\n", "passed over, as no policy looks at them: ConfigMap 1", ""},
		{"contradiction", pod + cluster("x", "1", "Deny") + cluster("z", "1", "Accept"), open + "x and z", ""},
		{"other priorities", pod + cluster("x", "1", "Deny") + cluster("z", "2", "Accept"), "", open},
		{"the same action", pod + cluster("x", "1", "Deny") + cluster("z", "1", "Deny"), "", open},
		{"a byte order mark", "\ufeff---\n" + pod, "", "passed over"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			found := mustRead(t, tt.text)
			if len(found.Ends) == 0 || tt.note != "" && !slices.Contains(found.Notes, tt.note) {
				t.Errorf("ends %v, notes %q, want %q", found.Ends, found.Notes, tt.note)
			}
			if tt.not != "" && strings.Contains(strings.Join(found.Notes, "\n"), tt.not) {
				t.Errorf("notes %q", found.Notes)
			}
		})
	}
}

// TestOldKeys: keys are text as YAML 1.1 and kubectl make it.
func TestOldKeys(t *testing.T) {
	found := mustRead(t, "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  labels: {on: '1', n: '2', 010: '3', 1.50: '4', \"off\": '5', yEs: '6', 0x1F: '7'}\n")
	want := map[string]string{"true": "1", "false": "2", "8": "3", "1.5": "4", "off": "5", "yEs": "6", "31": "7"}
	if got := found.Ends[0].Labels; len(got) != len(want) {
		t.Errorf("labels %v, want %v", got, want)
	}
	for key, value := range want {
		if found.Ends[0].Labels[key] != value {
			t.Errorf("labels %v, want %v", found.Ends[0].Labels, want)
		}
	}
}

// TestToRender: what has to be rendered first is refused, with the command that does.
func TestToRender(t *testing.T) {
	const pod = "{apiVersion: v1, kind: Pod, metadata: {name: a}}\n"
	dir := t.TempDir()
	for file, text := range map[string]string{
		"plain/pod.yaml":            pod,
		"plain/Chart.yaml":          "apiVersion: v2\nname: no-templates\n",
		"over/pod.yaml":             pod,
		"over/kustomization.yaml":   "namespace: b\nresources: [pod.yaml]\n",
		"deep/x/Kustomization":      "resources: [pod.yaml]\n",
		"deep/x/pod.yaml":           pod,
		"charts/c/Chart.yaml":       "apiVersion: v2\nname: c\n",
		"charts/c/templates/a.yaml": "{{ if .Values.a }}\n" + pod + "{{ end }}\n",
		"charts/pod.yaml":           pod,
	} {
		write(t, filepath.Join(dir, file), text)
	}
	for path, want := range map[string]string{
		"plain":                   "",
		"over/pod.yaml":           "", // who names a file means it as it is
		"over":                    "over/kustomization.yaml:1: is a kustomization, which must be rendered first: kubectl kustomize DIR/over | kith policy … -f -",
		"over/kustomization.yaml": "over/kustomization.yaml:1: is a kustomization, which must be rendered first: kubectl kustomize DIR/over | kith policy … -f -",
		"deep":                    "deep/x/Kustomization:1: is a kustomization, which must be rendered first: kubectl kustomize DIR/deep/x | kith policy … -f -",
		"charts":                  "charts/c/Chart.yaml:1: is a Helm chart, which must be rendered first: helm template DIR/charts/c | kith policy … -f -",
		"charts/c":                "charts/c/Chart.yaml:1: is a Helm chart, which must be rendered first: helm template DIR/charts/c | kith policy … -f -",
		"charts/c/templates":      "charts/c/templates/a.yaml:1: " + templateProblem,
	} {
		_, err := Read(Source{Paths: []string{filepath.Join(dir, path)}, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}})
		got := ""
		if err != nil {
			got = strings.TrimPrefix(strings.ReplaceAll(err.Error(), dir, "DIR"), "DIR/")
		}
		if got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}
