package main

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/kithnet/kith/overlay"
	policykube "github.com/kithnet/kith/policy/kube"
)

// decrees are the ClusterNetworkPolicies that the enforcer has taken, and the digest of those that the kernel has.
type decrees struct {
	mu     sync.Mutex
	all    map[string]policykube.Object
	taken  bool // something, since the kernel was written
	kernel string
}

// take is called by the enforcer with the rest of its input, so that a write has all that was taken before it.
func (d *decrees) take(c policykube.Change) {
	if c.Name.Namespace != "" {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.all == nil {
		d.all = map[string]policykube.Object{}
	}
	d.taken = true
	delete(d.all, c.Name.Name)
	if c.Object != nil {
		d.all[c.Name.Name] = *c.Object
	}
}

// written says that the kernel has all that was taken.
func (d *decrees) written() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.taken || d.kernel == "" {
		d.kernel, d.taken = policykube.Digest(slices.Collect(maps.Values(d.all))), false
	}
}

func (d *decrees) list() []policykube.Object {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Collect(maps.Values(d.all))
}

// digest is that of what the kernel has; empty: nothing is known of the kernel yet.
func (d *decrees) digest() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.kernel
}

// written is told after each attempt to write.
func (a *agent) written() {
	if a.enforcer.Enforcement().Enforcing {
		a.decrees.written()
	}
	a.move()
}

// settle is how long what nodes enforce must stay the same before it is told, and how often it is looked at.
const settle = time.Second

// tellEnforced keeps on this node's Node object which cluster policies its kernel has.
func (a *agent) tellEnforced(ctx context.Context) error {
	if err := a.nodes.WaitSynced(ctx); err != nil {
		return nil
	}
	look := time.NewTicker(settle)
	defer look.Stop()
	for {
		if digest := a.decrees.digest(); digest != "" {
			if err := a.nodes.PublishEnforced(ctx, digest); err != nil {
				return ignoreEnd(ctx, err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
		}
	}
}

// writeConditions keeps the conditions of all ClusterNetworkPolicies true, as long as it is this node that does.
func (a *agent) writeConditions(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-a.meshed:
	}
	c := clerk{
		log: a.log, nodes: a.nodes.Enforced, set: a.over.SetStatus, now: time.Now,
		policies: func() []policykube.Object {
			if a.decrees.digest() == "" || !first(a.node, a.gossip.Members()) {
				return nil
			}
			return a.decrees.list()
		},
	}
	c.run(ctx)
	return nil
}

// first says whether a node's name comes before those of all others that live: one writes what all know.
func first(node string, members []overlay.Member) bool {
	return !slices.ContainsFunc(members, func(m overlay.Member) bool { return m.Alive && m.Name < node })
}

// clerk writes conditions.
type clerk struct {
	log      *slog.Logger
	policies func() []policykube.Object // none: it is for another to write
	nodes    func() map[string]string   // the digest of what each enforces
	set      func(context.Context, policykube.Status) error
	now      func() time.Time

	seen map[string]string
	last string // the digest of the policies when looked at last
}

func (c *clerk) run(ctx context.Context) {
	for wait := settle; ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		err := c.look(ctx)
		if err == nil || ctx.Err() != nil {
			wait = settle
			continue
		}
		if wait == settle {
			c.log.Warn("conditions not written yet", "error", err)
		}
		wait = min(2*wait, lastRetry)
	}
}

// look writes what is to be written, once nothing has changed since the last look.
func (c *clerk) look(ctx context.Context) error {
	policies, nodes := c.policies(), c.nodes()
	if len(policies) == 0 {
		return nil
	}
	digest := policykube.Digest(policies)
	settled := digest == c.last && maps.Equal(nodes, c.seen)
	c.last, c.seen = digest, nodes
	if !settled {
		return nil
	}
	for _, s := range policykube.Conditions(policies, nodes, c.now()) {
		if err := c.set(ctx, s); err != nil {
			return err
		}
	}
	return nil
}
