package kube

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// Where the cluster's names are served: kubeadm, kind and most distributions label the Service so, whatever serves them.
const (
	dnsNamespace = metav1.NamespaceSystem
	dnsLabel     = "k8s-app=kube-dns"
)

// NameServers watches the cluster's DNS Service and its endpoints.
type NameServers struct {
	changed  func()
	services cache.SharedIndexInformer
	slices   cache.SharedIndexInformer
}

// NewNameServers prepares the watch; Run starts it. changed is called after each change of what Addresses returns, by one
// goroutine at a time: the last call sees the last change.
func NewNameServers(client kubernetes.Interface, changed func()) (*NameServers, error) {
	f := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(dnsNamespace),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = dnsLabel }))
	var mu sync.Mutex
	n := &NameServers{services: f.Core().V1().Services().Informer(), slices: f.Discovery().V1().EndpointSlices().Informer()}
	n.changed = func() {
		mu.Lock()
		defer mu.Unlock()
		changed()
	}
	for _, informer := range []cache.SharedIndexInformer{n.services, n.slices} {
		if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(any) { n.changed() },
			UpdateFunc: func(any, any) { n.changed() },
			DeleteFunc: func(any) { n.changed() },
		}); err != nil {
			return nil, fmt.Errorf("watch name servers: %w", err)
		}
	}
	return n, nil
}

// Run watches until ctx is done.
func (n *NameServers) Run(ctx context.Context) error {
	var g errgroup.Group
	g.Go(func() error { n.services.RunWithContext(ctx); return nil })
	g.Go(func() error { n.slices.RunWithContext(ctx); return nil })
	if cache.WaitForCacheSync(ctx.Done(), n.hasSynced) {
		n.changed() // there may be none
	}
	return g.Wait()
}

func (n *NameServers) hasSynced() bool { return n.services.HasSynced() && n.slices.HasSynced() }

// Addresses are those that pods may ask, sorted; false: not known yet.
func (n *NameServers) Addresses() ([]netip.Addr, bool) {
	var out []netip.Addr
	add := func(texts ...string) {
		for _, text := range texts {
			if addr, err := netip.ParseAddr(text); err == nil { // a headless Service's is None
				out = append(out, addr.Unmap())
			}
		}
	}
	for _, obj := range n.services.GetStore().List() {
		if s, ok := obj.(*corev1.Service); ok {
			add(s.Spec.ClusterIP)
			add(s.Spec.ClusterIPs...)
		}
	}
	for _, obj := range n.slices.GetStore().List() {
		if s, ok := obj.(*discoveryv1.EndpointSlice); ok {
			for _, e := range s.Endpoints {
				add(e.Addresses...)
			}
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out), n.hasSynced()
}
