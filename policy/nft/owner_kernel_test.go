//go:build kernel

package nft

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
	"github.com/kithnet/kith/policy/ruleset"
)

// tryTool gives commands to the nft tool, which may refuse them.
func tryTool(t testing.TB, l *lab, commands string) {
	t.Helper()
	inside(t, l.router.ns, func() {
		cmd := exec.Command("nft", "-f", "-")
		cmd.Stdin = bytes.NewBufferString(commands)
		out, err := cmd.CombinedOutput()
		t.Logf("%s: %v %s", commands, err, bytes.TrimSpace(out))
	})
}

// mustOwn makes sure that the kernel has tables with owners: all that this project is tested on have.
func mustOwn(t testing.TB, table *Table) {
	t.Helper()
	mustRead(t, table)
	if !table.Owns() {
		t.Fatal("the table is not this process's alone")
	}
}

// TestNobodyOpensTheTable: while we live, nothing that others do to all tables, or to ours, lets a denied packet through.
func TestNobodyOpensTheTable(t *testing.T) {
	nftTool(t, newNamespace(t), "", "--version")
	families(t, func(t *testing.T, family int) {
		l := newLab(t)
		l.under(isolates("pod0", policy.Ingress))
		mustOwn(t, l.table)
		before := mustRead(t, l.table)
		f := l.between(l.remotes[0], l.pods[0].end, family, identity.UDP, 80)
		word := newWord()
		ctx, cancel := context.WithCancel(t.Context())
		var sending sync.WaitGroup
		sending.Go(func() {
			for tick := time.NewTicker(time.Millisecond); ctx.Err() == nil; <-tick.C {
				l.inject(l.mesh, l.toRouter(l.mesh, udpPacket(f, 1234, word)))
			}
		})
		arrived := l.seen(l.pods[0].end, word, soon, func() {
			for _, commands := range []string{
				"flush ruleset", "flush table inet kith", "delete table inet kith",
				"insert rule inet kith forward_ingress accept", "flush chain inet kith forward_ingress",
				"add table inet kith { flags dormant; }", "flush ruleset\nadd table inet kith\nadd chain inet kith mine",
			} {
				tryTool(t, l, commands)
			}
		})
		cancel()
		sending.Wait()
		if arrived {
			t.Error("a denied packet arrived")
		}
		sameRuleset(t, l.table, before)
		must(t, "end", l.table.Close())
		word = newWord()
		if l.seen(l.pods[0].end, word, soon, func() { l.inject(l.mesh, l.toRouter(l.mesh, udpPacket(f, 1234, word))) }) {
			t.Error("a denied packet arrived after the owner's end")
		}
		l.table = openTable(t, l.router.ns)
		mustOwn(t, l.table)
		tryTool(t, l, "flush ruleset")
		if len(mustRead(t, l.table).Chains) == 0 {
			t.Error("the next owner's table went with all others")
		}
	})
}

// TestTableOfAnotherProcess is left alone, with an error that says so, until that process ends.
func TestTableOfAnotherProcess(t *testing.T) {
	ns := newNamespace(t)
	first, second := openTable(t, ns), openTable(t, ns)
	converge(t, first, everything())
	if _, err := second.Read(t.Context()); !errors.Is(err, ErrOwned) {
		t.Errorf("reading gives %v", err)
	}
	second.sets = map[string]ruleset.SetSpec{}
	if err := second.Apply(t.Context(), ruleset.Transaction{DeleteChains: []string{"allowed"}}); err == nil {
		t.Error("another's chain could be deleted")
	}
	must(t, "end", first.Close())
	sameRuleset(t, second, everything())
	mustOwn(t, second)
	converge(t, second, ruleset.Ruleset{})
}

// TestTableWithoutOwner, of a process or a kernel that has none, is written as it is, and belongs to its writer once he makes
// it anew.
func TestTableWithoutOwner(t *testing.T) {
	ns := newNamespace(t)
	before, table := openTable(t, ns, Shared()), openTable(t, ns)
	converge(t, before, everything())
	sameRuleset(t, table, everything())
	if table.Owns() {
		t.Error("a table without an owner has one")
	}
	must(t, "write", table.Apply(t.Context(), ruleset.Transaction{AddChains: []ruleset.ChainSpec{{Name: "more"}}}))
	if _, ok := mustRead(t, table).Chains["more"]; !ok || table.Owns() {
		t.Errorf("there %t, owner %t", ok, table.Owns())
	}
	before.conn.DelTable(before.kernel)
	must(t, "delete table", before.conn.Flush())
	converge(t, table, everything())
	mustOwn(t, table)
	table.conn.DelTable(table.kernel)
	table.conn.AddTable(&nftables.Table{Name: ruleset.Table, Family: nftables.TableFamilyINet})
	must(t, "make table anew", table.conn.Flush())
	mustOwn(t, table)
}

// TestQuestionsChangeNothing: to find out what the kernel can do makes no change that anybody hears of.
func TestQuestionsChangeNothing(t *testing.T) {
	ns := newNamespace(t)
	table := openTable(t, ns)
	before := generation(t, table)
	var limit, reset error
	inside(t, ns, func() { limit, reset = CanLimit(), CanReset() })
	if err := errors.Join(limit, reset); err != nil {
		t.Error(err)
	}
	openTable(t, ns)
	if after := generation(t, table); after != before {
		t.Errorf("the kernel's ruleset is of generation %d, was of %d", after, before)
	}
	var unknown error
	inside(t, ns, func() { unknown = try(&expr.Lookup{SourceRegister: 1, SetName: "missing"}) })
	if unknown == nil {
		t.Error("what the kernel refuses passes for something that it can do")
	}
}
