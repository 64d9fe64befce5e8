package kube

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	policyv1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"
	"sigs.k8s.io/yaml"

	"github.com/kithnet/kith/deploy"
)

// TestDefinitionIsOfTheTypes: each version of the installed definition of ClusterNetworkPolicies that is watched has the fields
// that the agent reads, and no others: those of the experimental channel.
func TestDefinitionIsOfTheTypes(t *testing.T) {
	var d struct {
		Metadata struct{ Annotations map[string]string }
		Spec     struct {
			Versions []struct {
				Name   string
				Schema struct{ OpenAPIV3Schema map[string]any }
			}
		}
	}
	if err := yaml.Unmarshal([]byte(deploy.ClusterNetworkPolicies()), &d); err != nil {
		t.Fatal(err)
	}
	if channel := d.Metadata.Annotations["policy.networking.k8s.io/channel"]; channel != "experimental" {
		t.Errorf("the definition's channel is %s: it has no nodes", channel)
	}
	read := map[string]bool{}
	ofType(reflect.TypeFor[policyv1alpha2.ClusterNetworkPolicySpec](), "spec", read)
	var versions []string
	for _, v := range d.Spec.Versions {
		versions = append(versions, v.Name)
		defined := map[string]bool{}
		ofSchema(v.Schema.OpenAPIV3Schema["properties"].(map[string]any)["spec"].(map[string]any), "spec", defined)
		if diff := cmp.Diff(slices.Sorted(maps.Keys(read)), slices.Sorted(maps.Keys(defined))); diff != "" {
			t.Errorf("%s (-read +defined):\n%s", v.Name, diff)
		}
	}
	slices.Reverse(versions)
	if diff := cmp.Diff(ClusterVersions(), versions); diff != "" {
		t.Errorf("versions, the newest first (-watched +defined):\n%s", diff)
	}
}

// ofType enters the fields of a type, and of all below it.
func ofType(t reflect.Type, at string, into map[string]bool) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice:
		ofType(t.Elem(), at, into)
	case reflect.Struct:
		for i := range t.NumField() {
			name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
			into[at+"."+name] = true
			ofType(t.Field(i).Type, at+"."+name, into)
		}
	}
}

// ofSchema enters the fields of a schema, and of all below it.
func ofSchema(schema map[string]any, at string, into map[string]bool) {
	if items, ok := schema["items"].(map[string]any); ok {
		ofSchema(items, at, into)
	}
	properties, _ := schema["properties"].(map[string]any)
	for name, below := range properties {
		into[at+"."+name] = true
		ofSchema(below.(map[string]any), at+"."+name, into)
	}
}
