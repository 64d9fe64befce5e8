// Package kube is the edge between the API server's NetworkPolicy and ClusterNetworkPolicy objects and the policy model.
//
// Input: a watch of all of them. Output: policies of the model, each with the problems found in it. Translate and
// TranslateCluster, the step between, are pure. Invariant: what cannot be translated closes and never opens. The pods
// that a policy selects stay subjects, a rule with a problem accepts nothing (or denies all, if it was not to accept), and
// the problem names policy, field and fix. Only a ClusterNetworkPolicy that was understood and then gets a field of
// another type keeps what it meant before, as long as the watch runs. A policy whose namespace is being deleted stays until
// the namespace is gone. Conditions, pure too, is what the status of ClusterNetworkPolicies is to say.
//
// Out of scope: what a policy means (policy) and how it is enforced (policy/ruleset).
package kube

import (
	"context"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
)

// Change is what became of one policy. Put is nil when it was deleted. Object is that of a ClusterNetworkPolicy.
type Change struct {
	Name     policy.Name
	Put      *policy.Policy
	Problems []Problem
	Object   *Object
}

// Watch watches NetworkPolicies.
type Watch struct {
	names    metadata.Getter // of NetworkPolicies
	informer cache.SharedIndexInformer
	handler  cache.ResourceEventHandlerRegistration
	given    *ledger
	leaving  *departures
}

// New prepares the watch; Run starts it. sink is called by one goroutine at a time. What there is in a namespace is asked of
// names: whole policies, for every pod that starts, could be more than there is memory for.
func New(client kubernetes.Interface, names metadata.Interface, sink func(Change)) (*Watch, error) {
	w := &Watch{
		names: names.Resource(networkingv1.SchemeGroupVersion.WithResource("networkpolicies")), given: newLedger(),
		informer: informers.NewSharedInformerFactory(client, 0).Networking().V1().NetworkPolicies().Informer(),
	}
	if err := w.informer.SetTransform(slim); err != nil {
		return nil, fmt.Errorf("watch network policies: %w", err)
	}
	w.leaving = newDepartures(client, func(n policy.Name) {
		sink(Change{Name: n})
		w.given.delete(n.Namespace, n.Name)
	}, func(n policy.Name) { w.given.delete(n.Namespace, n.Name) })
	put := func(obj any) {
		if np, ok := obj.(*networkingv1.NetworkPolicy); ok {
			p, problems := Translate(np)
			w.leaving.back(p.Key(), func() { sink(Change{Name: p.Key(), Put: &p, Problems: problems}) })
			w.given.put(np.Namespace, np.Name, np.ResourceVersion)
		}
	}
	handler, err := w.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    put,
		UpdateFunc: func(_, obj any) { put(obj) },
		DeleteFunc: func(obj any) {
			if key, err := cache.DeletionHandlingObjectToName(obj); err == nil {
				w.leaving.hold(policy.Name{Namespace: key.Namespace, Name: key.Name})
			}
		},
	})
	if err != nil {
		return nil, fmt.Errorf("watch network policies: %w", err)
	}
	w.handler = handler
	return w, nil
}

// Run watches until ctx is done.
func (w *Watch) Run(ctx context.Context) error {
	var g errgroup.Group
	g.Go(func() error { w.leaving.run(ctx); return nil })
	w.informer.RunWithContext(ctx)
	return g.Wait()
}

// HasSynced says whether the sink has been given every policy once.
func (w *Watch) HasSynced() bool { return w.handler.HasSynced() }

// CatchUp returns when the sink has been given all policies of the pod's namespace as the API server has them now.
func (w *Watch) CatchUp(ctx context.Context, pod identity.PodKey) error {
	return w.CatchUpIn(ctx, pod.Namespace)
}

// CatchUpIn returns when the sink has been given all policies of a namespace as the API server has them now.
func (w *Watch) CatchUpIn(ctx context.Context, namespace string) error {
	return w.given.catchUp(ctx, func(ctx context.Context) (inventories, error) {
		now, err := w.take(ctx, namespace)
		if err == nil {
			now.spaces = map[string]inventory{namespace: now.of(namespace)}
		}
		return now, err
	})
}

// CatchUpAll returns when the sink has been given all policies of the cluster as the API server has them now.
func (w *Watch) CatchUpAll(ctx context.Context) error {
	return w.given.catchUp(ctx, func(ctx context.Context) (inventories, error) {
		now, err := w.take(ctx, metav1.NamespaceAll)
		now.all = true
		return now, err
	})
}

// take asks for what policies there are in a namespace.
func (w *Watch) take(ctx context.Context, namespace string) (inventories, error) {
	list, err := w.names.Namespace(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return inventories{}, fmt.Errorf("ask for policies of namespace %q: %w", namespace, err)
	}
	now := inventories{spaces: map[string]inventory{}, version: list.ResourceVersion}
	for i := range list.Items {
		np := &list.Items[i]
		if now.spaces[np.Namespace].versions == nil {
			now.spaces[np.Namespace] = inventory{map[string]string{}, list.ResourceVersion}
		}
		now.spaces[np.Namespace].versions[np.Name] = np.ResourceVersion
	}
	return now, nil
}

// slim keeps what Translate reads, and of too many rules one more than it reads: this way it says so.
func slim(obj any) (any, error) {
	np, ok := obj.(*networkingv1.NetworkPolicy)
	if !ok {
		return obj, nil
	}
	spec := np.Spec
	spec.Ingress, spec.Egress = few(spec.Ingress), few(spec.Egress)

	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: np.Namespace, Name: np.Name, UID: np.UID, ResourceVersion: np.ResourceVersion},
		Spec:       spec,
	}, nil
}

// few is rules, or a copy of as many as may be kept, so that the others' memory is free.
func few[T any](rules []T) []T {
	if len(rules) <= policy.MaxRules {
		return rules
	}
	return slices.Clone(rules[:policy.MaxRules+1])
}
