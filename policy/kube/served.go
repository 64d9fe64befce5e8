package kube

import (
	"context"
	"sync/atomic"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"
)

// ClusterGroup is the API group of ClusterNetworkPolicies.
const ClusterGroup = "policy.networking.k8s.io"

// ClusterVersions are the versions of the kind that are known here, the newest first. Their schema is the same.
func ClusterVersions() []string { return []string{"v1beta1", "v1alpha2"} }

// served is the kind in whatever version the API server serves. Its objects are the same in each, and so are their versions
// and what a watch goes on from: who changes from one to another misses nothing.
type served struct {
	versions []schema.GroupVersion
	clients  []dynamic.ResourceInterface
	last     atomic.Int32 // which of them answered last
}

func newServed(client dynamic.Interface) *served {
	s := &served{}
	for _, version := range ClusterVersions() {
		v := schema.GroupVersion{Group: ClusterGroup, Version: version}
		s.versions = append(s.versions, v)
		s.clients = append(s.clients, client.Resource(v.WithResource("clusternetworkpolicies")))
	}
	return s
}

// try does something in the version that answered last, and where that is not found, in the others.
func (s *served) try(do func(dynamic.ResourceInterface, schema.GroupVersion) error) error {
	last := int(s.last.Load())
	err := do(s.clients[last], s.versions[last])
	for i := range s.clients {
		if !apierrors.IsNotFound(err) {
			break
		}
		if i != last {
			if err = do(s.clients[i], s.versions[i]); err == nil {
				s.last.Store(int32(i))
			}
		}
	}
	return err
}

// newest does something in the newest version that is found.
func (s *served) newest(do func(dynamic.ResourceInterface) error) (err error) {
	for i, c := range s.clients {
		if err = do(c); !apierrors.IsNotFound(err) {
			if err == nil {
				s.last.Store(int32(i))
			}
			return err
		}
	}
	return err
}

// listWatch lists and watches the newest. When a definition changes, the API server ends all watches of the kind: the next one
// begins in the version that is then the newest, where the last one ended, and with the objects that are there.
func (s *served) listWatch(client any) cache.ListerWatcher {
	return cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (list runtime.Object, err error) {
			err = s.newest(func(c dynamic.ResourceInterface) (err error) { list, err = c.List(ctx, o); return err })
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (w watch.Interface, err error) {
			err = s.newest(func(c dynamic.ResourceInterface) (err error) { w, err = c.Watch(ctx, o); return err })
			return w, err
		},
	}, client)
}
