package kube

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"

	"github.com/kithnet/kith/policy"
)

const (
	firstAsk = 50 * time.Millisecond
	lastAsk  = 5 * time.Second
)

// departures holds a policy's deletion back until it is known why. Where its namespace ends, the API server may delete
// policies before the pods that they isolate (CVE-2024-7598; KEP-5080 orders it since Kubernetes 1.33): there they stay
// until the namespace is gone. While the API server does not answer, they stay too.
type departures struct {
	client kubernetes.Interface
	leave  func(policy.Name) // called under mu
	stay   func(policy.Name) // called under mu, for what stays until its namespace is gone
	begun  chan string       // namespaces to ask about
	ended  chan struct{}     // closed when nobody asks any more

	mu     sync.Mutex
	held   map[string][]string // names of policies by namespace
	ending map[string]bool     // namespaces that are known to end
}

func newDepartures(client kubernetes.Interface, leave, stay func(policy.Name)) *departures {
	return &departures{
		client: client, leave: leave, stay: stay, ending: map[string]bool{}, begun: make(chan string), ended: make(chan struct{}), held: map[string][]string{},
	}
}

// hold takes note of a deletion.
func (d *departures) hold(n policy.Name) {
	d.mu.Lock()
	names := d.held[n.Namespace]
	d.held[n.Namespace] = append(names, n.Name)
	if d.ending[n.Namespace] {
		d.stay(n)
	}
	d.mu.Unlock()
	if len(names) > 0 {
		return
	}
	select {
	case d.begun <- n.Namespace:
	case <-d.ended:
	}
}

// back does what is due for a policy that is there, again or still, instead of a deletion that was held.
func (d *departures) back(n policy.Name, do func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if names := d.held[n.Namespace]; slices.Contains(names, n.Name) {
		// The list stays, if empty: its namespace is being asked about.
		d.held[n.Namespace] = slices.DeleteFunc(names, func(s string) bool { return s == n.Name })
	}
	do()
}

func (d *departures) run(ctx context.Context) {
	defer close(d.ended)
	var asking errgroup.Group
	for {
		select {
		case <-ctx.Done():
			_ = asking.Wait() // never fails
			return
		case namespace := <-d.begun:
			asking.Go(func() error { d.settle(ctx, namespace); return nil })
		}
	}
}

// settle lets the policies of a namespace go, once it is known that the namespace stays or is gone.
func (d *departures) settle(ctx context.Context, namespace string) {
	delay := firstAsk
	for d.waiting(namespace) && ctx.Err() == nil {
		names := d.names(namespace)
		if err := d.decided(ctx, namespace); err == nil {
			d.release(namespace, names)
			delay = firstAsk
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(delay):
		}
		delay = min(2*delay, lastAsk)
	}
}

// end takes note that a namespace ends: its policies stay as they are, and nobody needs to wait for their deletion.
func (d *departures) end(namespace string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ending[namespace] = true
	for _, name := range d.held[namespace] {
		d.stay(policy.Name{Namespace: namespace, Name: name})
	}
}

func (d *departures) names(namespace string) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.held[namespace])
}

// waiting says whether anything is held, and if not forgets the namespace.
func (d *departures) waiting(namespace string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.held[namespace]) == 0 {
		delete(d.held, namespace)
		delete(d.ending, namespace)
		return false
	}
	return true
}

// release lets go those of the names that are still held.
func (d *departures) release(namespace string, names []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.held[namespace] = slices.DeleteFunc(d.held[namespace], func(name string) bool {
		if !slices.Contains(names, name) {
			return false
		}
		d.leave(policy.Name{Namespace: namespace, Name: name})
		return true
	})
}

// decided returns when the API server says that the namespace is not being deleted, or is gone.
func (d *departures) decided(ctx context.Context, namespace string) error {
	spaces := d.client.CoreV1().Namespaces()
	one := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, namespace).String()}
	list, err := spaces.List(ctx, one)
	if err != nil {
		return fmt.Errorf("ask whether namespace %s ends: %w", namespace, err)
	}
	if !slices.ContainsFunc(list.Items, func(n corev1.Namespace) bool { return n.Name == namespace && n.DeletionTimestamp != nil }) {
		return nil
	}
	d.end(namespace)
	one.ResourceVersion = list.ResourceVersion
	events, err := spaces.Watch(ctx, one)
	if err != nil {
		return fmt.Errorf("watch namespace %s end: %w", namespace, err)
	}
	defer events.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e, open := <-events.ResultChan():
			if !open {
				return fmt.Errorf("watch namespace %s end: the watch ended first", namespace)
			}
			if n, ok := e.Object.(*corev1.Namespace); ok && n.Name == namespace && e.Type == watch.Deleted {
				return nil
			}
		}
	}
}
