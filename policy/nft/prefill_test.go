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

// TestApartOpensNothing: what is written before and after the rest of a large transaction opens nothing that is denied before
// and after, wherever it is cut, and with all of it the table is as it should be.
func TestApartOpensNothing(t *testing.T) {
	changes, denied := 0, 0
	for name, alter := range map[string]func(*rand.Rand, policy.Cluster) policy.Cluster{
		"another policy": anotherPolicy, "other labels of pods elsewhere": otherLabels,
	} {
		for seed := range 3 * seeds {
			r := random.New(seed)
			before := random.Cluster(r)
			after, flows := alter(r, before), flowsOf(r, before)
			node := before.Nodes[0].Name
			cut, done := walk.Compile(before), walk.Compile(before)
			want := walk.Compile(after).Ruleset(node)
			_, tx := prefill(ruleset.Diff(cut.Ruleset(node), want))
			first, rest, last, ok := setApart(tx, allSpecs(cut.Ruleset(node), want), sizeOf(tx)-1)
			if !ok {
				continue
			}
			for _, set := range tx.AddSets {
				if set.Data == ruleset.TypeNone {
					t.Fatalf("set %s is new", set.Name)
				}
			}
			fill, _ := prefill(ruleset.Diff(cut.Ruleset(node), want))
			steps := []step{{sets: fill.sets, changes: fill.changes}}
			for _, c := range first.changes {
				steps = append(steps, step{changes: []change{c}})
			}
			steps = append(steps, stepOf(rest))
			for _, c := range last.changes {
				steps = append(steps, step{changes: []change{c}})
			}
			flows = deniedOf(t, cut, flows)
			for _, s := range steps {
				s.on(done.Ruleset(node))
			}
			if left := ruleset.Diff(done.Ruleset(node), want); !left.Empty() {
				t.Fatalf("%s, seed %d: left is %+v", name, seed, left)
			}
			flows = deniedOf(t, done, flows)
			for i, s := range steps {
				s.on(cut.Ruleset(node))
				if left := deniedOf(t, cut, flows); len(left) < len(flows) {
					t.Fatalf("%s, seed %d: of %v only %v are denied after step %d of %d: %+v", name, seed, flows, left, i+1, len(steps), s)
				}
			}
			changes, denied = changes+len(first.changes)+len(last.changes), denied+len(flows)
		}
	}
	t.Logf("%d elements were written apart, %d flows stay denied", changes, denied)
	if changes == 0 || denied == 0 {
		t.Error("nothing was written apart, or nothing is denied: this shows nothing")
	}
}

// allSpecs are the specifications of all sets of two rulesets.
func allSpecs(rulesets ...ruleset.Ruleset) map[string]ruleset.SetSpec {
	specs := map[string]ruleset.SetSpec{}
	for _, r := range rulesets {
		for name, s := range r.Sets {
			specs[name] = s.SetSpec
		}
	}
	return specs
}
