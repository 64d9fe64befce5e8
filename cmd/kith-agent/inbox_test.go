package main

import (
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kithnet/kith/identity"
	identitykube "github.com/kithnet/kith/identity/kube"
	"github.com/kithnet/kith/policy"
	policykube "github.com/kithnet/kith/policy/kube"
	"github.com/kithnet/kith/policy/ruleset"
	"k8s.io/apimachinery/pkg/labels"
)

func orderedAgent(log *slog.Logger) *agent {
	a := &agent{log: log, screen: newScreen(), enforcer: newEnforcer(log, nil)}
	a.order = newOrder(log, a.enforcer, a.screen, orderSources{}, func() int { return 1 })
	return a
}

// TestChurnHoldsNobodyUp: while the kernel is written, a pod may change its labels, and a policy its rules, any number of
// times: the watches go on, and of each object one change waits.
func TestChurnHoldsNobodyUp(t *testing.T) {
	const times = 3 * batch
	log := slog.New(slog.DiscardHandler)
	a := orderedAgent(log) // its enforcer is busy with something else
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range times {
			a.podsChanged(identitykube.PodChange{Put: []identity.Pod{{Namespace: "shop", Name: "api", UID: "u1", Labels: map[string]string{"n": fmt.Sprint(i)}}}})
			p := policy.Policy{Namespace: "shop", Name: fmt.Sprint("p", i%2), Subject: labels.Everything()}
			a.policyChanged(policykube.Change{Name: p.Key(), Put: &p})
			a.namespacesChanged(identitykube.NamespaceChange{Put: []identity.Namespace{{Name: "shop"}}})
		}
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("the watches wait for the enforcer")
	}
	a.enforcer.inbox.squeeze()
	if n := len(a.enforcer.inbox.changes); n != 4 {
		t.Errorf("%d changes wait of 4 objects", n)
	}
	a.enforcer.inbox.drain(a.enforcer.compiler)
	if n := a.enforcer.compiler.Counts(); n.Pods != 1 || n.Policies != 2 || n.Namespaces != 1 || n.Identities != 1 {
		t.Errorf("the compiler has %+v", n)
	}
}

// TestInboxForgets: what was overtaken takes no memory for long.
func TestInboxForgets(t *testing.T) {
	var b inbox
	for range 100 * batch {
		b.put("object", func(*ruleset.Compiler) {})
	}
	if n := len(b.changes); n > 2*batch {
		t.Errorf("%d changes are kept of one object", n)
	}
}

// TestTheLastOfAll: a list of all pods does not undo what came after it, nor does what came before it undo the list.
func TestTheLastOfAll(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	a := orderedAgent(log)
	pod := func(name, uid string) identity.Pod { return identity.Pod{Namespace: "shop", Name: name, UID: uid} }
	a.podsChanged(identitykube.PodChange{Put: []identity.Pod{pod("a", "1")}})
	a.podsChanged(identitykube.PodChange{Put: []identity.Pod{pod("b", "1")}})
	a.podsChanged(identitykube.PodChange{All: true, Put: []identity.Pod{pod("a", "1"), pod("c", "1")}})
	a.podsChanged(identitykube.PodChange{Delete: []identity.PodKey{{Namespace: "shop", Name: "a"}}})
	a.podsChanged(identitykube.PodChange{Put: []identity.Pod{pod("d", "1")}})
	a.enforcer.inbox.drain(a.enforcer.compiler)
	if n := a.enforcer.compiler.Counts().Pods; n != 2 {
		t.Errorf("%d pods, want c and d", n)
	}
}

// TestAwaitSeesWhatWasHandedInBefore: a pod opens with what the watches handed in before its ADD went on, also where the
// enforcer has not been woken for it yet.
func TestAwaitSeesWhatWasHandedInBefore(t *testing.T) {
	e := newEnforcer(slog.New(slog.DiscardHandler), &memoryTable{})
	var seen atomic.Bool
	e.inbox.put("object", func(*ruleset.Compiler) { seen.Store(true) })
	e.take(update{change: func(*ruleset.Compiler) {
		if !seen.Load() {
			t.Error("an update is taken without what was handed in before it")
		}
	}})
}
