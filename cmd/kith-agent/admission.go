package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// admissionCheck tries, without effect, what the admission policy must refuse: to annotate another Node. All trust in
// the mesh rests on that refusal. What it cannot try, since it concerns others than agents, it compares with what is shipped.
type admissionCheck struct {
	log     *slog.Logger
	client  kubernetes.Interface
	shipped []admission

	mu      sync.Mutex
	problem string
	weak    []string
}

const (
	admissionEvery = time.Hour
	unguarded      = "the API server does not hold agents to their own Node: any node can speak for any other. " +
		"It needs the ValidatingAdmissionPolicy kith-node of Kith's manifest, and Kubernetes 1.30 or newer"
	// A dry run changes nothing; were it to, nobody would read this.
	admissionPatch = `{"metadata":{"annotations":{"kith.network/admission-check":"1"}}}`
)

// Problems says what is wrong, as far as is known.
func (c *admissionCheck) Problems() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.problem == "" {
		return slices.Clone(c.weak)
	}
	return append([]string{c.problem}, c.weak...)
}

// watch compares the policies now and then with those that are shipped.
func (c *admissionCheck) watch(ctx context.Context) error {
	for {
		wait := admissionEvery
		if err := c.compare(ctx); err != nil {
			wait = lastRetry
			c.log.Debug("admission policies not compared", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// compare says what is wrong with the policies that the API server has. Without an answer, what was known stays.
func (c *admissionCheck) compare(ctx context.Context) error {
	var weak []string
	for _, want := range c.shipped {
		problem, err := want.problem(ctx, c.client)
		if err != nil {
			return err
		}
		if problem != "" {
			weak = append(weak, problem)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(weak) > 0 && !slices.Equal(weak, c.weak) {
		c.log.Error("the cluster is not safe", "problems", weak)
	}
	c.weak = weak
	return nil
}

// run checks now and then, on any Node that other returns. A cluster of one node has nobody to be held apart from.
func (c *admissionCheck) run(ctx context.Context, other func() (string, bool)) error {
	for {
		wait := admissionEvery
		if name, ok := other(); !ok {
			wait = lookEvery
		} else if err := c.try(ctx, name); err != nil {
			wait = lastRetry
			c.log.Debug("admission policy not checked", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

func (c *admissionCheck) try(ctx context.Context, node string) error {
	_, err := c.client.CoreV1().Nodes().Patch(ctx, node, types.MergePatchType, []byte(admissionPatch),
		metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}})
	problem := ""
	switch {
	case err == nil:
		problem = unguarded
		c.log.Error("the mesh is not safe", "problem", problem)
	case !apierrors.IsForbidden(err):
		return fmt.Errorf("try to annotate node %s: %w", node, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.problem = problem
	return nil
}

// checkAdmission tells whether the API server holds agents to their own Node.
func (a *agent) checkAdmission(ctx context.Context) error {
	if err := a.nodes.WaitSynced(ctx); err != nil {
		return nil
	}
	return a.admission.run(ctx, func() (string, bool) {
		for _, n := range a.nodes.List() {
			if n.Name != a.node {
				return n.Name, true
			}
		}
		return "", false
	})
}
