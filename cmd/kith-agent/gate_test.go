package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kithnet/kith/cni"
	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
	"github.com/kithnet/kith/policy/ruleset"
)

// late is a source whose watch has things under way: CatchUp returns when they have arrived.
type late struct{ arrived chan error }

func newLate() late { return late{make(chan error, 1)} }

func (l late) CatchUp(ctx context.Context, _ identity.PodKey) error {
	select {
	case err := <-l.arrived:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// TestADDKnowsWhatWasSaidBefore: a policy and a label made before ADD count in it, in whatever order the watches bring
// them, also when the pod itself has been known for long.
func TestADDKnowsWhatWasSaidBefore(t *testing.T) {
	things := []func(*ruleset.Compiler){
		putPod,
		func(c *ruleset.Compiler) {
			c.PutNamespace(identity.Namespace{Name: "shop", Labels: map[string]string{"zone": "red"}})
		},
		func(c *ruleset.Compiler) {
			own := policy.Rule{Peers: []policy.Peer{{Namespaces: labels.SelectorFromSet(labels.Set{"zone": "red"}), Pods: labels.Everything()}}, AllPorts: true}
			c.PutPolicy(policy.Policy{Namespace: "shop", Name: "red-only", Subject: labels.Everything(), Ingress: &policy.Rules{own}})
		},
	}
	for seed := range uint64(30) {
		table := &memoryTable{}
		e, _ := startEnforcer(t, table)
		e.Update(func(c *ruleset.Compiler) { putInput(c); putPod(c) })
		e.Complete()
		g := gate{enforcer: e}
		var sources []late
		for range things {
			sources = append(sources, newLate())
			g.sources = append(g.sources, sources[len(sources)-1])
		}
		opened := make(chan error, 1)
		go func() { opened <- g.Open(t.Context(), testAttachment) }()
		for _, i := range rand.New(rand.NewPCG(seed, 1)).Perm(len(things)) {
			if have, _ := table.Read(t.Context()); have.Sets != nil && len(have.Sets[ruleset.SetPods4].Elements) > 0 {
				t.Fatalf("seed %d: open before all is known", seed)
			}
			e.Update(things[i])
			sources[i].arrived <- nil
		}
		if err := <-opened; err != nil {
			t.Fatal(err)
		}
		have, _ := table.Read(t.Context())
		if d := cmp.Diff(compiledWith(things).String(), have.String()); d != "" {
			t.Fatalf("seed %d: what is in the table when ADD returns (-want +got)\n%s", seed, d)
		}
	}
}

func compiledWith(things []func(*ruleset.Compiler)) ruleset.Ruleset {
	c := ruleset.NewCompiler()
	putInput(c)
	for _, put := range things {
		put(c)
	}
	c.PutAttachment(attachment(testAttachment))
	return c.Ruleset()
}

// TestADDWithoutAPIServer: nothing opens by what was known before, and the runtime is told to try again.
func TestADDWithoutAPIServer(t *testing.T) {
	table := &memoryTable{}
	e, _ := startEnforcer(t, table)
	e.Update(func(c *ruleset.Compiler) { putInput(c); putPod(c) })
	e.Complete()
	away := newLate()
	away.arrived <- errors.New("connection refused")
	err := gate{enforcer: e, sources: []source{newLate(), away}}.Open(t.Context(), testAttachment)
	if !errors.Is(err, cni.ErrUnavailable) {
		t.Errorf("Open: %v, want that it is not available now", err)
	}
	if have, _ := table.Read(t.Context()); have.Sets[ruleset.SetPods4] != nil && len(have.Sets[ruleset.SetPods4].Elements) > 0 {
		t.Error("the pod is open")
	}
}

// TestADDWaitsForTheAddress: an address that the API still gives to a pod before opens for no other.
func TestADDWaitsForTheAddress(t *testing.T) {
	table := &memoryTable{}
	e, _ := startEnforcer(t, table)
	before := identity.Pod{Namespace: "shop", Name: "before", UID: "u0", Addresses: testAttachment.Addresses}
	e.Update(func(c *ruleset.Compiler) { putInput(c); putPod(c); c.PutPod(before) })
	e.Complete()
	opened := make(chan error, 1)
	go func() { opened <- gate{enforcer: e}.Open(t.Context(), testAttachment) }()
	assertWaits(t, opened, "with an address of another pod")
	ended := before
	ended.Addresses = nil
	e.Update(func(c *ruleset.Compiler) { c.PutPod(ended) })
	if err := <-opened; err != nil {
		t.Error(err)
	}
}
