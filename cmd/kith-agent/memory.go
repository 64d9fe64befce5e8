package main

import (
	"cmp"
	"context"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/kithnet/kith/overlay"
	"github.com/kithnet/kith/overlay/disk"
	overlaykube "github.com/kithnet/kith/overlay/kube"
)

// knownNodes are those that the API server lists or, as long as it has not answered since this agent started, those
// that were remembered: with what they are granted, never with what they ask for.
type knownNodes struct {
	live       *overlaykube.Nodes
	remembered []overlay.Node
	bounds     func() overlay.Bounds
	reached    func([]overlay.Node) []overlay.Node // with what their claims say

	mu      sync.Mutex
	granted []overlay.Node // at the last look
}

func newKnownNodes(live *overlaykube.Nodes, remembered []overlay.Node, bounds func() overlay.Bounds, claims *notary) *knownNodes {
	return &knownNodes{live: live, remembered: remembered, bounds: bounds, reached: claims.Reached, granted: remembered}
}

// List returns all nodes, with their grants.
func (k *knownNodes) List() []overlay.Node { return k.Grants().Nodes }

// Grants returns all nodes with what they are granted, and what was refused.
func (k *knownNodes) Grants() overlay.Grants {
	nodes := k.remembered
	if k.live.HasSynced() {
		nodes = k.live.List()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	g := overlay.Grant(k.bounds(), k.reached(nodes), k.granted)
	k.granted = g.Nodes
	return g
}

func (k *knownNodes) Changed() <-chan struct{} { return k.live.Changed() }

// answerLimit is how long an agent that remembers waits for the API server.
const answerLimit = 5 * time.Second

// await returns when nodes are known.
func (k *knownNodes) await(ctx context.Context) error {
	if len(k.remembered) == 0 {
		return k.live.WaitSynced(ctx)
	}
	limited, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	if err := k.live.WaitSynced(limited); err != nil {
		return ctx.Err()
	}
	return nil
}

// rememberEvery spaces writes of the memory.
const rememberEvery = time.Second

// remember keeps on disk what this node needs to find its place in the mesh without the API server, and what it has
// heard of since: Node objects may be behind.
func (a *agent) remember(ctx context.Context) error {
	var last disk.Memory
	told := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.memorable:
		}
		now, ok := a.memory()
		if !ok || reflect.DeepEqual(last, now) {
			continue
		}
		if err := a.folder.SaveMemory(now); err == nil {
			last, told = now, ""
		} else if err.Error() != told {
			told = err.Error()
			a.log.Error("mesh not remembered", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(rememberEvery):
		}
	}
}

// memory is what there is to remember, if there is.
func (a *agent) memory() (disk.Memory, bool) {
	keys, err := a.secret.Keys()
	nodes := a.notary.Published(a.known.List())
	slices.SortFunc(nodes, func(x, y overlay.Node) int { return cmp.Compare(x.Name, y.Name) })
	return disk.Memory{Nodes: nodes, GossipKeys: keys}, err == nil && len(nodes) > 0
}

// recall reads what was remembered, and lets its claims hold against older ones of the same nodes. What cannot be used
// is told and is as nothing.
func (a *agent) recall() disk.Memory {
	m, err := a.folder.LoadMemory()
	if err != nil {
		a.log.Warn("remembered mesh is not used: this node waits for the API server", "error", err)
		return disk.Memory{}
	}
	a.notary.SetNodes(m.Nodes)
	return m
}
