//go:build kernel

package nft

import (
	"context"
	"testing"
	"time"

	"github.com/kithnet/kith/policy/ruleset"
)

func told(changed <-chan struct{}) bool {
	select {
	case _, ok := <-changed:
		return ok
	case <-time.After(300 * time.Millisecond):
		return false
	}
}

func TestWatchTellsWhatOthersDo(t *testing.T) {
	ns := newNamespace(t)
	table, other := openTable(t, ns), openTable(t, ns)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	changed := table.Watch(ctx)
	want, _ := elements(20000)
	converge(t, table, want)
	if told(changed) {
		t.Error("told of what we did ourselves")
	}
	mustRead(t, other)
	one := ruleset.Transaction{AddElements: []ruleset.ElementChange{{Set: "many", Key: podAddress(20001)}}}
	if err := other.Apply(ctx, one); err != nil {
		t.Fatal(err)
	}
	if !told(changed) {
		t.Error("not told of another's element")
	}
	converge(t, other, ruleset.Ruleset{})
	if !told(changed) {
		t.Error("not told that sets and chains went")
	}
	for told(changed) {
	}
	cancel()
	select {
	case <-changed:
	case <-time.After(5 * time.Second):
		t.Error("the channel does not close when the context ends")
	}
}

func TestWatchTellsOfTheTool(t *testing.T) {
	ns := newNamespace(t)
	table := openTable(t, ns)
	changed := table.Watch(t.Context())
	converge(t, table, everything())
	nftTool(t, ns, "add table inet other; add set inet other s { type mark; }", "-f", "-")
	if told(changed) {
		t.Error("told of another table")
	}
	nftTool(t, ns, "", "flush", "ruleset")
	if !told(changed) {
		t.Error("not told that the table went")
	}
	converge(t, table, everything())
	sameRuleset(t, table, everything())
}
