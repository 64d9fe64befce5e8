package ruleset

import (
	"github.com/kithnet/kith/identity"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// demand is a label of which what a selector selects has one of a few values. The zero demand demands nothing.
type demand struct {
	key    string
	values []string
}

// demandOf is the demand of a selector that leaves the fewest values.
func demandOf(s labels.Selector) demand {
	var best demand
	requirements, _ := s.Requirements()
	for _, r := range requirements {
		switch r.Operator() {
		case selection.In, selection.Equals, selection.DoubleEquals:
			if values := r.Values().UnsortedList(); best.key == "" || len(values) < len(best.values) {
				best = demand{r.Key(), values}
			}
		}
	}
	return best
}

// labelIndex finds the identities that have a label, and the peer sets that demand one, so that ten thousand policies
// and ten thousand identities need not meet each other. It holds only the labels that some set demands.
type labelIndex struct {
	identities map[string]map[string]map[*identity.Identity]struct{} // by key and value
	sets       map[string]map[string]map[*peerSet]struct{}           // by key and value
}

func newLabelIndex() labelIndex {
	return labelIndex{
		identities: map[string]map[string]map[*identity.Identity]struct{}{},
		sets:       map[string]map[string]map[*peerSet]struct{}{},
	}
}

// meeting are the identities that meet a demand.
func (x *labelIndex) meeting(d demand, t *identity.Table) map[*identity.Identity]struct{} {
	byValue := x.identities[d.key]
	if byValue == nil {
		byValue = map[string]map[*identity.Identity]struct{}{}
		x.identities[d.key] = byValue
		for id := range t.Identities() {
			x.note(d.key, id)
		}
	}
	if len(d.values) == 1 {
		return byValue[d.values[0]]
	}
	all := map[*identity.Identity]struct{}{}
	for _, v := range d.values {
		for id := range byValue[v] {
			all[id] = struct{}{}
		}
	}
	return all
}

// note enters an identity under one of its labels.
func (x *labelIndex) note(key string, id *identity.Identity) {
	if value, ok := id.Labels().Lookup(key); ok {
		insert(x.identities[key], value, id)
	}
}

// appear enters a new identity under the labels that are demanded.
func (x *labelIndex) appear(id *identity.Identity) {
	for key := range x.identities {
		x.note(key, id)
	}
}

// disappear takes an identity out.
func (x *labelIndex) disappear(id *identity.Identity) {
	for key, byValue := range x.identities {
		if value, ok := id.Labels().Lookup(key); ok {
			remove(byValue, value, id)
		}
	}
}

// enter files a set under what it demands.
func (x *labelIndex) enter(s *peerSet) {
	if x.sets[s.demand.key] == nil {
		x.sets[s.demand.key] = map[string]map[*peerSet]struct{}{}
	}
	for _, v := range s.demand.values {
		insert(x.sets[s.demand.key], v, s)
	}
}

// leave takes a set out, and with the last that demands a label all that is known of that label.
func (x *labelIndex) leave(s *peerSet) {
	for _, v := range s.demand.values {
		remove(x.sets[s.demand.key], v, s)
	}
	if len(x.sets[s.demand.key]) == 0 {
		delete(x.sets, s.demand.key)
		delete(x.identities, s.demand.key)
	}
}

// demanding are the sets whose demand an identity meets.
func (x *labelIndex) demanding(id *identity.Identity) []*peerSet {
	var out []*peerSet
	for key, byValue := range x.sets {
		if value, ok := id.Labels().Lookup(key); ok {
			for s := range byValue[value] {
				out = append(out, s)
			}
		}
	}
	return out
}

func insert[T comparable](m map[string]map[T]struct{}, key string, v T) {
	if m[key] == nil {
		m[key] = map[T]struct{}{}
	}
	m[key][v] = struct{}{}
}

func remove[T comparable](m map[string]map[T]struct{}, key string, v T) {
	delete(m[key], v)
	if len(m[key]) == 0 {
		delete(m, key)
	}
}
