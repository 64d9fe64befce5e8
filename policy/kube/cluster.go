package kube

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"
	policyv1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
)

const (
	askAgain   = time.Second      // after the API server did not answer
	askForKind = 15 * time.Second // where it does not know the kind, and some more
)

// ClusterWatch watches ClusterNetworkPolicies, as soon as the API server knows the kind: its definition may be missing,
// and come later. As long as it does, there are none. Of the versions that are served it takes the newest (see served).
type ClusterWatch struct {
	served   *served
	log      *slog.Logger
	informer cache.SharedIndexInformer
	handler  cache.ResourceEventHandlerRegistration
	sink     func(Change)
	given    *ledger
	known    map[string]meaning // of each object, when all of it could be read; only the handler uses it
	absent   atomic.Bool        // the API server said that it does not know the kind
	appeared chan struct{}      // signals that it does
}

// meaning is what an object meant.
type meaning struct {
	uid    types.UID
	policy policy.Policy
}

// NewCluster prepares the watch; Run starts it. sink is called from one goroutine.
func NewCluster(client dynamic.Interface, log *slog.Logger, sink func(Change)) (*ClusterWatch, error) {
	w := &ClusterWatch{
		served: newServed(client), log: log, sink: sink, given: newLedger(), known: map[string]meaning{}, appeared: make(chan struct{}, 1),
	}
	w.informer = cache.NewSharedIndexInformer(w.served.listWatch(client), &unstructured.Unstructured{}, 0, cache.Indexers{})
	handler, err := w.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    w.put,
		UpdateFunc: func(_, obj any) { w.put(obj) },
		DeleteFunc: func(obj any) {
			if key, err := cache.DeletionHandlingObjectToName(obj); err == nil {
				delete(w.known, key.Name)
				sink(Change{Name: policy.Name{Name: key.Name}})
				w.given.delete("", key.Name)
			}
		},
	})
	if err != nil {
		return nil, fmt.Errorf("watch cluster network policies: %w", err)
	}
	w.handler = handler
	return w, nil
}

// put hands on what an object means, and its problems. Where a part of it has another form than is known here, what the
// object meant before stays, as long as this watch knows it: a new definition must not close a cluster that runs. Where it
// knows nothing, as after a restart, what is handed on closes (readObject). To wait until all objects can be read would
// open nothing either, but keep the whole node from every other policy, and from new pods, for the sake of one object.
func (w *ClusterWatch) put(obj any) {
	u, ok := obj.(*unstructured.Unstructured)
	if !ok {
		return
	}
	p, unread, problems := readObject(u)
	before, known := w.known[u.GetName()]
	switch {
	case len(unread) == 0:
		w.known[u.GetName()] = meaning{u.GetUID(), p}
	case known && before.uid == u.GetUID():
		p, problems = before.policy, unread
		for i := range problems {
			problems[i].Message += ": what the whole policy meant before stays"
		}
	}
	w.sink(Change{Name: p.Key(), Put: &p, Problems: problems, Object: &Object{
		Name: u.GetName(), UID: string(u.GetUID()), Version: u.GetResourceVersion(), Generation: u.GetGeneration(),
		Problems: problems, Conditions: readConditions(u),
	}})
	w.given.put("", u.GetName(), u.GetResourceVersion())
}

// Run watches until ctx is done.
func (w *ClusterWatch) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		_, err := w.list(ctx, 1)
		if err == nil {
			w.informer.RunWithContext(ctx)
			return nil
		}
		wait := askAgain
		if apierrors.IsNotFound(err) {
			w.absent.Store(true)
			wait = askForKind + rand.N(askForKind)
		} else if ctx.Err() == nil {
			w.log.Warn("cluster network policies not listed", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-w.appeared:
		case <-time.After(wait):
		}
	}
	return nil
}

// HasSynced says whether the sink has been given every policy once, or there were none since the kind is not known.
func (w *ClusterWatch) HasSynced() bool { return w.handler.HasSynced() || w.absent.Load() }

// CatchUp returns when the sink has been given all policies as the API server has them now.
func (w *ClusterWatch) CatchUp(ctx context.Context, _ identity.PodKey) error {
	return w.CatchUpAll(ctx)
}

// CatchUpAll is CatchUp: these policies are the cluster's.
func (w *ClusterWatch) CatchUpAll(ctx context.Context) error {
	return w.given.catchUp(ctx, func(ctx context.Context) (inventories, error) {
		list, err := w.list(ctx, 0)
		if apierrors.IsNotFound(err) {
			return inventories{}, nil
		}
		if err != nil {
			return inventories{}, fmt.Errorf("ask for cluster network policies: %w", err)
		}
		select {
		case w.appeared <- struct{}{}:
		default:
		}
		now := inventory{versions: map[string]string{}, version: list.GetResourceVersion()}
		for _, cnp := range list.Items {
			now.versions[cnp.GetName()] = cnp.GetResourceVersion()
		}
		return inventories{spaces: map[string]inventory{"": now}}, nil
	})
}

// fieldManager owns the conditions that Kith writes. Those of others stay.
const fieldManager = "kith"

// SetStatus writes an object's conditions, unless the object has changed or is gone: the watch then brings what is to be
// written instead.
func (w *ClusterWatch) SetStatus(ctx context.Context, s Status) error {
	status, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&policyv1alpha2.ClusterNetworkPolicyStatus{Conditions: s.Conditions})
	if err != nil {
		return fmt.Errorf("encode status of cluster network policy %s: %w", s.Name, err)
	}
	object := &unstructured.Unstructured{Object: map[string]any{
		"metadata": map[string]any{"name": s.Name, "resourceVersion": s.Version}, "status": status,
	}}
	err = w.served.try(func(c dynamic.ResourceInterface, version schema.GroupVersion) error {
		object.SetGroupVersionKind(version.WithKind("ClusterNetworkPolicy"))
		_, err := c.ApplyStatus(ctx, s.Name, object, metav1.ApplyOptions{FieldManager: fieldManager, Force: true})
		return err
	})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("write status of cluster network policy %s: %w", s.Name, err)
	}
	return nil
}

func (w *ClusterWatch) list(ctx context.Context, limit int64) (list *unstructured.UnstructuredList, err error) {
	err = w.served.try(func(c dynamic.ResourceInterface, _ schema.GroupVersion) (err error) {
		list, err = c.List(ctx, metav1.ListOptions{Limit: limit})
		return err
	})
	return list, err
}
