//go:build kernel

package nft

import (
	"context"
	"testing"
	"time"

	"github.com/kithnet/kith/policy/ruleset"
)

func tells(changed <-chan struct{}, patience time.Duration) bool {
	select {
	case _, ok := <-changed:
		return ok
	case <-time.After(patience):
		return false
	}
}

func TestWatchTellsWhatOthersDo(t *testing.T) {
	ns := newNamespace(t)
	table, other := openTable(t, ns, Shared()), openTable(t, ns, Shared())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	changed := table.Watch(ctx)
	want, _ := elements(20000)
	converge(t, table, want)
	if tells(changed, soon) {
		t.Error("told of what we did ourselves")
	}
	mustRead(t, other)
	one := ruleset.Transaction{AddElements: []ruleset.ElementChange{{Set: "many", Key: podAddress(20001)}}}
	if err := other.Apply(ctx, one); err != nil {
		t.Fatal(err)
	}
	if !tells(changed, late) {
		t.Error("not told of another's element")
	}
	converge(t, other, ruleset.Ruleset{})
	if !tells(changed, late) {
		t.Error("not told that sets and chains went")
	}
	for tells(changed, soon) {
	}
	cancel()
	select {
	case <-changed:
	case <-time.After(late):
		t.Error("the channel does not close when the context ends")
	}
}

func TestWatchTellsOfTheTool(t *testing.T) {
	ns := newNamespace(t)
	table := openTable(t, ns, Shared())
	changed := table.Watch(t.Context())
	converge(t, table, everything())
	nftTool(t, ns, "add table inet other; add set inet other s { type mark; }", "-f", "-")
	if tells(changed, soon) {
		t.Error("told of another table")
	}
	nftTool(t, ns, "", "flush", "ruleset")
	if !tells(changed, late) {
		t.Error("not told that the table went")
	}
	converge(t, table, everything())
	sameRuleset(t, table, everything())
}
