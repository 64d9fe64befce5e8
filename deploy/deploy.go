// Package deploy gives programs what is installed with Kith: the files of this folder say it, here once more for who
// must agree with them.
package deploy

import (
	_ "embed"
	"strings"
)

//go:embed helm/kith/files/clusternetworkpolicies.yaml
var clusterNetworkPolicies string

//go:embed helm/kith/templates/admission.yaml
var admissionPolicies string

// AdmissionPolicies are the policies by which the API server holds kubelets, agents and all others who may write Nodes to
// what is theirs, each with its binding: YAML documents, as they are installed with agents in a namespace, without labels.
func AdmissionPolicies(namespace string) string {
	var b strings.Builder
	for line := range strings.Lines(admissionPolicies) {
		if !strings.HasPrefix(strings.TrimSpace(line), "{{- include ") {
			b.WriteString(strings.ReplaceAll(line, "{{ $.Release.Namespace }}", namespace))
		}
	}
	return b.String()
}

// ClusterNetworkPolicies is the definition of ClusterNetworkPolicy by which the API server accepts or refuses one.
func ClusterNetworkPolicies() string { return clusterNetworkPolicies }
