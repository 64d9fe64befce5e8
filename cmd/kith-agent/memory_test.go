package main

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"

	corev1 "k8s.io/api/core/v1"

	overlaykube "github.com/kithnet/kith/overlay/kube"
)

// TestNodesAreRememberedUntilTheAPIServerAnswers holds that an agent without an API server goes by what was remembered, and
// by that alone until the list is complete.
func TestNodesAreRememberedUntilTheAPIServerAnswers(t *testing.T) {
	client := fake.NewClientset(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n3", UID: "u3"}})
	answers := make(chan struct{})
	client.PrependReactor("list", "nodes", func(ktesting.Action) (bool, runtime.Object, error) {
		if !isClosed(answers) {
			return true, nil, errors.New("away")
		}
		return false, nil, nil
	})
	live, err := overlaykube.New(client, "n1", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	known := knownNodes{live: live, remembered: testNodes}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- live.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	if err := known.await(ctx); err != nil || len(known.List()) != len(testNodes) {
		t.Fatalf("%v, nodes %v", err, known.List())
	}
	close(answers)
	if err := live.WaitSynced(ctx); err != nil {
		t.Fatal(err)
	}
	if nodes := known.List(); len(nodes) != 1 || nodes[0].Name != "n3" {
		t.Errorf("nodes %v", nodes)
	}
}
