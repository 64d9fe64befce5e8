package kube

import (
	"context"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

func next(t *testing.T, changes <-chan Change) Change {
	t.Helper()
	select {
	case c := <-changes:
		return c
	case <-time.After(30 * time.Second):
		t.Fatal("no change came")
		return Change{}
	}
}

func TestWatch(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	np := read(t, `{metadata: {namespace: a, name: b}, spec: {podSelector: {}, ingress: [{ports: [{port: 2, endPort: 1}]}]}}`)
	client := fake.NewClientset(np)
	changes := make(chan Change, 10)
	w, err := New(client, names(), func(c Change) { changes <- c })
	if err != nil {
		t.Fatal(err)
	}
	if w.HasSynced() {
		t.Error("synced before Run")
	}
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	c := next(t, changes)
	if c.Name.String() != "a/b" || c.Put == nil || len(c.Problems) != 1 {
		t.Errorf("first change is %+v, want a/b with its problem", c)
	}
	for !w.HasSynced() {
		time.Sleep(time.Millisecond)
	}
	policies := client.NetworkingV1().NetworkPolicies("a")
	np.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{}}
	if _, err := policies.Update(ctx, np, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if c := next(t, changes); c.Put == nil || len(c.Problems) != 0 || !(*c.Put.Ingress)[0].AllPeers {
		t.Errorf("after the update: %+v", c)
	}
	if err := policies.Delete(ctx, "b", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if c := next(t, changes); c.Name.String() != "a/b" || c.Put != nil {
		t.Errorf("after the deletion: %+v", c)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
