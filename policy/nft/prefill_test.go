package nft

import (
	"math/rand/v2"
	"testing"

	"github.com/kithnet/kith/policy"
	"github.com/kithnet/kith/policy/random"
	"github.com/kithnet/kith/policy/ruleset"
	"github.com/kithnet/kith/policy/ruleset/walk"
)

// TestPrefillIsNotSeen: what is written before the rest of a large transaction changes no verdict, wherever it is cut, and
// with the rest the table is as it should be.
func TestPrefillIsNotSeen(t *testing.T) {
	filled, flows := 0, 0
	for name, alter := range map[string]func(*rand.Rand, policy.Cluster) policy.Cluster{
		"another policy": anotherPolicy, "other labels of pods elsewhere": otherLabels,
	} {
		for seed := range seeds {
			r := random.New(seed)
			before := random.Cluster(r)
			after, asked := alter(r, before), flowsOf(r, before)
			node := before.Nodes[0].Name
			cut, want := walk.Compile(before), walk.Compile(after).Ruleset(node)
			was := lettersOf(t, cut, asked)
			first, rest := prefill(ruleset.Diff(cut.Ruleset(node), want))
			step{sets: first.sets}.on(cut.Ruleset(node))
			for _, c := range first.changes {
				step{changes: []change{c}}.on(cut.Ruleset(node))
			}
			if is := lettersOf(t, cut, asked); is != was {
				t.Fatalf("%s, seed %d: verdicts were %s, and are %s after %+v", name, seed, was, is, first)
			}
			stepOf(rest).on(cut.Ruleset(node))
			if left := ruleset.Diff(cut.Ruleset(node), want); !left.Empty() {
				t.Fatalf("%s, seed %d: left is %+v", name, seed, left)
			}
			filled, flows = filled+len(first.changes), flows+len(asked)
		}
	}
	t.Logf("%d elements were written before the rest, %d flows looked at", filled, flows)
	if filled == 0 || flows == 0 {
		t.Error("nothing was written before the rest, or no flow looked at: this shows nothing")
	}
}

// stepOf is a transaction as one step.
func stepOf(tx ruleset.Transaction) step {
	s := step{sets: tx.AddSets, chains: tx.AddChains, rules: tx.SetRules, deleteChains: tx.DeleteChains, deleteSets: tx.DeleteSets}
	for _, e := range tx.DeleteElements {
		s.changes = append(s.changes, change{delete: true, ElementChange: e})
	}
	for _, e := range tx.AddElements {
		s.changes = append(s.changes, change{ElementChange: e})
	}
	return s
}

// lettersOf is a letter for each flow: does it pass.
func lettersOf(t *testing.T, paths *walk.Paths, flows []policy.Flow) string {
	t.Helper()
	text := make([]byte, len(flows))
	for i, f := range flows {
		passes, _, err := paths.Flow(f)
		if err != nil {
			t.Fatal(err)
		}
		text[i] = 'n'
		if passes {
			text[i] = 'y'
		}
	}
	return string(text)
}
