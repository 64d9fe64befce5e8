//go:build kernel

package nft

import (
	"encoding/binary"
	"testing"

	"github.com/kithnet/kith/policy/ruleset"
)

// TestLargeNewSetsCutNobodyElse: a large list of one tenant is written together with changes of another. These are in the
// kernel all or, if one of them is refused, none, as they would be without the list, wherever the list's batches end.
func TestLargeNewSetsCutNobodyElse(t *testing.T) {
	const own, limit = 200, 16 << 10
	for n := range 8 {
		count := 5000 + 64*n
		table := openTable(t, newNamespace(t), BatchLimit(limit))
		have, _ := elements(own)
		converge(t, table, have)
		want, _ := elements(own)
		clear(want.Sets["many"].Elements)
		want.Sets["list"] = listOf(count)
		tx := ruleset.Diff(have, want)
		if sizeOf(tx) <= limit {
			t.Fatal("the transaction is not large: this shows nothing")
		}
		refused := tx
		refused.DeleteSets = []string{"nowhere"}
		if err := table.Apply(t.Context(), refused); err == nil {
			t.Fatal("a set that is not there was deleted")
		}
		after, err := table.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if left := len(after.Sets["many"].Elements); left != own {
			t.Errorf("with a list of %d, %d of %d elements are left after a transaction that was refused", count, left, own)
		}
		converge(t, table, want)
		sameRuleset(t, table, want)
	}
}

func listOf(count int) *ruleset.Set {
	list := &ruleset.Set{
		SetSpec:  ruleset.SetSpec{Name: "list", Key: types{ruleset.TypeIPv4Addr}},
		Elements: map[ruleset.Key]ruleset.Value{},
	}
	for i := range count {
		list.Elements[ruleset.Key{Low: string(binary.BigEndian.AppendUint32(nil, 10<<24|uint32(i)))}] = ruleset.Value{}
	}
	return list
}

// TestLargeChangesCutNobodyElse: very much of one tenant's policy changes with something of another's. What is the other's
// is in the kernel all or, if the write is refused, not at all; and of the large set nothing is newly allowed before that,
// and nothing that is no longer allowed is left.
func TestLargeChangesCutNobodyElse(t *testing.T) {
	const own, limit, large = 200, 16 << 10, "in_0_any"
	for n := range 4 {
		count := 5000 + 64*n
		table := openTable(t, newNamespace(t), BatchLimit(limit))
		have, _ := elements(own)
		have.Sets[large] = identitiesOf(large, 0, count)
		converge(t, table, have)
		want, _ := elements(own)
		clear(want.Sets["many"].Elements)
		want.Sets[large] = identitiesOf(large, count/2, count)
		tx := ruleset.Diff(have, want)
		if first, rest := prefill(tx); len(first.sets) > 0 || sizeOf(rest) <= limit {
			t.Fatal("the transaction is not large: this shows nothing")
		}
		refused := tx
		refused.DeleteSets = []string{"nowhere"}
		if err := table.Apply(t.Context(), refused); err == nil {
			t.Fatal("a set that is not there was deleted")
		}
		after, err := table.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if left := len(after.Sets["many"].Elements); left != own {
			t.Errorf("beside %d changes, %d of %d elements are left after a transaction that was refused", count, left, own)
		}
		for k := range after.Sets[large].Elements {
			if _, kept := want.Sets[large].Elements[k]; !kept {
				t.Fatalf("element %x is still allowed", k.Low)
			}
			if _, kept := have.Sets[large].Elements[k]; !kept {
				t.Fatalf("element %x is allowed before the rest is written", k.Low)
			}
		}
		converge(t, table, want)
		sameRuleset(t, table, want)
	}
}

func identitiesOf(name string, from, count int) *ruleset.Set {
	s := &ruleset.Set{
		SetSpec:  ruleset.SetSpec{Name: name, Key: types{ruleset.TypeClassID}},
		Elements: map[ruleset.Key]ruleset.Value{},
	}
	for i := range count {
		s.Elements[ruleset.Key{Low: string(binary.NativeEndian.AppendUint32(nil, uint32(from+i+1)))}] = ruleset.Value{}
	}
	return s
}
