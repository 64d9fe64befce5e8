package main

import (
	"cmp"
	"context"
	"reflect"
	"slices"
	"time"

	"github.com/kithnet/kith/overlay"
	"github.com/kithnet/kith/overlay/disk"
	overlaykube "github.com/kithnet/kith/overlay/kube"
)

// knownNodes are those that the API server lists or, as long as it has not answered since this agent started, those
// that were remembered.
type knownNodes struct {
	live       *overlaykube.Nodes
	remembered []overlay.Node
}

func (k knownNodes) List() []overlay.Node {
	if k.live.HasSynced() {
		return k.live.List()
	}
	return k.remembered
}

func (k knownNodes) Changed() <-chan struct{} { return k.live.Changed() }

// answerLimit is how long an agent that remembers waits for the API server.
const answerLimit = 5 * time.Second

// await returns when nodes are known.
func (k knownNodes) await(ctx context.Context) error {
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

// remember keeps on disk what this node needs to find its place in the mesh without the API server.
func (a *agent) remember(ctx context.Context) error {
	var last disk.Memory
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.memorable:
		}
		keys, err := a.secret.Keys()
		if !a.nodes.HasSynced() || err != nil {
			continue
		}
		now := disk.Memory{Nodes: a.notary.Published(a.nodes.List()), GossipKeys: keys}
		slices.SortFunc(now.Nodes, func(x, y overlay.Node) int { return cmp.Compare(x.Name, y.Name) })
		if reflect.DeepEqual(last, now) {
			continue
		}
		if err := a.folder.SaveMemory(now); err != nil {
			a.log.Error("mesh not remembered", "error", err)
		} else {
			last = now
		}
		select {
		case <-ctx.Done():
		case <-time.After(rememberEvery):
		}
	}
}

// recall reads what was remembered. What cannot be used is told and is as nothing.
func (a *agent) recall() disk.Memory {
	m, err := a.folder.LoadMemory()
	if err != nil {
		a.log.Warn("remembered mesh is not used: this node waits for the API server", "error", err)
		return disk.Memory{}
	}
	return m
}
