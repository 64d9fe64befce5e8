package nft

import (
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
