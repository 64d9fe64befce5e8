package main

import (
	"bytes"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

// TestGossipKeyIsMadeOnce holds that all agents end with one key, whoever makes it.
func TestGossipKeyIsMadeOnce(t *testing.T) {
	client := fake.NewClientset()
	first, err := gossipKey(t.Context(), client, "kith-system")
	if err != nil {
		t.Fatal(err)
	}
	second, err := gossipKey(t.Context(), client, "kith-system")
	if err != nil {
		t.Fatal(err)
	}
	if len(first) != gossipKeyLength || !bytes.Equal(first, second) {
		t.Errorf("two agents have keys of %d and %d bytes, equal: %v", len(first), len(second), bytes.Equal(first, second))
	}
}

func TestGossipKeyRefused(t *testing.T) {
	for _, value := range []string{"", "short", "AAAA", strings.Repeat("A", 100)} {
		secret := &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: "kith-system", Name: gossipSecret},
			Data:       map[string][]byte{gossipSecretKey: []byte(value)},
		}
		_, err := gossipKey(t.Context(), fake.NewClientset(secret), "kith-system")
		if err == nil || !strings.Contains(err.Error(), "kith-system/kith-gossip") || !strings.Contains(err.Error(), "base64") {
			t.Errorf("value %q: error %v does not name the secret and the fix", value, err)
		}
	}
}
