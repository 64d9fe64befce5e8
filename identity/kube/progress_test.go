package kube

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	kubetesting "k8s.io/client-go/testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/kithnet/kith/identity"
)

// TestCatchUp: it returns when both watches have brought at least what the API server has, in whatever order.
func TestCatchUp(t *testing.T) {
	pod := readPod(t, `{metadata: {namespace: a, name: b, resourceVersion: "17"}}`)
	space := corev1.Namespace{}
	space.Name, space.ResourceVersion = "a", "9"
	for name, steps := range map[string][]func(*Watch) error{
		"pod first":       {put(pod, "pods"), put(&space, "namespaces")},
		"namespace first": {put(&space, "namespaces"), put(pod, "pods")},
		"by lists": {
			func(w *Watch) error { return w.pods.Replace(nil, "18") }, func(w *Watch) error { return w.namespaces.Replace(nil, "10") },
		},
		"by deletions": {
			func(w *Watch) error { return w.namespaces.Delete(at(&space, "100")) }, func(w *Watch) error { return w.pods.Delete(at(pod, "100")) },
		},
		"by those of others": {put(at(&space, "10"), "namespaces"), put(at(pod, "18"), "pods")},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := New(answering(pod, &space, nil), Sink{Pods: func(PodChange) {}, Namespaces: func(NamespaceChange) {}})
				done := make(chan error, 1)
				go func() { done <- w.CatchUp(t.Context(), identity.PodKey{Namespace: "a", Name: "b"}) }()
				for _, step := range append([]func(*Watch) error{put(at(pod, "16"), "pods"), put(at(&space, "8"), "namespaces")}, steps...) {
					synctest.Wait()
					select {
					case err := <-done:
						t.Fatalf("returned early: %v", err)
					default:
					}
					if err := step(w); err != nil {
						t.Fatal(err)
					}
				}
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func put(o runtime.Object, kind string) func(*Watch) error {
	return func(w *Watch) error {
		if kind == "pods" {
			return w.pods.Update(o)
		}
		return w.namespaces.Update(o)
	}
}

func at[T interface {
	runtime.Object
	SetResourceVersion(string)
}](o T, version string) T {
	c := o.DeepCopyObject().(T)
	c.SetResourceVersion(version)
	return c
}

// answering is an API server that has one pod and one namespace.
func answering(pod *corev1.Pod, space *corev1.Namespace, refusal error) *fake.Clientset {
	client := fake.NewClientset()
	client.PrependReactor("list", "pods", func(kubetesting.Action) (bool, runtime.Object, error) {
		return true, &corev1.PodList{Items: []corev1.Pod{*pod}}, refusal
	})
	client.PrependReactor("list", "namespaces", func(kubetesting.Action) (bool, runtime.Object, error) {
		return true, &corev1.NamespaceList{Items: []corev1.Namespace{*space}}, refusal
	})
	return client
}

func TestCatchUpEnds(t *testing.T) {
	pod, refusal := readPod(t, `{metadata: {namespace: a, name: b, resourceVersion: "17"}}`), errors.New("away")
	sink := Sink{Pods: func(PodChange) {}, Namespaces: func(NamespaceChange) {}}
	key := identity.PodKey{Namespace: "a", Name: "b"}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := New(answering(pod, &corev1.Namespace{}, nil), sink).CatchUp(ctx, key); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with a pod that the watch never brings: %v", err)
	}
	if err := New(answering(pod, &corev1.Namespace{}, refusal), sink).CatchUp(t.Context(), key); !errors.Is(err, refusal) {
		t.Errorf("without the API server: %v", err)
	}
}
