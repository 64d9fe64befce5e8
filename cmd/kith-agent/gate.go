package main

import (
	"context"
	"fmt"
	"time"

	"github.com/kithnet/kith/cni"
	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy/ruleset"
)

// closeLimit bounds how long a DEL waits for the kernel; the runtime tries again after it.
const closeLimit = 20 * time.Second

// gate opens and closes attachments through the enforcer. It is the CNI operations' cni.Gate.
type gate struct{ enforcer *enforcer }

// Open returns when the kernel holds the pod's policy and, by the same transaction, lets its veth's packets pass.
func (g gate) Open(ctx context.Context, a cni.Attachment) error {
	err := g.enforcer.Await(ctx,
		func(c *ruleset.Compiler) { c.PutAttachment(attachment(a)) },
		func(c *ruleset.Compiler) bool { return c.Opened(a.HostInterface) })
	if err != nil {
		return fmt.Errorf("pod %s/%s is not known to the agent, or its policy not in the kernel, in time (%w): %w",
			a.Pod.Namespace, a.Pod.Name, cni.ErrUnavailable, err)
	}
	return nil
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
