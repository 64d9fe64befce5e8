package ruleset

import "reflect"

// Diff is what makes want out of have. Where a set or a chain is there under the same name but of another kind, it
// cannot be changed in place: then Replace is set, and the transaction is the whole of want.
func Diff(have, want Ruleset) Transaction {
	if reshaped(have, want) {
		t := Diff(Ruleset{}, want)
		t.Replace = true
		return t
	}
	var t Transaction
	for name, is := range want.Sets {
		was := have.Sets[name]
		if was == nil {
			was = &Set{}
			t.AddSets = append(t.AddSets, is.SetSpec)
		}
		t.elements(name, was.Elements, is.Elements)
	}
	for name := range have.Sets {
		if want.Sets[name] == nil {
			t.DeleteSets = append(t.DeleteSets, name)
		}
	}
	for name, is := range want.Chains {
		t.chain(name, have.Chains[name], is)
	}
	for name, was := range have.Chains {
		if want.Chains[name] == nil {
			t.chain(name, was, nil)
		}
	}
	t.sort()
	return t
}

func (t *Transaction) elements(set string, was, is map[Key]Value) {
	for k, v := range is {
		old, had := was[k]
		t.element(ElementChange{Set: set, Key: k}, before{had, old}, before{true, v})
	}
	for k, v := range was {
		if _, has := is[k]; !has {
			t.element(ElementChange{Set: set, Key: k}, before{true, v}, before{})
		}
	}
}

func reshaped(have, want Ruleset) bool {
	for name, is := range want.Sets {
		if was := have.Sets[name]; was != nil && !reflect.DeepEqual(was.SetSpec, is.SetSpec) {
			return true
		}
	}
	for name, is := range want.Chains {
		if was := have.Chains[name]; was != nil && !reflect.DeepEqual(was.Hook, is.Hook) {
			return true
		}
	}
	return false
}
