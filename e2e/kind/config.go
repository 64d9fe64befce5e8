package kind

import (
	"fmt"

	"sigs.k8s.io/yaml"
)

// additions are what this machine and the engine at hand need beyond the file people know.
type additions struct {
	name string
	// apiServerAddress is where the API server's port is published; empty leaves kind's own choice.
	apiServerAddress string
	// proxyMode is kube-proxy's; empty leaves kind's own choice.
	proxyMode string
	// patches are pieces of kubeadm's and the kubelet's configuration, in YAML, each with its kind.
	patches []string
}

// configure adds to a kind configuration file without touching what it says about anything else.
func configure(file []byte, add additions) ([]byte, error) {
	var cluster map[string]any
	if err := yaml.UnmarshalStrict(file, &cluster); err != nil {
		return nil, fmt.Errorf("read kind configuration: %w", err)
	}
	if cluster["kind"] != "Cluster" {
		return nil, fmt.Errorf("read kind configuration: kind is %q, want Cluster", cluster["kind"])
	}
	cluster["name"] = add.name
	networking, ok := cluster["networking"].(map[string]any)
	if !ok {
		networking = map[string]any{}
		cluster["networking"] = networking
	}
	if add.apiServerAddress != "" {
		networking["apiServerAddress"] = add.apiServerAddress
	}
	if add.proxyMode != "" {
		networking["kubeProxyMode"] = add.proxyMode
	}
	if len(add.patches) > 0 {
		patches, _ := cluster["kubeadmConfigPatches"].([]any)
		for _, patch := range add.patches {
			patches = append(patches, patch)
		}
		cluster["kubeadmConfigPatches"] = patches
	}
	out, err := yaml.Marshal(cluster)
	if err != nil {
		return nil, fmt.Errorf("write kind configuration: %w", err)
	}
	return out, nil
}
