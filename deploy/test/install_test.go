package deploytest

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	common4 "helm.sh/helm/v4/pkg/chart/common"
	util4 "helm.sh/helm/v4/pkg/chart/common/util"
	lint4 "helm.sh/helm/v4/pkg/chart/v2/lint"
	support4 "helm.sh/helm/v4/pkg/chart/v2/lint/support"
	loader4 "helm.sh/helm/v4/pkg/chart/v2/loader"
	engine4 "helm.sh/helm/v4/pkg/engine"
)

// k3s are the folders of k3s' own container runtime.
func k3s() map[string]any {
	return map[string]any{"config": map[string]any{
		"cni":      map[string]any{"binDir": "/var/lib/rancher/k3s/data/cni", "confDir": "/var/lib/rancher/k3s/agent/etc/cni/net.d"},
		"stateDir": "/srv/kith", "runDir": "/run/kith-k3s",
	}}
}

func joined(files map[string]string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(files)) {
		b.WriteString(files[name])
	}
	return b.String()
}

// TestFoldersFollowTheValues: who names other folders gets them mounted, and the default ones are named nowhere.
func TestFoldersFollowTheValues(t *testing.T) {
	text := joined(release(t, homeNamespace, k3s()))
	for _, path := range []string{"/opt/cni/bin", "/etc/cni/net.d", "/var/lib/kith", "/run/kith/"} {
		without := strings.ReplaceAll(text, "/var/lib/rancher/k3s/agent/etc/cni/net.d", "")
		if i := strings.Index(without, path); i >= 0 {
			t.Errorf("%s is still there: …%s…", path, without[max(i-80, 0):min(i+80, len(without))])
		}
	}
	spec := daemonSet(t, text)
	paths := map[string]string{}
	for _, v := range spec["volumes"].([]any) {
		volume := v.(map[string]any)
		if host, ok := volume["hostPath"].(map[string]any); ok {
			paths[volume["name"].(string)] = host["path"].(string)
		}
	}
	want := map[string]string{
		"cni-bin": "/var/lib/rancher/k3s/data/cni", "cni-conf": "/var/lib/rancher/k3s/agent/etc/cni/net.d", "state": "/srv/kith",
		"run": "/run/kith-k3s", "wireguard": "/run/kith-k3s/wireguard", "netns": "/run/netns", "sysctl": "/proc/sys/net", "tun": "/dev/net",
	}
	if diff := cmp.Diff(want, paths); diff != "" {
		t.Errorf("mounted from the node (-want +got):\n%s", diff)
	}
	// The agent finds each folder under the name that the configuration has.
	for _, c := range slices.Concat(spec["initContainers"].([]any), spec["containers"].([]any)) {
		for _, m := range c.(map[string]any)["volumeMounts"].([]any) {
			mount := m.(map[string]any)
			name := mount["name"].(string)
			if slices.Contains([]string{"cni-bin", "cni-conf", "state", "run"}, name) && mount["mountPath"] != want[name] {
				t.Errorf("container %s has %s at %s", c.(map[string]any)["name"], name, mount["mountPath"])
			}
		}
	}
}

func daemonSet(t *testing.T, text string) map[string]any {
	t.Helper()
	at := strings.Index(text, "apiVersion: apps/v1\nkind: DaemonSet\n")
	document, _, _ := strings.Cut(text[at:], "\n---\n")
	// The files are joined in the order of their names: what comes behind the DaemonSet begins with a comment or a kind.
	document, _, _ = strings.Cut(document, "\napiVersion: ")
	var object struct {
		Spec struct {
			Template struct{ Spec map[string]any }
		}
	}
	if err := yaml.Unmarshal([]byte(document), &object); err != nil {
		t.Fatal(err)
	}
	return object.Spec.Template.Spec
}

// TestAnyNamespace: Kith in another namespace is there whole, with its rights and the policies that name its agents, and
// does not make a namespace that Helm has made.
func TestAnyNamespace(t *testing.T) {
	files := release(t, "network", nil)
	text := joined(files)
	if i := strings.Index(text, homeNamespace); i >= 0 {
		t.Errorf("the chart in another namespace still has %s: …%s…", homeNamespace, text[max(i-80, 0):min(i+80, len(text))])
	}
	for _, want := range []string{"system:serviceaccount:network:kith", "object.metadata.namespace == 'network'", "    namespace: network\n", "-n network rollout status"} {
		if !strings.Contains(text, want) {
			t.Errorf("the chart in another namespace lacks %s", want)
		}
	}
	if strings.Contains(text, "kind: Namespace\n") {
		t.Error("the chart makes a namespace that helm install --create-namespace has made")
	}
	delete(files, "kith/templates/NOTES.txt")
	for _, m := range regexp.MustCompile(`(?m)^  namespace: (.*)$`).FindAllStringSubmatch(joined(files), -1) {
		if !slices.Contains([]string{"network", "kube-system", "default"}, m[1]) {
			t.Errorf("an object is in namespace %s", m[1])
		}
	}
}

// TestConfigurationRollsThePods: another configuration is another pod template, and nothing else is.
func TestConfigurationRollsThePods(t *testing.T) {
	sum := func(values map[string]any) string {
		return regexp.MustCompile(`checksum/config: [0-9a-f]{64}\n`).FindString(release(t, homeNamespace, values)["kith/templates/daemonset.yaml"])
	}
	debug := map[string]any{"config": map[string]any{"logLevel": "debug"}}
	if sum(nil) == "" || sum(nil) == sum(debug) || sum(debug) != sum(map[string]any{"config": debug["config"], "maxUnavailable": 1}) {
		t.Errorf("default: %q, debug: %q", sum(nil), sum(debug))
	}
}

// TestLabels: every object bears the labels by which tools know what it belongs to. The definition is upstream's, and may be
// used by others.
func TestLabels(t *testing.T) {
	files := release(t, homeNamespace, map[string]any{"createNamespace": true, "mirrorPodNamespaces": []any{"kube-system"}})
	for _, name := range slices.DeleteFunc(slices.Clone(templates[:]), func(name string) bool { return name == "definition.yaml" }) {
		for id, o := range objects(t, files["kith/templates/"+name]) {
			labels, _ := o.(map[string]any)["metadata"].(map[string]any)["labels"].(map[string]any)
			for _, label := range []string{"app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/version",
				"app.kubernetes.io/component", "app.kubernetes.io/part-of", "app.kubernetes.io/managed-by", "helm.sh/chart"} {
				if labels[label] == nil {
					t.Errorf("%s has no label %s", id, label)
				}
			}
		}
	}
}

// TestSELinux: the pod, and so each of its containers, has a type that may touch the node.
func TestSELinux(t *testing.T) {
	spec := objects(t, read(t, manifest))["DaemonSet kith-system/kith"].(map[string]any)["spec"].(map[string]any)["template"].(map[string]any)["spec"].(map[string]any)
	options, _ := spec["securityContext"].(map[string]any)["seLinuxOptions"].(map[string]any)
	if options["type"] != "spc_t" {
		t.Errorf("the pod's SELinux options are %v", options)
	}
	for _, c := range slices.Concat(spec["initContainers"].([]any), spec["containers"].([]any)) {
		container := c.(map[string]any)
		if container["securityContext"].(map[string]any)["seLinuxOptions"] != nil {
			t.Errorf("container %s has SELinux options of its own", container["name"])
		}
	}
}

// TestPrivilegedWireGuard: wireguard-go alone is privileged, and only where the values say so.
func TestPrivilegedWireGuard(t *testing.T) {
	text := joined(release(t, homeNamespace, map[string]any{"userspaceWireGuard": map[string]any{"privileged": true}}))
	for _, c := range daemonSet(t, text)["containers"].([]any) {
		container := c.(map[string]any)
		privileged := container["securityContext"].(map[string]any)["privileged"] == true
		if privileged != (container["name"] == "wireguard") {
			t.Errorf("container %s: privileged is %t", container["name"], privileged)
		}
	}
}

// TestLint: neither Helm 3 nor Helm 4 finds anything to say of the chart.
func TestLint(t *testing.T) {
	for _, m := range lint.All("../helm/kith", nil, "network", true).Messages {
		if m.Severity > support.InfoSev {
			t.Errorf("helm 3: %v", m)
		}
	}
	for _, m := range lint4.RunAll("../helm/kith", nil, "network").Messages {
		if m.Severity > support4.InfoSev {
			t.Errorf("helm 4: %v", m)
		}
	}
}

// TestBothHelms: Helm 4 makes of the chart what Helm 3 makes, and refuses what it refuses.
func TestBothHelms(t *testing.T) {
	chart, err := loader4.Load("../helm/kith")
	if err != nil {
		t.Fatal(err)
	}
	options := common4.ReleaseOptions{Name: "kith", Namespace: "network", Revision: 1, IsInstall: true}
	for _, values := range []map[string]any{nil, k3s(), {"mirrorPodNamespaces": []any{"kube-system"}}} {
		all, err := util4.ToRenderValues(chart, values, options, common4.DefaultCapabilities)
		if err != nil {
			t.Fatal(err)
		}
		got, err := engine4.Render(chart, all)
		if err != nil {
			t.Fatal(err)
		}
		want := release(t, "network", values)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%v (-helm3 +helm4):\n%s", values, diff)
		}
	}
	if _, err := util4.ToRenderValues(chart, map[string]any{"imge": 1}, options, common4.DefaultCapabilities); err == nil {
		t.Error("helm 4 takes an unknown value")
	}
}

// TestSchemaKnowsAllValues: the schema takes each value of the chart and each key of the configuration, and no other.
func TestSchemaKnowsAllValues(t *testing.T) {
	chart, err := loader.Load("../helm/kith")
	if err != nil {
		t.Fatal(err)
	}
	accepts := func(values map[string]any) error {
		_, err := chartutil.ToRenderValues(chart, values, chartutil.ReleaseOptions{}, nil)
		return err
	}
	shipped, err := os.ReadFile("../helm/kith/files/kith.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var config map[string]any
	active := regexp.MustCompile(`(?m)^( *)#([a-zA-Z])`).ReplaceAllString(string(shipped), "$1$2")
	if err := yaml.Unmarshal([]byte(active), &config); err != nil {
		t.Fatal(err)
	}
	if err := accepts(map[string]any{"config": config}); err != nil {
		t.Errorf("every key of the configuration with its default: %v", err)
	}
	unknown(t, nil, chart.Values, accepts)
	unknown(t, []string{"config"}, config, accepts)
}

// unknown holds that a key more, in any of the tables, is refused. Amounts of resources have names that are not ours.
func unknown(t *testing.T, above []string, table map[string]any, accepts func(map[string]any) error) {
	t.Helper()
	if n := len(above); n > 0 && (above[n-1] == "requests" || above[n-1] == "limits") {
		return
	}
	values := map[string]any{"typo": 1}
	for _, name := range slices.Backward(above) {
		values = map[string]any{name: values}
	}
	if accepts(values) == nil {
		t.Errorf("%s: no error", strings.Join(append(slices.Clone(above), "typo"), "."))
	}
	for name, value := range table {
		if below, ok := value.(map[string]any); ok {
			unknown(t, append(slices.Clone(above), name), below, accepts)
		}
	}
}

// TestInstallPages: the values on each distribution's page are values that the chart takes, and the folders that a page names
// are those that the chart mounts with them.
func TestInstallPages(t *testing.T) {
	pages, err := filepath.Glob("../../docs/install/*.md")
	if err != nil || len(pages) < 8 {
		t.Fatalf("%d pages: %v", len(pages), err)
	}
	blocks := 0
	for _, page := range pages {
		for _, block := range regexp.MustCompile(`(?m)^    config:\n(?:     .*\n)+`).FindAllString(read(t, page), -1) {
			blocks++
			var values map[string]any
			if err := yaml.Unmarshal([]byte(block), &values); err != nil {
				t.Fatalf("%s: %v", page, err)
			}
			text := joined(release(t, homeNamespace, values))
			folders, _ := values["config"].(map[string]any)["cni"].(map[string]any)
			without := text
			for key, folder := range folders {
				if want := fmt.Sprintf("hostPath: {path: %q,", folder); !strings.Contains(text, want) {
					t.Errorf("%s: %s is not mounted: no %s", page, key, want)
				}
				without = strings.ReplaceAll(without, folder.(string), "")
			}
			if left := strings.Contains(without, "/opt/cni/bin") || strings.Contains(without, "/etc/cni/net.d"); folders != nil && left {
				t.Errorf("%s: the default folder is still named", page)
			}
		}
	}
	if blocks < 5 {
		t.Errorf("the pages have %d blocks of values", blocks)
	}
}
