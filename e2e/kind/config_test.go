package kind

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

func TestConfigure(t *testing.T) {
	const file = `
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
name: kith
networking:
  podSubnet: 192.168.0.0/16
kubeadmConfigPatches:
- "kind: ClusterConfiguration\n"
`
	tests := []struct {
		name, file string
		add        additions
		want       string
		fails      bool
	}{
		{name: "only the name", file: file, add: additions{name: "other"}, want: `
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
name: other
networking:
  podSubnet: 192.168.0.0/16
kubeadmConfigPatches: ["kind: ClusterConfiguration\n"]
`},
		{name: "everything", file: file, add: additions{"n", "192.0.2.1", "nftables", []string{"kind: KubeletConfiguration\nfailCgroupV1: false\n"}}, want: `
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
name: "n"
networking:
  podSubnet: 192.168.0.0/16
  apiServerAddress: 192.0.2.1
  kubeProxyMode: nftables
kubeadmConfigPatches: ["kind: ClusterConfiguration\n", "kind: KubeletConfiguration\nfailCgroupV1: false\n"]
`},
		{name: "no networking yet", file: "kind: Cluster\n", add: additions{name: "n", proxyMode: "nftables"},
			want: "kind: Cluster\nname: 'n'\nnetworking: {kubeProxyMode: nftables}\n"},
		{name: "another kind", file: "kind: Pod\n", fails: true},
		{name: "not YAML", file: "kind: [\n", fails: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := configure([]byte(test.file), test.add)
			if (err != nil) != test.fails {
				t.Fatalf("error %v, want one: %v", err, test.fails)
			}
			if diff := cmp.Diff(decode(t, []byte(test.want)), decode(t, got)); diff != "" {
				t.Errorf("configuration (-want +got):\n%s", diff)
			}
		})
	}
}

// TestShippedFiles holds the shape people know: no default CNI, three nodes, the usual pod subnet.
func TestShippedFiles(t *testing.T) {
	for name, subnet := range map[string]string{
		"cluster.yaml":    "192.168.0.0/16",
		"dual-stack.yaml": "192.168.0.0/16,fd00:192:168::/56",
	} {
		file, err := os.ReadFile("../../deploy/kind/" + name)
		if err != nil {
			t.Fatal(err)
		}
		cluster := decode(t, file)
		networking, _ := cluster["networking"].(map[string]any)
		if networking["disableDefaultCNI"] != true || networking["podSubnet"] != subnet {
			t.Errorf("%s: networking is %v", name, networking)
		}
		var roles []any
		nodes, _ := cluster["nodes"].([]any)
		for _, node := range nodes {
			roles = append(roles, node.(map[string]any)["role"])
		}
		if diff := cmp.Diff([]any{"control-plane", "worker", "worker"}, roles); diff != "" {
			t.Errorf("%s: roles (-want +got):\n%s", name, diff)
		}
	}
}

func decode(t *testing.T, data []byte) map[string]any {
	t.Helper()
	var value map[string]any
	if err := yaml.Unmarshal(data, &value); err != nil {
		t.Fatal(err)
	}
	return value
}
