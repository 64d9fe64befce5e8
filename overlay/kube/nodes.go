// Package kube is the edge between the API server's Node objects and the mesh.
//
// Input: a watch of all Nodes, and what else says which addresses are the cluster's
// (ReadCluster). Output: overlay.Node values, and this node's own
// signing key, claim and digest of enforced policies on its own Node object.
//
// Invariants:
//   - The cache holds of a Node only what the mesh needs.
//   - Changed fires when a Node changes in a way that the mesh can see, not at
//     every heartbeat.
//   - Publish and PublishEnforced write three annotations of this node and nothing
//     else, and do not write what is already there.
//
// Out of scope: what the annotations of others mean, and whether they are true.
package kube

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/kithnet/kith/overlay"
)

// Nodes watches Node objects.
type Nodes struct {
	client   kubernetes.Interface
	self     string
	log      *slog.Logger
	informer cache.SharedIndexInformer
	changed  chan struct{}
}

// New prepares the watch; Run starts it. self is this node's name.
func New(client kubernetes.Interface, self string, log *slog.Logger) (*Nodes, error) {
	n := &Nodes{
		client:   client,
		self:     self,
		log:      log,
		informer: informers.NewSharedInformerFactory(client, 0).Core().V1().Nodes().Informer(),
		changed:  make(chan struct{}, 1),
	}
	if err := n.informer.SetTransform(strip); err != nil {
		return nil, fmt.Errorf("watch nodes: %w", err)
	}
	if _, err := n.informer.AddEventHandler(n.handler()); err != nil {
		return nil, fmt.Errorf("watch nodes: %w", err)
	}
	return n, nil
}

func (n *Nodes) handler() cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { n.signal() },
		DeleteFunc: func(any) { n.signal() },
		UpdateFunc: func(before, after any) {
			if !reflect.DeepEqual(essence(before), essence(after)) {
				n.signal()
			}
		},
	}
}

// Touch makes Changed receive, for who learns that the same nodes now mean something else.
func (n *Nodes) Touch() { n.signal() }

func (n *Nodes) signal() {
	select {
	case n.changed <- struct{}{}:
	default:
	}
}

// Run watches until ctx ends.
func (n *Nodes) Run(ctx context.Context) error {
	n.informer.RunWithContext(ctx)
	return nil
}

// WaitSynced returns once List is complete.
func (n *Nodes) WaitSynced(ctx context.Context) error {
	if !cache.WaitForCacheSync(ctx.Done(), n.informer.HasSynced) {
		return fmt.Errorf("wait for nodes: %w", ctx.Err())
	}
	return nil
}

// HasSynced tells whether List is complete.
func (n *Nodes) HasSynced() bool { return n.informer.HasSynced() }

// Changed receives after List changed. It is for one consumer.
func (n *Nodes) Changed() <-chan struct{} { return n.changed }

// List returns all nodes, with nothing granted. A pod CIDR or address that cannot be read is left out:
// the API server refuses such objects, so there is none.
func (n *Nodes) List() []overlay.Node {
	objects := n.informer.GetStore().List()
	nodes := make([]overlay.Node, 0, len(objects))
	for _, object := range objects {
		if node, ok := object.(*corev1.Node); ok {
			nodes = append(nodes, Node(node))
		}
	}
	return nodes
}

// Enforced returns what nodes say that they enforce, by node. It is not the mesh's: Changed does not fire for it.
func (n *Nodes) Enforced() map[string]string {
	out := map[string]string{}
	for _, object := range n.informer.GetStore().List() {
		if node, ok := object.(*corev1.Node); ok && node.Annotations[EnforcedAnnotation] != "" {
			out[node.Name] = node.Annotations[EnforcedAnnotation]
		}
	}
	return out
}
