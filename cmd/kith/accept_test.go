package main

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kithnet/kith/cmd/kith/status"
)

// TestAcceptanceIsTheAgentsKey holds that the key which is accepted is the one that the node's own agent has, and that what
// its Node object names does not count.
func TestAcceptanceIsTheAgentsKey(t *testing.T) {
	const key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Name: "n2", UID: "u2", Annotations: map[string]string{"kith.network/signing-public-key": "another"},
	}}
	report := func(node, key string) nodeStatus {
		return nodeStatus{Node: "n2", Report: &status.Report{Node: node, Claim: status.Claim{SigningKey: key}}}
	}
	got, patch, err := acceptance(node, report("n2", key))
	if want := `{"stringData":{"node.n2":"u2 ` + key + `"}}`; err != nil || got != key || string(patch) != want {
		t.Errorf("key %s, patch %s (%v), want %s", got, patch, err, want)
	}
	for name, n := range map[string]nodeStatus{
		"no answer": {Node: "n2", Error: "away"}, "another node's": report("n1", key), "no key": report("n2", "x"),
	} {
		if _, patch, err := acceptance(node, n); err == nil {
			t.Errorf("%s: %s", name, patch)
		}
	}
}

// TestRotationKeepsAcceptedKeys holds that a new gossip key takes nothing else out of the Secret.
func TestRotationKeepsAcceptedKeys(t *testing.T) {
	secret := &corev1.Secret{Data: map[string][]byte{gossipField: []byte("a"), "node.n2": []byte("u2 key")}}
	put(secret, gossipRing{keys: []string{"b"}})
	if string(secret.Data["node.n2"]) != "u2 key" || string(secret.Data[gossipField]) != "b\n" {
		t.Errorf("the Secret holds %q", secret.Data)
	}
}
