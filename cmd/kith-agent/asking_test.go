package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kithnet/kith/identity"
	policykube "github.com/kithnet/kith/policy/kube"
	"github.com/kithnet/kith/policy/ruleset"
)

// counting is a source that is asked, and answers as ask does.
type counting struct {
	asked *atomic.Int64
	ask   func(context.Context) error
}

func (c counting) CatchUpAll(ctx context.Context) error { c.asked.Add(1); return c.ask(ctx) }

func (c counting) CatchUpIn(ctx context.Context, _ string) error { return c.CatchUpAll(ctx) }

func (c counting) CatchUpNamespaces(ctx context.Context) error { return c.CatchUpAll(ctx) }

func (c counting) CatchUpNamespace(ctx context.Context, _ string) error { return c.CatchUpAll(ctx) }

func answered(context.Context) error { return nil }

func never(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

// running starts an order and its enforcer in a bubble of time.
func running(t *testing.T, sources orderSources, nodes int) (*order, *enforcer) {
	t.Helper()
	e := newEnforcer(slog.New(slog.DiscardHandler), &memoryTable{})
	o := newOrder(e.log, e, newScreen(), sources, func() int { return nodes })
	for _, task := range []task{e.run, o.run} {
		go func() {
			if err := task(t.Context()); err != nil {
				t.Error(err)
			}
		}()
	}
	return o, e
}

// stake holds a change of a pod whose policies are those of namespaces.
func (o *order) stake(name string, namespaces ...string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	p := identity.Pod{Namespace: "shop", Name: name, UID: "u"}
	o.hold(p.Key(), heldChange{pod: &p, stake: ruleset.Stake{Namespaces: namespaces}})
}

// TestLabelChurnIsBounded: a thousand changes of labels a second are a few questions a second, in a large cluster fewer.
func TestLabelChurnIsBounded(t *testing.T) {
	for nodes, most := range map[int]int64{1: 20 + 5, 1000: 2*5 + 5} {
		synctest.Test(t, func(t *testing.T) {
			var asked atomic.Int64
			source := counting{&asked, answered}
			o, _ := running(t, orderSources{source, source, source}, nodes)
			const seconds = 10
			for i := range seconds * 1000 {
				o.stake(fmt.Sprint("pod", i%100), fmt.Sprint("ns", i%3))
				time.Sleep(time.Millisecond)
			}
			if n := asked.Load() / seconds; n < 1 || n > most {
				t.Errorf("%d nodes: %d questions a second, want at most %d", nodes, n, most)
			}
		})
	}
}

// TestChurningPodIsNotHeldForEver: who changes a label of his pod all the time does not keep another label from it.
func TestChurningPodIsNotHeldForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		source := counting{&asked, func(ctx context.Context) error { time.Sleep(20 * time.Millisecond); return nil }}
		o, e := running(t, orderSources{source, source, source}, 1)
		for i := range 1000 {
			o.mu.Lock()
			p := identity.Pod{Namespace: "shop", Name: "p", UID: "u", Labels: map[string]string{"quarantine": "1", "n": fmt.Sprint(i)}}
			o.hold(p.Key(), heldChange{pod: &p})
			o.mu.Unlock()
			time.Sleep(time.Millisecond)
		}
		known := make(chan bool, 1)
		e.Update(func(c *ruleset.Compiler) {
			_, ok := c.Known(identity.PodKey{Namespace: "shop", Name: "p"})
			known <- ok
		})
		if !<-known {
			t.Error("the pod has none of its labels after a second")
		}
		time.Sleep(time.Minute) // until all is asked
	})
}

// TestNobodyWaitsForAnothersAnswer: where one question has no answer, changes that need others take effect, and after the
// limit all do, which is said.
func TestNobodyWaitsForAnothersAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		o, _ := running(t, orderSources{counting{&asked, never}, counting{&asked, answered}, counting{&asked, answered}}, 1)
		o.stake("slow", "other")
		o.stake("fast")
		slow, fast := identity.PodKey{Namespace: "shop", Name: "slow"}, identity.PodKey{Namespace: "shop", Name: "fast"}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if !o.holds(slow) || o.holds(fast) {
			t.Errorf("held: slow %t, fast %t", o.holds(slow), o.holds(fast))
		}
		o.stake("fast") // and another one does not wait for what is asked already
		time.Sleep(orderLimit - time.Second)
		synctest.Wait()
		if !o.holds(slow) || o.holds(fast) || len(o.Problems()) > 0 {
			t.Errorf("before the limit: held: slow %t, fast %t; problems %v", o.holds(slow), o.holds(fast), o.Problems())
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if o.holds(slow) || len(o.Problems()) != 1 {
			t.Errorf("after the limit: held: %t; problems %v", o.holds(slow), o.Problems())
		}
	})
}

// TestStartKnowsAllPolicies: nothing is written before the policies are those of after the pods. Without an API server that
// is never; a watch that does not bring what is there holds up nobody for ever.
func TestStartKnowsAllPolicies(t *testing.T) {
	behind := func(ctx context.Context) error {
		<-ctx.Done()
		return fmt.Errorf("%w: %w", policykube.ErrBehind, ctx.Err())
	}
	for name, c := range map[string]struct {
		ask     func(context.Context) error
		writes  bool
		waiting time.Duration
	}{
		"answered":       {answered, true, time.Second},
		"no answer":      {never, false, time.Hour},
		"refused":        {func(context.Context) error { return errors.New("connection refused") }, false, time.Hour},
		"behind":         {behind, true, startLimit + time.Second},
		"behind for now": {behind, false, startLimit - time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var asked atomic.Int64
				o, e := running(t, orderSources{counting{&asked, c.ask}, upToDate{}, upToDate{}}, 1)
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error)
				go func() { done <- o.complete(ctx) }()
				time.Sleep(c.waiting)
				synctest.Wait()
				if isClosed(e.complete) != c.writes {
					t.Errorf("writes: %t", isClosed(e.complete))
				}
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}
