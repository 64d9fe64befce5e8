package kube

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/kithnet/kith/policy"
)

// watched is a watch that has handed over policy a/b.
func watched(t *testing.T, objects ...runtime.Object) (*fake.Clientset, <-chan Change) {
	t.Helper()
	np := read(t, `{metadata: {namespace: a, name: b}, spec: {podSelector: {}}}`)
	client := fake.NewClientset(append(objects, np)...)
	changes := make(chan Change, 10)
	w, err := New(client, names(), func(c Change) { changes <- c })
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	if c := next(t, changes); c.Put == nil {
		t.Fatalf("%+v", c)
	}
	awaitWatch(t, client, "networkpolicies")
	return client, changes
}

// awaitWatch: the fake forgets what comes between a list and the watch that follows; the API server does not.
func awaitWatch(t *testing.T, client *fake.Clientset, resource string) {
	t.Helper()
	watching := func(a clienttesting.Action) bool { return a.Matches("watch", resource) }
	for end := time.Now().Add(30 * time.Second); !slices.ContainsFunc(client.Actions(), watching); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("nobody watches %s", resource)
		}
	}
}

func namespace(ending bool) *corev1.Namespace {
	n := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "a"}}
	if ending {
		n.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
		n.Finalizers = []string{"kubernetes"}
	}
	return n
}

func quiet(t *testing.T, changes <-chan Change) {
	t.Helper()
	select {
	case c := <-changes:
		t.Fatalf("%+v", c)
	case <-time.After(300 * time.Millisecond):
	}
}

// TestPolicyOutlivesItsNamespacesPods is CVE-2024-7598: in a namespace that is deleted, the policies went before the
// pods that they isolated.
func TestPolicyOutlivesItsNamespacesPods(t *testing.T) {
	client, changes := watched(t, namespace(true))
	if err := client.NetworkingV1().NetworkPolicies("a").Delete(t.Context(), "b", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	awaitWatch(t, client, "namespaces")
	quiet(t, changes)
	if err := client.CoreV1().Namespaces().Delete(t.Context(), "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if c := next(t, changes); c.Put != nil || c.Name.String() != "a/b" {
		t.Errorf("%+v", c)
	}
}

func TestPolicyThatComesBackIsNotForgotten(t *testing.T) {
	client, changes := watched(t, namespace(true))
	policies := client.NetworkingV1().NetworkPolicies("a")
	if err := policies.Delete(t.Context(), "b", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	np := read(t, `{metadata: {namespace: a, name: b}, spec: {podSelector: {}}}`)
	if _, err := policies.Create(t.Context(), np, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if c := next(t, changes); c.Put == nil {
		t.Errorf("%+v", c)
	}
	if err := client.CoreV1().Namespaces().Delete(t.Context(), "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	quiet(t, changes)
}

func TestPolicyStaysWhileNobodySaysWhy(t *testing.T) {
	client, changes := watched(t, namespace(false))
	away := make(chan struct{})
	client.Lock() // PrependReactor itself does not
	client.PrependReactor("list", "namespaces", func(clienttesting.Action) (bool, runtime.Object, error) {
		select {
		case <-away:
			return false, nil, nil
		default:
			return true, nil, errors.New("away")
		}
	})
	client.Unlock()
	if err := client.NetworkingV1().NetworkPolicies("a").Delete(t.Context(), "b", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	quiet(t, changes)
	close(away)
	if c := next(t, changes); c.Put != nil {
		t.Errorf("%+v", c)
	}
}

// TestEndingNamespaceIsNotWaitedFor: policies that stay because their namespace ends, perhaps for ever, hold up nobody who
// wants to know whether all policies are known.
func TestEndingNamespaceIsNotWaitedFor(t *testing.T) {
	client := fake.NewClientset(namespace(true))
	w, err := New(client, names(), func(c Change) { t.Errorf("%+v", c) })
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	done := make(chan struct{})
	go func() { w.leaving.run(ctx); close(done) }()
	for _, name := range []string{"b", "c"} {
		w.given.put("a", name, "7")
		w.leaving.hold(policy.Name{Namespace: "a", Name: name})
		if err := w.CatchUpIn(ctx, "a"); err != nil {
			t.Errorf("with %s held: %v", name, err)
		}
	}
	cancel()
	<-done
}
