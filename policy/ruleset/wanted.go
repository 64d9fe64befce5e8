package ruleset

import (
	"maps"
	"reflect"
	"slices"
)

// wanted is the ruleset being kept, with what each touched thing was at the last commit.
type wanted struct {
	ruleset  Ruleset
	sets     map[string]*SetSpec // nil: there was none
	chains   map[string]*Chain   // nil: there was none
	elements map[string]map[Key]before
}

// before is an element at the last commit.
type before struct {
	had   bool
	value Value
}

func newWanted() *wanted {
	w := &wanted{ruleset: Ruleset{Sets: map[string]*Set{}, Chains: map[string]*Chain{}}}
	w.forget()
	return w
}

func (w *wanted) forget() {
	w.sets, w.chains, w.elements = map[string]*SetSpec{}, map[string]*Chain{}, map[string]map[Key]before{}
}

// putSet makes a set where there is none.
func (w *wanted) putSet(s SetSpec) {
	if w.ruleset.Sets[s.Name] != nil {
		return
	}
	if _, noted := w.sets[s.Name]; !noted {
		w.sets[s.Name] = nil
	}
	w.ruleset.Sets[s.Name] = &Set{SetSpec: s, Elements: map[Key]Value{}}
}

func (w *wanted) deleteSet(name string) {
	s := w.ruleset.Sets[name]
	if s == nil {
		return
	}
	for k := range s.Elements {
		w.delete(name, k)
	}
	if _, noted := w.sets[name]; !noted {
		w.sets[name] = &s.SetSpec
	}
	delete(w.ruleset.Sets, name)
}

func (w *wanted) putChain(c Chain) {
	w.noteChain(c.Name)
	w.ruleset.Chains[c.Name] = &c
}

func (w *wanted) deleteChain(name string) {
	w.noteChain(name)
	delete(w.ruleset.Chains, name)
}

func (w *wanted) noteChain(name string) {
	if _, noted := w.chains[name]; !noted {
		w.chains[name] = w.ruleset.Chains[name]
	}
}

// put adds an element or changes its data.
func (w *wanted) put(set string, k Key, v Value) {
	s := w.ruleset.Sets[set]
	old, had := s.Elements[k]
	if had && old == v {
		return
	}
	w.note(set, k, before{had, old})
	s.Elements[k] = v
}

func (w *wanted) delete(set string, k Key) {
	s := w.ruleset.Sets[set]
	if s == nil {
		return
	}
	old, had := s.Elements[k]
	if !had {
		return
	}
	w.note(set, k, before{had, old})
	delete(s.Elements, k)
}

func (w *wanted) note(set string, k Key, b before) {
	m := w.elements[set]
	if m == nil {
		m = map[Key]before{}
		w.elements[set] = m
	}
	if _, noted := m[k]; !noted {
		m[k] = b
	}
}

// fill makes the elements of a set exactly these.
func (w *wanted) fill(set string, keys []Key) {
	keep := make(map[Key]struct{}, len(keys))
	for _, k := range keys {
		keep[k] = struct{}{}
		w.put(set, k, Value{})
	}
	for k := range w.ruleset.Sets[set].Elements {
		if _, ok := keep[k]; !ok {
			w.delete(set, k)
		}
	}
}

// commit is what changed since the last one.
func (w *wanted) commit() Transaction {
	var t Transaction
	for name, was := range w.sets {
		is := w.ruleset.Sets[name]
		switch {
		case was == nil && is != nil:
			t.AddSets = append(t.AddSets, is.SetSpec)
		case was != nil && is == nil:
			t.DeleteSets = append(t.DeleteSets, name)
		}
	}
	for name, was := range w.chains {
		t.chain(name, was, w.ruleset.Chains[name])
	}
	for set, keys := range w.elements {
		if s := w.ruleset.Sets[set]; s != nil {
			for k, was := range keys {
				is, has := s.Elements[k]
				t.element(ElementChange{Set: set, Key: k}, was, before{has, is})
			}
		}
	}
	w.forget()
	t.sort()
	return t
}

func (w *wanted) copy() Ruleset {
	r := Ruleset{Sets: make(map[string]*Set, len(w.ruleset.Sets)), Chains: maps.Clone(w.ruleset.Chains)}
	for name, s := range w.ruleset.Sets {
		r.Sets[name] = &Set{SetSpec: s.SetSpec, Elements: maps.Clone(s.Elements)}
	}
	return r
}

// chain notes what happens to a chain. Chains are never changed in place.
func (t *Transaction) chain(name string, was, is *Chain) {
	switch {
	case is == nil && was != nil:
		t.DeleteChains = append(t.DeleteChains, name)
	case is != nil && was == nil:
		t.AddChains = append(t.AddChains, is.ChainSpec)
		if len(is.Rules) > 0 {
			t.SetRules = append(t.SetRules, *is)
		}
	case is != nil && !sameRules(was.Rules, is.Rules):
		t.SetRules = append(t.SetRules, *is)
	}
}

func sameRules(a, b []Rule) bool {
	return len(a) == 0 && len(b) == 0 || reflect.DeepEqual(a, b)
}

func (t *Transaction) element(c ElementChange, was, is before) {
	if was == is {
		return
	}
	if was.had {
		c.Value = was.value
		t.DeleteElements = append(t.DeleteElements, c)
	}
	if is.had {
		c.Value = is.value
		t.AddElements = append(t.AddElements, c)
	}
}

func (t *Transaction) sort() {
	slices.SortFunc(t.AddSets, func(a, b SetSpec) int { return compare(a.Name, b.Name) })
	slices.SortFunc(t.AddChains, func(a, b ChainSpec) int { return compare(a.Name, b.Name) })
	slices.SortFunc(t.DeleteElements, compareElements)
	slices.SortFunc(t.AddElements, compareElements)
	slices.SortFunc(t.SetRules, func(a, b Chain) int { return compare(a.Name, b.Name) })
	slices.Sort(t.DeleteChains)
	slices.Sort(t.DeleteSets)
}

func compare(a, b string) int {
	if a < b {
		return -1
	} else if a > b {
		return 1
	}
	return 0
}

// compareElements puts what opens attachments last.
func compareElements(a, b ElementChange) int {
	if a.Opens() != b.Opens() {
		if a.Opens() {
			return 1
		}
		return -1
	}
	if a.Set != b.Set {
		return compare(a.Set, b.Set)
	}
	return a.Key.Compare(b.Key)
}

// Compare orders keys.
func (k Key) Compare(o Key) int {
	if c := compare(k.Low, o.Low); c != 0 {
		return c
	}
	return compare(k.High, o.High)
}
