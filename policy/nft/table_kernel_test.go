//go:build kernel

package nft

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/kithnet/kith/policy/ruleset"
)

func mustRead(t testing.TB, table *Table) ruleset.Ruleset {
	t.Helper()
	have, err := table.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return have
}

// converge makes the table what is wanted, as the agent does.
func converge(t testing.TB, table *Table, want ruleset.Ruleset) ruleset.Transaction {
	t.Helper()
	tx := ruleset.Diff(mustRead(t, table), want)
	if err := table.Apply(t.Context(), tx); err != nil {
		t.Fatal(err)
	}
	return tx
}

func sameRuleset(t testing.TB, table *Table, want ruleset.Ruleset) {
	t.Helper()
	if diff := cmp.Diff(want, mustRead(t, table), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("the kernel has (+) what is not wanted (-):\n%s", diff)
	}
}

func TestKernelHasWhatWasWritten(t *testing.T) {
	table := openTable(t, newNamespace(t))
	want := everything()
	converge(t, table, want)
	sameRuleset(t, table, want)
	before := generation(t, table)
	if tx := converge(t, table, want); !tx.Empty() {
		t.Errorf("a second run would write %+v", tx)
	}
	if after := generation(t, table); after != before {
		t.Errorf("a second run made generation %d of %d", after, before)
	}
}

func TestKernelRemovesWhatIsNotWanted(t *testing.T) {
	table := openTable(t, newNamespace(t))
	converge(t, table, everything())
	want := ruleset.Ruleset{}
	converge(t, table, want)
	sameRuleset(t, table, want)
}
