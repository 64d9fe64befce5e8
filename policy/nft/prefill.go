package nft

import (
	"cmp"
	"maps"
	"slices"

	"github.com/kithnet/kith/policy/ruleset"
)

// prefill takes out of a transaction the new sets that hold nothing but keys, with what is to be in them. No rule names
// such a set before the rest is written, so it may be filled in as many batches as it needs, and no packet is decided
// otherwise meanwhile. What is left is small unless very much changes that rules see: the large list of one tenant then
// does not cut up the changes of all others that happen to be written with it.
func prefill(tx ruleset.Transaction) (stage, ruleset.Transaction) {
	var first stage
	fresh := make(map[string]bool, len(tx.AddSets))
	rest := tx
	rest.AddSets = slices.DeleteFunc(slices.Clone(tx.AddSets), func(s ruleset.SetSpec) bool {
		if s.Data != ruleset.TypeNone {
			return false
		}
		fresh[s.Name] = true
		first.sets = append(first.sets, s)
		return true
	})
	rest.AddElements = slices.DeleteFunc(slices.Clone(tx.AddElements), func(e ruleset.ElementChange) bool {
		if !fresh[e.Set] {
			return false
		}
		first.changes = append(first.changes, change{ElementChange: e})
		return true
	})
	first.sets = byUse(first.sets)
	return first, rest
}

// parts is a transaction that fits one batch, and what is written before and after it.
type parts struct {
	before []stage
	tx     ruleset.Transaction
	after  stage
}

// apart takes as much out of a transaction as lets the rest be written at once. Otherwise it says no.
func apart(tx ruleset.Transaction, specs map[string]ruleset.SetSpec, limit int) (parts, bool) {
	fill, rest := prefill(tx)
	if sizeOf(rest) <= limit {
		return parts{[]stage{fill}, rest, stage{}}, true
	}
	before, rest, after, ok := setApart(rest, specs, limit)
	return parts{[]stage{fill, before}, rest, after}, ok
}

// setApart takes out of a transaction what changes in the sets of chains in which most changes, until the rest is small
// enough for one batch: what is allowed there no longer, which may be written before the rest, and what is newly allowed,
// which may be written after it. So a tenant of whose policies very much changes does not cut up the changes of others. If
// the rest stays too large, it says no.
func setApart(tx ruleset.Transaction, specs map[string]ruleset.SetSpec, limit int) (before stage, rest ruleset.Transaction, after stage, ok bool) {
	sizes := map[string]int{}
	for _, es := range [][]ruleset.ElementChange{tx.AddElements, tx.DeleteElements} {
		for _, e := range es {
			sizes[e.Set] += sizeOfElement(e)
		}
	}
	for _, spec := range tx.AddSets {
		delete(sizes, spec.Name)
	}
	for _, set := range tx.DeleteSets {
		delete(sizes, set)
	}
	apart, left := map[string]bool{}, sizeOf(tx)
	for _, set := range slices.SortedFunc(maps.Keys(sizes), func(a, b string) int { return cmp.Or(sizes[b]-sizes[a], cmp.Compare(a, b)) }) {
		if left <= limit {
			break
		}
		if spec := specs[set]; spec.Data == ruleset.TypeNone && !spec.Interval && spec.Decides() {
			apart[set] = true
			left -= sizes[set]
		}
	}
	if left > limit || len(apart) == 0 {
		return stage{}, tx, stage{}, false
	}
	rest = tx
	rest.DeleteElements = slices.DeleteFunc(slices.Clone(tx.DeleteElements), func(e ruleset.ElementChange) bool {
		if apart[e.Set] {
			c := change{delete: true, ElementChange: e}
			if e.Restrains() {
				after.changes = append(after.changes, c)
			} else {
				before.changes = append(before.changes, c)
			}
		}
		return apart[e.Set]
	})
	rest.AddElements = slices.DeleteFunc(slices.Clone(tx.AddElements), func(e ruleset.ElementChange) bool {
		if apart[e.Set] {
			c := change{ElementChange: e}
			if e.Restrains() {
				before.changes = append(before.changes, c)
			} else {
				after.changes = append(after.changes, c)
			}
		}
		return apart[e.Set]
	})
	return before, rest, after, true
}
