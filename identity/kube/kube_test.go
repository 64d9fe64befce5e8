package kube

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"sigs.k8s.io/yaml"

	"github.com/kithnet/kith/identity"
)

func readPod(t *testing.T, text string) *corev1.Pod {
	t.Helper()
	p := &corev1.Pod{}
	if err := yaml.Unmarshal([]byte(text), p); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPod(t *testing.T) {
	v4, v6 := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")
	tests := []struct {
		name, pod string
		want      identity.Pod
	}{
		{"running", `{metadata: {namespace: a, name: b, uid: u, labels: {x: z}}, status: {phase: Running, podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: "fd00::1"}]}}`,
			identity.Pod{Namespace: "a", Name: "b", UID: "u", Labels: map[string]string{"x": "z"}, Addresses: []netip.Addr{v4, v6}}},
		{"one address", `{metadata: {name: b}, status: {podIP: 10.0.0.1}}`, identity.Pod{Name: "b", Addresses: []netip.Addr{v4}}},
		{"no address yet", `{metadata: {name: b}, status: {phase: Pending}}`, identity.Pod{Name: "b"}},
		{"host network", `{metadata: {name: b}, spec: {hostNetwork: true}, status: {podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}]}}`, identity.Pod{Name: "b"}},
		{"node", `{metadata: {name: b}, spec: {nodeName: n1}}`, identity.Pod{Name: "b", Node: "n1"}},
		{"node, host network", `{metadata: {name: b}, spec: {nodeName: n1, hostNetwork: true}}`, identity.Pod{Name: "b"}},
		{"node, ended", `{metadata: {name: b}, spec: {nodeName: n1}, status: {phase: Failed}}`, identity.Pod{Name: "b"}},
		{"succeeded", `{metadata: {name: b}, status: {phase: Succeeded, podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}]}}`, identity.Pod{Name: "b"}},
		{"failed", `{metadata: {name: b}, status: {phase: Failed, podIPs: [{ip: 10.0.0.1}]}}`, identity.Pod{Name: "b"}},
		{"static", `{metadata: {name: b, uid: u, annotations: {kubernetes.io/config.mirror: real}}}`, identity.Pod{Name: "b", UID: "real"}},
		{"ports", `{metadata: {name: b}, spec: {initContainers: [{ports: [{name: gone, containerPort: 1}]}, {restartPolicy: Always, ports: [{name: side, containerPort: 2, protocol: UDP}]}], containers: [{ports: [{containerPort: 3}, {name: http, containerPort: 4}]}, {ports: [{name: sig, containerPort: 5, protocol: SCTP}]}]}}`,
			identity.Pod{Name: "b", Ports: []identity.NamedPort{{Name: "side", Protocol: identity.UDP, Number: 2}, {Name: "http", Protocol: identity.TCP, Number: 4}, {Name: "sig", Protocol: identity.SCTP, Number: 5}}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			whole := readPod(t, tt.pod)
			for name, p := range map[string]*corev1.Pod{"whole": whole, "slim": slim(whole)} {
				got, err := Pod(p)
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(tt.want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
					t.Errorf("%s (-want +got)\n%s", name, d)
				}
			}
		})
	}
}

// take follows the changes of a kind as the agent does.
func take[T any, K comparable](state map[K]T, key func(T) K, c Change[T, K]) {
	if c.All {
		clear(state)
	}
	for _, t := range c.Put {
		state[key(t)] = t
	}
	for _, k := range c.Delete {
		delete(state, k)
	}
}

func TestWatch(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	first := readPod(t, `{metadata: {namespace: a, name: b, uid: u}, status: {podIP: 10.0.0.1}}`)
	client := fake.NewClientset(first, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: map[string]string{"x": "y"}}})
	pods, spaces := make(chan PodChange, 10), make(chan NamespaceChange, 10)
	w := New(client, Sink{Pods: func(c PodChange) { pods <- c }, Namespaces: func(c NamespaceChange) { spaces <- c }})
	if w.HasSynced() {
		t.Error("synced before Run")
	}
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	select {
	case <-w.Synced(ctx):
	case <-time.After(20 * time.Second):
		t.Fatal("never synced")
	}
	state := map[identity.PodKey]identity.Pod{}
	until := func(what string, ok func() bool) {
		t.Helper()
		for !ok() {
			select {
			case c := <-pods:
				take(state, identity.Pod.Key, c)
			case <-time.After(20 * time.Second):
				t.Fatalf("never %s: %v", what, state)
			}
		}
	}
	until("listed", func() bool { return len(state) == 1 })
	if c := <-spaces; !c.All || len(c.Put) != 1 || c.Put[0].Labels["x"] != "y" {
		t.Errorf("namespaces: %+v", c)
	}
	second := readPod(t, `{metadata: {namespace: a, name: c, uid: v}}`)
	if _, err := client.CoreV1().Pods("a").Create(ctx, second, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	until("created", func() bool { return len(state) == 2 })
	if err := client.CoreV1().Pods("a").Delete(ctx, "b", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	until("deleted", func() bool { return len(state) == 1 && state[identity.PodKey{Namespace: "a", Name: "c"}].UID == "v" })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
