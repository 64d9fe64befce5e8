package main

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/kithnet/kith/overlay"
	"github.com/kithnet/kith/policy"
	policykube "github.com/kithnet/kith/policy/kube"
	"github.com/kithnet/kith/policy/ruleset"
)

// TestOnlyWhatIsWrittenIsTold holds that the digest of what the kernel has changes after the write, not before it, and
// not when the write was refused.
func TestOnlyWhatIsWrittenIsTold(t *testing.T) {
	table := &memoryTable{}
	a := &agent{log: slog.New(slog.DiscardHandler), moved: make(chan struct{}, 1)}
	a.enforcer = newEnforcer(a.log, table)
	a.enforcer.moved = a.written
	a.enforcer.foreign = make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- a.enforcer.run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	await := func(change func(*ruleset.Compiler)) {
		t.Helper()
		if err := a.enforcer.Await(t.Context(), change, func(*ruleset.Compiler) bool { return true }); err != nil {
			t.Fatal(err)
		}
	}
	one := policykube.Object{Name: "one", UID: "1", Generation: 1}
	a.enforcer.Update(func(c *ruleset.Compiler) { putInput(c); putPod(c); c.PutAttachment(attachment(testAttachment)) })
	a.policyChanged(policykube.Change{Name: policy.Name{Namespace: "shop", Name: "one"}, Put: &policy.Policy{Namespace: "shop", Name: "one"}})
	if got := a.decrees.digest(); got != "" {
		t.Errorf("told %s before the input was complete", got)
	}
	a.enforcer.Complete()
	await(func(*ruleset.Compiler) {})
	none := policykube.Digest(nil)
	if got := a.decrees.digest(); got != none {
		t.Errorf("without policies: %s", got)
	}
	table.setRefuse(errors.New("no memory"))
	p := policy.Policy{Name: "one", Tier: policy.Admin, Namespaces: labels.Everything(), Subject: labels.Everything(), Egress: &policy.Rules{{Action: policy.Deny, AllPeers: true, AllPorts: true}}}
	a.policyChanged(policykube.Change{Name: p.Key(), Put: &p, Object: &one})
	for a.enforcer.Enforcement().Apply.Error == "" {
		time.Sleep(time.Millisecond)
	}
	if got := a.decrees.digest(); got != none || len(a.decrees.list()) != 1 {
		t.Errorf("refused by the kernel, and told: %s, %v", got, a.decrees.list())
	}
	table.setRefuse(nil)
	await(func(*ruleset.Compiler) {})
	if got := a.decrees.digest(); got != policykube.Digest([]policykube.Object{one}) {
		t.Errorf("in the kernel, and not told: %s", got)
	}
	a.policyChanged(policykube.Change{Name: p.Key()})
	await(func(*ruleset.Compiler) {})
	if got := a.decrees.digest(); got != none {
		t.Errorf("gone from the kernel, and not told: %s", got)
	}
}

func TestOneWrites(t *testing.T) {
	for _, tt := range []struct {
		node    string
		members []overlay.Member
		want    bool
	}{
		{"b", nil, true},
		{"b", []overlay.Member{{Name: "b", Alive: true}, {Name: "c", Alive: true}}, true},
		{"b", []overlay.Member{{Name: "a", Alive: true}, {Name: "b", Alive: true}}, false},
		{"b", []overlay.Member{{Name: "a"}, {Name: "b", Alive: true}}, true},
	} {
		if got := first(tt.node, tt.members); got != tt.want {
			t.Errorf("%s among %v: %t", tt.node, tt.members, got)
		}
	}
}

// TestConditionsSettle holds that conditions are written when nothing has changed between two looks, and that what was
// not written is tried again.
func TestConditionsSettle(t *testing.T) {
	object := policykube.Object{Name: "a", UID: "1", Generation: 1}
	digest := policykube.Digest([]policykube.Object{object})
	policies, nodes := []policykube.Object{object}, map[string]string{"n": "old"}
	var writes []string
	var refuse error
	c := clerk{
		now: time.Now, policies: func() []policykube.Object { return policies }, nodes: func() map[string]string { return nodes },
		set: func(_ context.Context, s policykube.Status) error {
			writes = append(writes, s.Conditions[1].Message)
			return refuse
		},
	}
	look := func(what string, n int) {
		t.Helper()
		if err := c.look(t.Context()); !errors.Is(err, refuse) || len(writes) != n {
			t.Errorf("%s: writes %q, error %v", what, writes, err)
		}
	}
	look("first look", 0)
	nodes = map[string]string{"n": digest}
	look("a node changed", 0)
	refuse = errors.New("away")
	look("settled", 1)
	look("again", 2)
	refuse = nil
	look("the API is back", 3)
	policies = nil
	look("for another to write", 3)
	if len(writes) > 0 && writes[0] != "enforced on 1 of 1 nodes" {
		t.Errorf("writes %q", writes)
	}
}
