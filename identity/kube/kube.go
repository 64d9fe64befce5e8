// Package kube is the edge between the API server's pods and namespaces and the identities of this cluster.
//
// Input: a watch of all pods and namespaces. Output: changes as values, in the API server's order for each kind.
//
// Invariants: no object is kept, here or in a cache beneath; a pod on the host network and one that has ended are given
// without addresses, because those are not theirs; after a lost watch the next change says All, so that nothing that
// went meanwhile stays.
//
// Out of scope: what an identity is, and who uses the changes.
package kube

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/kithnet/kith/identity"
)

// Change is what became of some objects. All: there are no others than those in Put.
type Change[T any, K any] struct {
	All    bool
	Put    []T
	Delete []K
}

// PodChange and NamespaceChange are the changes that a Sink takes.
type (
	PodChange       = Change[identity.Pod, identity.PodKey]
	NamespaceChange = Change[identity.Namespace, string]
)

// Sink takes the changes. Each function is called from one goroutine, the two from different ones.
type Sink struct {
	Pods       func(PodChange)
	Namespaces func(NamespaceChange)
}

// Watch watches pods and namespaces.
type Watch struct {
	client     kubernetes.Interface
	pods       *feed[identity.Pod, identity.PodKey]
	namespaces *feed[identity.Namespace, string]
}

// New prepares the watch; Run starts it.
func New(client kubernetes.Interface, sink Sink) *Watch {
	return &Watch{
		client:     client,
		pods:       newFeed(Pod, identity.Pod.Key, sink.Pods, slimPod),
		namespaces: newFeed(Namespace, func(n identity.Namespace) string { return n.Name }, sink.Namespaces, slimNamespace),
	}
}

// HasSynced says whether the sink has been given all pods and all namespaces once.
func (w *Watch) HasSynced() bool { return w.pods.hasSynced() && w.namespaces.hasSynced() }

// Synced is closed when HasSynced becomes true.
func (w *Watch) Synced(ctx context.Context) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		for _, synced := range []<-chan struct{}{w.pods.synced, w.namespaces.synced} {
			select {
			case <-synced:
			case <-ctx.Done():
				return
			}
		}
		close(done)
	}()
	return done
}

// CatchUp returns when the sink has been given the pod and its namespace as new as the API server has them now. Of a pod
// or a namespace that it does not have there is nothing to wait for.
func (w *Watch) CatchUp(ctx context.Context, k identity.PodKey) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		list, err := w.client.CoreV1().Pods(k.Namespace).List(ctx, named(k.Name))
		if err != nil {
			return fmt.Errorf("ask for pod %s/%s: %w", k.Namespace, k.Name, err)
		}
		for i := range list.Items {
			err = errors.Join(err, w.pods.given.wait(ctx, list.Items[i].ResourceVersion))
		}
		return err
	})
	g.Go(func() error { return w.CatchUpNamespace(ctx, k.Namespace) })
	return g.Wait()
}

// CatchUpNamespace returns when the sink has been given a namespace as new as the API server has it now.
func (w *Watch) CatchUpNamespace(ctx context.Context, name string) error {
	if err := w.catchUpNamespaces(ctx, named(name)); err != nil {
		return fmt.Errorf("namespace %s: %w", name, err)
	}
	return nil
}

// CatchUpNamespaces returns when the sink has been given all namespaces as new as the API server has them now.
func (w *Watch) CatchUpNamespaces(ctx context.Context) error {
	return w.catchUpNamespaces(ctx, metav1.ListOptions{})
}

func (w *Watch) catchUpNamespaces(ctx context.Context, which metav1.ListOptions) error {
	list, err := w.client.CoreV1().Namespaces().List(ctx, which)
	if err != nil {
		return fmt.Errorf("ask for namespaces: %w", err)
	}
	for i := range list.Items {
		err = errors.Join(err, w.namespaces.given.wait(ctx, list.Items[i].ResourceVersion))
	}
	return err
}

// named asks for one object by a list, which is what the agent has the right to.
func named(name string) metav1.ListOptions {
	return metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()}
}

// Run watches until ctx is done.
func (w *Watch) Run(ctx context.Context) error {
	pods := cache.NewReflectorWithOptions(listPods(w.client), &corev1.Pod{}, w.pods, cache.ReflectorOptions{Name: "identity"})
	spaces := cache.NewReflectorWithOptions(listNamespaces(w.client), &corev1.Namespace{}, w.namespaces, cache.ReflectorOptions{Name: "identity"})
	var g errgroup.Group
	g.Go(func() error { pods.RunWithContext(ctx); return nil })
	g.Go(func() error { spaces.RunWithContext(ctx); return nil })
	return g.Wait()
}

// listPods slims every page of a list at once: whole pods take 16 KB each.
func listPods(client kubernetes.Interface) cache.ListerWatcher {
	pods := client.CoreV1().Pods(metav1.NamespaceAll)
	return cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			list, err := pods.List(ctx, o)
			if err != nil {
				return nil, err
			}
			for i := range list.Items {
				list.Items[i] = *slim(&list.Items[i])
			}
			return list, nil
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return pods.Watch(ctx, o)
		},
	}, client)
}

func listNamespaces(client kubernetes.Interface) cache.ListerWatcher {
	spaces := client.CoreV1().Namespaces()
	return cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return spaces.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return spaces.Watch(ctx, o)
		},
	}, client)
}
