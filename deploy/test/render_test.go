package deploytest

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

var update = flag.Bool("update", false, "write deploy/kith.yaml from the chart")

const (
	manifest = "../kith.yaml"
	header   = "# Everything Kith needs in a cluster: kubectl apply -f kith.yaml\n" +
		"# Made from the chart helm/kith with its default values by `make generate`; edit the chart.\n"
	// homeNamespace is where the manifest puts Kith.
	homeNamespace = "kith-system"
)

// templates in the order in which they are applied.
var templates = [...]string{"definition.yaml", "namespace.yaml", "rbac.yaml", "admission.yaml", "mirrorpods.yaml", "configmap.yaml", "daemonset.yaml"}

// release renders the chart as a release named kith in a namespace, by file.
func release(t *testing.T, namespace string, values map[string]any) map[string]string {
	t.Helper()
	chart, all := render(t, namespace, values)
	files, err := engine.Render(chart, all)
	if err != nil {
		t.Fatal(err)
	}
	if len(chart.CRDObjects()) > 0 {
		t.Error("the chart has a folder crds, which Helm never upgrades")
	}
	return files
}

// helm renders the chart as the manifest is made of it, in its namespace and with that, and joins its definitions and
// templates to one file. What says that Helm manages an object is left out.
func helm(t *testing.T, values map[string]any) string {
	t.Helper()
	values = maps.Clone(values)
	if values == nil {
		values = map[string]any{}
	}
	values["createNamespace"] = true
	files := release(t, homeNamespace, values)
	// NOTES.txt is there besides.
	if len(files) != len(templates)+1 {
		t.Errorf("the chart has %d templates, this test knows %d", len(files)-1, len(templates))
	}
	var parts []string
	for _, name := range templates {
		if text := strings.TrimSpace(files[path.Join("kith/templates", name)]); text != "" {
			parts = append(parts, text+"\n")
		}
	}
	return regexp.MustCompile(`(?m)^ +(helm\.sh/chart|app\.kubernetes\.io/managed-by): .*\n`).ReplaceAllString(strings.Join(parts, "---\n"), "")
}

// render has the chart, and the values that its templates see.
func render(t *testing.T, namespace string, values map[string]any) (*chart.Chart, chartutil.Values) {
	t.Helper()
	loaded, err := loader.Load("../helm/kith")
	if err != nil {
		t.Fatal(err)
	}
	options := chartutil.ReleaseOptions{Name: "kith", Namespace: namespace, Revision: 1, IsInstall: true}
	all, err := chartutil.ToRenderValues(loaded, values, options, chartutil.DefaultCapabilities)
	if err != nil {
		t.Fatal(err)
	}
	return loaded, all
}

// kustomize builds the kustomization in the folder.
func kustomize(t *testing.T, folder string) string {
	t.Helper()
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), folder)
	if err != nil {
		t.Fatal(err)
	}
	text, err := built.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// objects are the documents of a file by kind, namespace and name.
func objects(t *testing.T, text string) map[string]any {
	t.Helper()
	all := map[string]any{}
	dec := yaml.NewDecoder(strings.NewReader(text))
	for {
		var o struct {
			Kind     string
			Metadata struct{ Namespace, Name string }
		}
		var node yaml.Node
		if err := dec.Decode(&node); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		var whole map[string]any
		if err := errors.Join(node.Decode(&o), node.Decode(&whole)); err != nil {
			t.Fatal(err)
		}
		id := fmt.Sprintf("%s %s/%s", o.Kind, o.Metadata.Namespace, o.Metadata.Name)
		if _, twice := all[id]; twice {
			t.Errorf("%s is there twice", id)
		}
		all[id] = whole
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestManifestIsTheChart: kubectl apply -f, kustomize and Helm install the same objects.
func TestManifestIsTheChart(t *testing.T) {
	want := header + helm(t, nil)
	if *update {
		if err := os.WriteFile(manifest, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got := read(t, manifest)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("kith.yaml differs from the chart, run make generate (-chart +file):\n%s", diff)
	}
	if diff := cmp.Diff(objects(t, got), objects(t, kustomize(t, ".."))); diff != "" {
		t.Errorf("kustomize (-file +kustomize):\n%s", diff)
	}
}

// TestOverlayAndValuesAgree: the same change made the kustomize and the Helm way gives the same objects.
func TestOverlayAndValuesAgree(t *testing.T) {
	values := map[string]any{}
	if err := yaml.Unmarshal([]byte(read(t, "../../examples/install/values.yaml")), &values); err != nil {
		t.Fatal(err)
	}
	chart, overlay := objects(t, helm(t, values)), objects(t, kustomize(t, "../../examples/install"))
	for _, all := range []map[string]any{chart, overlay} {
		// The two differ in the comments of the configuration's text, not in what it says.
		data := all["ConfigMap kith-system/kith"].(map[string]any)["data"].(map[string]any)
		var config map[string]any
		if err := yaml.Unmarshal([]byte(data["kith.yaml"].(string)), &config); err != nil {
			t.Fatal(err)
		}
		data["kith.yaml"] = config
		// kustomize does not know that the pods depend on the configuration: who changes it starts them again.
		template := all["DaemonSet kith-system/kith"].(map[string]any)["spec"].(map[string]any)["template"].(map[string]any)
		delete(template["metadata"].(map[string]any)["annotations"].(map[string]any), "checksum/config")
	}
	if diff := cmp.Diff(chart, overlay); diff != "" {
		t.Errorf("example (-helm +kustomize):\n%s", diff)
	}
	if diff := cmp.Diff(objects(t, helm(t, nil)), chart); diff == "" {
		t.Error("the example changes nothing")
	}
}

// TestMirrorPods: only who names namespaces gets the policy that keeps kubelets' pods in them.
func TestMirrorPods(t *testing.T) {
	const name = "kith-mirror-pods"
	if strings.Contains(helm(t, nil), name) {
		t.Errorf("%s is there without a namespace", name)
	}
	chart := objects(t, helm(t, map[string]any{"mirrorPodNamespaces": []any{"kube-system", "edge"}}))
	if chart["ValidatingAdmissionPolicyBinding /"+name] == nil {
		t.Error("nothing binds the policy")
	}
	text := fmt.Sprint(chart["ValidatingAdmissionPolicy /"+name])
	if want := `request.namespace in ["kube-system","edge"]`; !strings.Contains(text, want) {
		t.Errorf("the policy lacks %s: %s", want, text)
	}
}

// TestProbesFollowTheirPort: who moves the agent's port for probes moves the probes.
func TestProbesFollowTheirPort(t *testing.T) {
	text := helm(t, map[string]any{"config": map[string]any{"health": map[string]any{"port": 7000}}})
	for _, want := range []string{
		"httpGet: {host: 127.0.0.1, port: 7000, path: /readyz}", "httpGet: {host: 127.0.0.1, port: 7000, path: /livez}", "health:\n      port: 7000",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the chart with another port for probes lacks %q", want)
		}
	}
}

func TestChartRefusesUnknownValues(t *testing.T) {
	chart, err := loader.Load("../helm/kith")
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"imge: {}", "image: {repo: x}", "image: {pullPolicy: sometimes}", "image: {digest: latest}",
		"image: {digest: sha256:0f}", "config: 3", "resources: {agnt: {}}", "mirrorPodNamespaces: ['a\"] || true']", "mirrorPodNamespaces: kube-system"} {
		values := map[string]any{}
		if err := yaml.Unmarshal([]byte(text), &values); err != nil {
			t.Fatal(err)
		}
		if _, err := chartutil.ToRenderValues(chart, values, chartutil.ReleaseOptions{}, nil); err == nil {
			t.Errorf("%s: no error", text)
		}
	}
}

// TestContainersKnowTheirMemory: each container that runs on has a memory limit, and is told it: a heap that does not know of it
// grows until the kernel ends the process.
func TestContainersKnowTheirMemory(t *testing.T) {
	spec := objects(t, read(t, manifest))["DaemonSet kith-system/kith"].(map[string]any)["spec"].(map[string]any)
	containers := spec["template"].(map[string]any)["spec"].(map[string]any)["containers"].([]any)
	for _, c := range containers {
		container := c.(map[string]any)
		limits, _ := container["resources"].(map[string]any)["limits"].(map[string]any)
		if limits["memory"] == nil {
			t.Errorf("container %s has no memory limit", container["name"])
		}
		told := fmt.Sprint(container["env"])
		if want := fmt.Sprintf("map[containerName:%s resource:limits.memory]", container["name"]); !strings.Contains(told, want) {
			t.Errorf("container %s is not told its memory limit: %s", container["name"], told)
		}
	}
	if len(containers) != 2 {
		t.Errorf("%d containers", len(containers))
	}
}

// TestImageByDigest: who names the image's digest gets that image in every container, and no other by the same tag.
func TestImageByDigest(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0f", 32)
	text := helm(t, map[string]any{"image": map[string]any{"repository": "registry.example.com/kith", "tag": "v9", "digest": digest}})
	images := regexp.MustCompile(`(?m)^ +image: (.*)$`).FindAllStringSubmatch(text, -1)
	for _, image := range images {
		if want := "registry.example.com/kith@" + digest; image[1] != want {
			t.Errorf("a container's image is %s, want %s", image[1], want)
		}
	}
	if len(images) == 0 {
		t.Error("there are no containers")
	}
}

// TestBaseImagesArePinned: what the image is built of is named by its content.
func TestBaseImagesArePinned(t *testing.T) {
	bases := regexp.MustCompile(`(?mi)^\s*FROM\s+(?:--\S+\s+)*(\S+)`).FindAllStringSubmatch(read(t, "../Dockerfile"), -1)
	for _, base := range bases {
		if pinned := regexp.MustCompile(`@sha256:[0-9a-f]{64}$`); base[1] != "scratch" && !pinned.MatchString(base[1]) {
			t.Errorf("deploy/Dockerfile is FROM %s: add the image's digest", base[1])
		}
	}
	if len(bases) == 0 {
		t.Error("deploy/Dockerfile is from nothing")
	}
}

// TestChartVersion: the chart's version is its application's without the v, as `helm repo` wants it.
func TestChartVersion(t *testing.T) {
	chart, err := loader.Load("../helm/kith")
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.TrimPrefix(chart.Metadata.AppVersion, "v"); chart.Metadata.Version != want {
		t.Errorf("version %s, want %s", chart.Metadata.Version, want)
	}
}

// withoutDefinitions leaves out the definitions of kinds: they ask for nothing.
func withoutDefinitions(text string) string {
	return strings.Join(slices.DeleteFunc(strings.Split(text, "\n---\n"), func(document string) bool {
		return strings.Contains(document, "\nkind: CustomResourceDefinition\n")
	}), "\n---\n")
}

// TestLeastPrivilege pins what the manifest asks of the cluster and of the node, so that more is asked only on purpose.
func TestLeastPrivilege(t *testing.T) {
	text := withoutDefinitions(read(t, manifest))
	for _, word := range []string{"privileged: true", "hostPID", "hostIPC", "'*'", `"*"`, "escalate", "impersonate", "SYS_MODULE"} {
		if strings.Contains(text, word) {
			t.Errorf("the manifest has %s", word)
		}
	}
	containers := regexp.MustCompile(`(?m)^ +image: `).FindAllString(text, -1)
	for _, line := range []string{"drop: [ALL]", "readOnlyRootFilesystem: true", "allowPrivilegeEscalation: false"} {
		if n := strings.Count(text, line); n != len(containers) {
			t.Errorf("%d of %d containers have %s", n, len(containers), line)
		}
	}
	var added []string
	for _, m := range regexp.MustCompile(`add: \[(.*)\]`).FindAllStringSubmatch(text, -1) {
		added = append(added, m[1])
	}
	if want := []string{"NET_ADMIN, NET_RAW, SYS_ADMIN", "NET_ADMIN"}; !slices.Equal(added, want) {
		t.Errorf("capabilities %q, want %q", added, want)
	}
	var written []string
	for _, m := range regexp.MustCompile(`(?m)^ +resources: \[(.*)\]\n(?: +(?:#|resourceNames).*\n)* +verbs: \[(.*)\]`).FindAllStringSubmatch(text, -1) {
		if strings.Contains(m[2], "create") || strings.Contains(m[2], "patch") || strings.Contains(m[2], "update") || strings.Contains(m[2], "delete") {
			written = append(written, m[1]+": "+m[2])
		}
	}
	if want := []string{"clusternetworkpolicies/status: patch", "nodes: get, list, watch, patch", "secrets: create"}; !slices.Equal(written, want) {
		t.Errorf("rights to write %q, want %q", written, want)
	}
	if bytes.Contains([]byte(text), []byte("\t")) {
		t.Error("the manifest has tabs")
	}
}
