package kube

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestDefinitionIsOfThisVersion: the definition of ClusterNetworkPolicies that is installed is that of the types that the
// agent reads.
func TestDefinitionIsOfThisVersion(t *testing.T) {
	read := func(name, pattern string) string {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(regexp.MustCompile(pattern).FindStringSubmatch(string(text))[1:], "")
	}
	types := read("../../go.mod", `sigs\.k8s\.io/network-policy-api (\S+)`)
	const definition = "../../deploy/helm/kith/crds/clusternetworkpolicies.yaml"
	if installed := read(definition, `bundle-version: (\S+)`); installed != types {
		t.Errorf("the definition is of %s, the types are of %s", installed, types)
	}
	if channel := read(definition, `channel: (\S+)`); channel != "experimental" {
		t.Errorf("the definition's channel is %s: it has no nodes", channel)
	}
}
