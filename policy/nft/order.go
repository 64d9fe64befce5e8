package nft

import (
	"slices"

	"github.com/kithnet/kith/policy/ruleset"
)

// change is one element added or deleted. Tied: it must be in the same batch as the one before it.
type change struct {
	delete, tied bool
	ruleset.ElementChange
}

// stage is a part of a transaction that may be cut between its parts, but not mixed with what comes before or after.
type stage struct {
	sets         []ruleset.SetSpec
	chains       []ruleset.ChainSpec
	changes      []change
	rules        []ruleset.Chain
	deleteChains []string
	deleteSets   []string
}

// The stages, see below.
const (
	stageNew = iota
	stageFill
	stageClose
	stageRestrict
	stageName
	stageRules
	stageIsolate
	stageForbid
	stageRename
	stageAllow
	stageFree
	stageUnname
	stageUnforbid
	stageOpen
	stageUnused
)

// stages cuts a transaction that is too large for one batch so that no packet passes meanwhile that neither the old
// nor the new rules let pass:
//
//  1. New sets and chains, which nothing refers to yet; the address blocks of the cluster, at once; the rules of new
//     base chains. When the table is new this is the default: no pod's veth is open.
//  2. What is in new sets, and what is in lists: whatever rule names a list means all that is to be in it. The rules of
//     new chains.
//  3. Attachments that close.
//  4. What is no longer allowed.
//  5. Addresses that had no identity number: the new rules may deny by it, the old ones seldom know it.
//  6. The rules of chains that subjects are sent to already.
//  7. Subjects that are newly isolated, or isolated by other policies than before.
//  8. What is newly denied.
//  9. Addresses that have another identity number than before.
//  10. What is newly allowed, and whatever else is added.
//  11. Subjects that are no longer isolated; then the rules of base chains that were there before.
//  12. Addresses that have no identity number any more: no rule denies by it that is still asked.
//  13. What is no longer denied.
//  14. Attachments that open.
//  15. Chains and sets that nothing refers to any more.
//
// An element whose data changes is deleted and added in one batch, at its addition's stage.
//
// The promise is for one change in the cluster at a time, and for each direction of a pod: of several changes a part may
// be seen meanwhile, and between two pods of this node the one's new rules with the other's old ones. A policy that
// changes both whom it is for and what it says is two changes.
func stages(tx ruleset.Transaction, specs map[string]ruleset.SetSpec) []stage {
	s := make([]stage, stageUnused+1)
	s[stageNew].sets, s[stageNew].chains = byUse(tx.AddSets), tx.AddChains
	s[stageUnused].deleteChains, s[stageUnused].deleteSets = tx.DeleteChains, tx.DeleteSets
	stagesOfRules(tx, s)
	fresh := make(map[string]bool, len(tx.AddSets))
	for _, spec := range tx.AddSets {
		fresh[spec.Name] = true
	}
	deleted := make(map[spot]ruleset.ElementChange, len(tx.DeleteElements))
	for _, e := range tx.DeleteElements {
		deleted[spot{e.Set, e.Key}] = e
	}
	var adds [stageUnused + 1][]change
	for _, e := range tx.AddElements {
		i := stageOfAddition(e, specs[e.Set])
		if fresh[e.Set] && i > stageFill && !e.Opens() && specs[e.Set].Data != ruleset.TypeVerdict {
			i = stageFill
		}
		if old, ok := deleted[spot{e.Set, e.Key}]; ok && i != stageNew {
			if i == stageName {
				i = stageRename
			}
			delete(deleted, spot{e.Set, e.Key})
			adds[i] = append(adds[i], change{delete: true, ElementChange: old}, change{tied: true, ElementChange: e})
			continue
		}
		adds[i] = append(adds[i], change{tied: i == stageNew, ElementChange: e})
	}
	for _, e := range tx.DeleteElements {
		if _, ok := deleted[spot{e.Set, e.Key}]; ok {
			i := stageOfDeletion(e, specs[e.Set])
			s[i].changes = append(s[i].changes, change{delete: true, tied: i == stageNew, ElementChange: e})
		}
	}
	for i := range adds {
		s[i].changes = append(s[i].changes, adds[i]...)
	}
	return s
}

func stagesOfRules(tx ruleset.Transaction, s []stage) {
	fresh := make(map[string]bool, len(tx.AddChains))
	for _, c := range tx.AddChains {
		fresh[c.Name] = true
	}
	for _, c := range tx.SetRules {
		switch {
		case c.Hook == nil && fresh[c.Name]:
			s[stageFill].rules = append(s[stageFill].rules, c)
		case c.Hook == nil:
			s[stageRules].rules = append(s[stageRules].rules, c)
		case fresh[c.Name]:
			s[stageNew].rules = append(s[stageNew].rules, c)
		default:
			s[stageFree].rules = append(s[stageFree].rules, c)
		}
	}
}

func stageOfAddition(e ruleset.ElementChange, spec ruleset.SetSpec) int {
	switch {
	case e.Listed():
		return stageFill
	case isPlainInterval(spec):
		return stageNew
	case e.Opens():
		return stageOpen
	case spec.Data == ruleset.TypeVerdict:
		return stageIsolate
	case spec.Data == ruleset.TypeClassID:
		return stageName
	case e.Restrains():
		return stageForbid
	}
	return stageAllow
}

func stageOfDeletion(e ruleset.ElementChange, spec ruleset.SetSpec) int {
	switch {
	case e.Listed():
		return stageFill
	case isPlainInterval(spec):
		return stageNew
	case e.Opens():
		return stageClose
	case spec.Data == ruleset.TypeVerdict:
		return stageFree
	case spec.Data == ruleset.TypeClassID:
		return stageUnname
	case e.Restrains():
		return stageUnforbid
	}
	return stageRestrict
}

// spot is where an element is.
type spot struct {
	set string
	key ruleset.Key
}

// isPlainInterval tells the address blocks of the cluster: few elements, which may overlap before and after.
func isPlainInterval(spec ruleset.SetSpec) bool { return spec.Interval && len(spec.Key) == 1 }

// byUse puts first what changes most: the kernel finds a set by walking the table's sets in the order in which they
// were made.
func byUse(sets []ruleset.SetSpec) []ruleset.SetSpec {
	rank := func(s ruleset.SetSpec) int {
		if s.Data != ruleset.TypeNone || s.Key[0] == ruleset.TypeIfName {
			return 0
		}
		return 1
	}
	out := slices.Clone(sets)
	slices.SortStableFunc(out, func(a, b ruleset.SetSpec) int { return rank(a) - rank(b) })
	return out
}
