package main

import (
	"encoding/base64"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/kithnet/kith/overlay"
)

func startKeys(t *testing.T, client kubernetes.Interface) *gossipKeys {
	t.Helper()
	g := newGossipKeys(slog.New(slog.DiscardHandler), client, "kith-system", nil)
	done := make(chan error)
	ctx := t.Context()
	go func() { done <- g.run(ctx) }()
	t.Cleanup(func() {
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return g
}

func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func prints(g *gossipKeys) string {
	keys, _ := g.Keys()
	return strings.Join(fingerprints(keys), " ")
}

func secretWith(text string) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kith-system", Name: gossipSecret},
		Data:       map[string][]byte{gossipSecretKey: []byte(text)},
	}
}

func keyLine(letter string) string {
	return base64.StdEncoding.EncodeToString([]byte(strings.Repeat(letter, gossipKeyLength)))
}

// TestGossipKeyIsMadeOnce holds that all agents end with one key, whoever makes it.
func TestGossipKeyIsMadeOnce(t *testing.T) {
	client := fake.NewClientset()
	first, second := startKeys(t, client), startKeys(t, client)
	await(t, "both have one key", func() bool { return prints(first) != "" && prints(first) == prints(second) })
	if keys, _ := first.Keys(); len(keys) != 1 || len(keys[0]) != gossipKeyLength {
		t.Errorf("keys %v", fingerprints(keys))
	}
}

// TestGossipKeysAreFollowed holds that a changed Secret is taken at once, and one that cannot be read changes nothing.
func TestGossipKeysAreFollowed(t *testing.T) {
	client := fake.NewClientset(secretWith(keyLine("a")))
	g := startKeys(t, client)
	await(t, "the first key", func() bool { return prints(g) != "" })
	before := prints(g)
	put := func(text string) {
		t.Helper()
		if _, err := client.CoreV1().Secrets("kith-system").Update(t.Context(), secretWith(text), metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	put(keyLine("b") + "\n" + keyLine("a") + "\n")
	await(t, "two keys", func() bool { return strings.HasSuffix(prints(g), " "+before) })
	both := prints(g)
	put("nonsense")
	await(t, "the problem", func() bool { return g.Problem() != "" })
	if prints(g) != both {
		t.Errorf("keys %s, want %s", prints(g), both)
	}
	put(keyLine("b"))
	await(t, "one key", func() bool { return prints(g) == strings.Fields(both)[0] && g.Problem() == "" })
}

// TestAcceptedKeysAreRead holds that the Secret's entries of nodes say which signing keys are accepted, that one which cannot
// be read is named with what to write, and that it takes nothing from the others, nor from the gossip keys.
func TestAcceptedKeysAreRead(t *testing.T) {
	const key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	secret := secretWith(keyLine("a"))
	secret.Data["node.n2"] = []byte("u2 " + key + "\n")
	secret.Data["node.n3"] = []byte(key)
	g := newGossipKeys(slog.New(slog.DiscardHandler), nil, "kith-system", nil)
	var got map[string]overlay.Acceptance
	g.accept = func(all map[string]overlay.Acceptance) { got = all }
	g.take(secret)
	if len(got) != 1 || got["n2"].String() != "u2 "+key {
		t.Errorf("accepted %v", got)
	}
	if p := g.Problem(); !strings.Contains(p, `"node.n3"`) || !strings.Contains(p, "UID") || prints(g) == "" {
		t.Errorf("problem %q, keys %q", p, prints(g))
	}
	delete(secret.Data, "node.n2")
	delete(secret.Data, "node.n3")
	if g.take(secret); len(got) != 0 || g.Problem() != "" {
		t.Errorf("accepted %v, problem %q", got, g.Problem())
	}
}

func TestGossipKeyRefused(t *testing.T) {
	for _, value := range []string{"", "short", "AAAA", strings.Repeat("A", 100), keyLine("a") + "\nx", strings.Repeat(keyLine("a")+"\n", maxGossipKeys+1)} {
		_, err := parseGossipKeys(secretWith(value))
		if err == nil || !strings.Contains(err.Error(), "kith-system/kith-gossip") || !strings.Contains(err.Error(), "base64") {
			t.Errorf("value %q: error %v does not name the secret and the fix", value, err)
		}
	}
	keys, err := parseGossipKeys(secretWith(keyLine("a") + "\n" + keyLine("b")))
	if err != nil || !slices.EqualFunc(keys, []string{"a", "b"}, func(k []byte, l string) bool { return string(k) == strings.Repeat(l, gossipKeyLength) }) {
		t.Errorf("keys %q (%v)", keys, err)
	}
}
