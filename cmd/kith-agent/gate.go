package main

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kithnet/kith/cni"
	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy/ruleset"
)

// source is a watch that says when it has kept up with the API server.
type source interface {
	// CatchUp returns when the enforcer has been handed all that the API server now says about a pod.
	CatchUp(context.Context, identity.PodKey) error
}

// closeLimit bounds how long a DEL waits for the kernel; the runtime tries again after it.
const closeLimit = 20 * time.Second

// gate opens and closes attachments through the enforcer. It is the CNI operations' cni.Gate.
type gate struct {
	enforcer *enforcer
	sources  []source
	order    *order // nil: nothing is held
}

// Open returns when the kernel holds the pod's policy and, by the same transaction, lets its veth's packets pass. What
// was said to the API server before the call is in that policy: a watch alone could bring it later. While the API
// server does not answer, nothing opens.
func (g gate) Open(ctx context.Context, a cni.Attachment) error {
	pod := identity.PodKey{Namespace: a.Pod.Namespace, Name: a.Pod.Name}
	if err := g.catchUp(ctx, pod); err != nil {
		return fmt.Errorf("policy of pod %s is not known for certain (%w): %w", pod, cni.ErrUnavailable, err)
	}
	// What was said before the call may have been handed on and wait for earlier policies.
	err := g.enforcer.Await(ctx, func(*ruleset.Compiler) {}, func(*ruleset.Compiler) bool { return g.order == nil || !g.order.holds(pod) })
	if err != nil {
		return fmt.Errorf("labels of pod %s, or of its namespace, wait for policies made before them (%w): %w", pod, cni.ErrUnavailable, err)
	}
	// Other nodes know an address by the API. Had they another pod's identity for it, they would let pass what that
	// pod may.
	err = g.enforcer.Await(ctx, func(*ruleset.Compiler) {},
		func(c *ruleset.Compiler) bool { return !c.Claimed(attachment(a)) })
	if err != nil {
		return fmt.Errorf("an address of pod %s, of %v, is another pod's in the API (%w): %w", pod, a.Addresses, cni.ErrUnavailable, err)
	}
	err = g.enforcer.Await(ctx,
		func(c *ruleset.Compiler) { c.PutAttachment(attachment(a)) },
		func(c *ruleset.Compiler) bool { return c.Opened(a.HostInterface) })
	if err != nil {
		return fmt.Errorf("pod %s/%s is not known to the agent, or its policy not in the kernel, in time (%w): %w",
			a.Pod.Namespace, a.Pod.Name, cni.ErrUnavailable, err)
	}
	return nil
}

func (g gate) catchUp(ctx context.Context, pod identity.PodKey) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, s := range g.sources {
		group.Go(func() error { return s.CatchUp(ctx, pod) })
	}
	return group.Wait()
}

// Close returns when the attachment's packets do not pass. Before the agent's first write they pass until the veth
// is deleted, which is the caller's next step; waiting for the API server then would only hold that up.
func (g gate) Close(ctx context.Context, a cni.Attachment) error {
	forget := func(c *ruleset.Compiler) { c.DeleteAttachment(a.HostInterface) }
	if !isClosed(g.enforcer.complete) {
		g.enforcer.Update(forget)
		return nil
	}
	// An undo has no deadline of its own; a kernel that refuses writes must not hold it for ever.
	ctx, cancel := context.WithTimeout(ctx, closeLimit)
	defer cancel()
	return g.enforcer.Await(ctx, forget, func(*ruleset.Compiler) bool { return true })
}

// Check returns why the attachment is not open, or nil.
func (g gate) Check(ctx context.Context, a cni.Attachment) error {
	var opened bool
	err := g.enforcer.Await(ctx, func(*ruleset.Compiler) {}, func(c *ruleset.Compiler) bool {
		opened = c.Opened(a.HostInterface)
		return true
	})
	if err == nil && !opened {
		err = fmt.Errorf("attachment %s is closed: pod %s/%s is not known to the API server", a.Key, a.Pod.Namespace, a.Pod.Name)
	}
	return err
}

func attachment(a cni.Attachment) ruleset.Attachment {
	return ruleset.Attachment{
		Pod:       identity.PodKey{Namespace: a.Pod.Namespace, Name: a.Pod.Name},
		UID:       a.Pod.UID,
		Interface: a.HostInterface,
		MAC:       ruleset.MAC(a.PodMAC),
		Addresses: a.Addresses,
	}
}
