package deploytest

import (
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/engine"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/fake"
)

// installed is a cluster that has definitions.
type installed struct{ dynamic.Interface }

func (i installed) GetClientFor(string, string) (dynamic.NamespaceableResourceInterface, bool, error) {
	return i.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}), false, nil
}

// TestDefinitionIsUpgraded and never downgraded, by Helm: one that is newer stays, and so does one that others installed.
func TestDefinitionIsUpgraded(t *testing.T) {
	const name = "clusternetworkpolicies.policy.networking.k8s.io"
	for _, tt := range []struct {
		title, release, version string
		values                  map[string]any
		want                    bool
	}{
		{title: "none", want: true},
		{title: "older", release: "kith", version: "v0.2.0", want: true},
		{title: "the same", release: "kith", version: "v0.3.0", want: true},
		{title: "newer", release: "kith", version: "v0.4.0-rc1"},
		{title: "newer", release: "kith", version: "v1.0.0"},
		{title: "another's, older", version: "v0.2.0"},
		{title: "another release's", release: "calico", version: "v0.2.0"},
		{title: "ours, of no version", release: "kith", want: true},
		{title: "none, and unwanted", values: map[string]any{"clusterNetworkPolicies": map[string]any{"install": false}}},
	} {
		client := fake.NewSimpleDynamicClient(runtime.NewScheme())
		if tt.release != "" || tt.version != "" {
			notes := map[string]string{}
			if tt.release != "" {
				notes["meta.helm.sh/release-name"] = tt.release
			}
			if tt.version != "" {
				notes["policy.networking.k8s.io/bundle-version"] = tt.version
			}
			d := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}}
			d.SetName(name)
			d.SetAnnotations(notes)
			client = fake.NewSimpleDynamicClient(runtime.NewScheme(), d)
		}
		chart, all := render(t, homeNamespace, tt.values)
		files, err := engine.RenderWithClientProvider(chart, all, installed{client})
		if err != nil {
			t.Fatalf("%s %s: %v", tt.title, tt.version, err)
		}
		text := files["kith/templates/definition.yaml"]
		if got := strings.Contains(text, name); got != tt.want {
			t.Errorf("%s %s %s: rendered %t, want %t", tt.title, tt.release, tt.version, got, tt.want)
		}
		if tt.want && !strings.Contains(text, "helm.sh/resource-policy: keep") {
			t.Errorf("%s: it goes with the release, and all policies with it", tt.title)
		}
	}
}
