package nft

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kithnet/kith/policy/ruleset"
)

// TestStages: what denies comes before what allows and goes after it, and new sets are filled before any rule names them.
func TestStages(t *testing.T) {
	plain := func(name string) ruleset.SetSpec {
		return ruleset.SetSpec{Name: name, Key: []ruleset.Type{ruleset.TypeClassID}}
	}
	list := ruleset.SetSpec{Name: "net4_1", Key: []ruleset.Type{ruleset.TypeIPv4Addr}, Interval: true}
	blocks := ruleset.SetSpec{Name: "cluster4", Key: list.Key, Interval: true}
	numbers := ruleset.SetSpec{Name: "identity4", Key: []ruleset.Type{ruleset.TypeIPv4Addr}, Data: ruleset.TypeClassID}
	verdicts := ruleset.SetSpec{Name: "ingress4", Key: []ruleset.Type{ruleset.TypeIPv4Addr}, Data: ruleset.TypeVerdict}
	specs := map[string]ruleset.SetSpec{list.Name: list, blocks.Name: blocks, numbers.Name: numbers, verdicts.Name: verdicts}
	for _, name := range []string{"in_1_any", "admin_in_1_accept_1_any", "admin_in_1_deny_2_any", "admin_in_1_pass_3_any", "admin_in_1_deny_9_any", ruleset.SetOpened} {
		specs[name] = plain(name)
	}
	element := func(set string) ruleset.ElementChange {
		return ruleset.ElementChange{Set: set, Key: ruleset.Key{Low: "added", High: "added"}}
	}
	gone := func(set string) ruleset.ElementChange {
		return ruleset.ElementChange{Set: set, Key: ruleset.Key{Low: "gone", High: "gone"}}
	}
	var tx ruleset.Transaction
	for name := range specs {
		tx.AddElements = append(tx.AddElements, element(name))
		tx.DeleteElements = append(tx.DeleteElements, gone(name))
	}
	tx.AddSets = []ruleset.SetSpec{specs["admin_in_1_deny_9_any"]}
	got := map[string][2]int{} // where it is added and where deleted
	for i, s := range stages(tx, specs) {
		for _, c := range s.changes {
			at := got[c.Set]
			if c.delete {
				at[1] = i
			} else {
				at[0] = i
			}
			got[c.Set] = at
		}
	}
	want := map[string][2]int{
		"in_1_any": {stageAllow, stageRestrict}, "admin_in_1_accept_1_any": {stageAllow, stageRestrict},
		"admin_in_1_deny_2_any": {stageForbid, stageUnforbid}, "admin_in_1_pass_3_any": {stageForbid, stageUnforbid},
		"net4_1": {stageFill, stageFill}, "cluster4": {stageNew, stageNew},
		"admin_in_1_deny_9_any": {stageFill, stageUnforbid}, "identity4": {stageName, stageUnname},
		"ingress4": {stageIsolate, stageFree}, ruleset.SetOpened: {stageOpen, stageClose},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("stages of additions and deletions (-want +got)\n%s", d)
	}
}
