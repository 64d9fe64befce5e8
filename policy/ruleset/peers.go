package ruleset

import (
	"fmt"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
	"k8s.io/apimachinery/pkg/labels"
)

// peerSet is the identities that one selector of a rule selects. Rules of all policies that say the same share it, so
// that a selector is evaluated once for each identity.
type peerSet struct {
	name       string
	namespace  string          // the one namespace it looks at, or empty
	namespaces labels.Selector // when namespace is empty
	pods       labels.Selector
	members    map[*identity.Identity]struct{}
	users      map[*chain]int
}

// peerIndex finds the sets that a new identity may belong to.
type peerIndex struct {
	byName      map[string]*peerSet
	byNamespace map[string]map[*peerSet]struct{}
	everywhere  map[*peerSet]struct{}
	of          map[*identity.Identity][]*peerSet
}

func newPeerIndex() peerIndex {
	return peerIndex{
		byName: map[string]*peerSet{}, byNamespace: map[string]map[*peerSet]struct{}{},
		everywhere: map[*peerSet]struct{}{}, of: map[*identity.Identity][]*peerSet{},
	}
}

// selectorName tells "everything" and "nothing" apart, which print alike.
func selectorName(s labels.Selector) string {
	if s == nil {
		return "nothing"
	}
	return fmt.Sprintf("%t %s", s.Empty(), s)
}

// use finds or makes the set for a peer that selects pods, and enters the chain as its user.
func (x *peerIndex) use(own string, p policy.Peer, ch *chain, t *identity.Table) *peerSet {
	s := &peerSet{namespaces: p.Namespaces, pods: p.Pods}
	if p.OwnNamespace {
		s.namespace = own
		s.name = "in " + own + "\n" + selectorName(p.Pods)
	} else {
		s.name = "any " + selectorName(p.Namespaces) + "\n" + selectorName(p.Pods)
	}
	if known := x.byName[s.name]; known != nil {
		known.users[ch]++
		return known
	}
	s.members, s.users = map[*identity.Identity]struct{}{}, map[*chain]int{ch: 1}
	x.enter(s)
	x.populate(s, t)
	return s
}

func (x *peerIndex) enter(s *peerSet) {
	x.byName[s.name] = s
	if s.namespace == "" {
		x.everywhere[s] = struct{}{}
		return
	}
	if x.byNamespace[s.namespace] == nil {
		x.byNamespace[s.namespace] = map[*peerSet]struct{}{}
	}
	x.byNamespace[s.namespace][s] = struct{}{}
}

// populate evaluates the namespace selector once for each namespace, and the pod selector where that one selects.
func (x *peerIndex) populate(s *peerSet, t *identity.Table) {
	for name, nsLabels := range t.Namespaces() {
		if s.namespace != "" && s.namespace != name || s.namespace == "" && !selects(s.namespaces, nsLabels) {
			continue
		}
		for id := range t.IdentitiesIn(name) {
			if selects(s.pods, id.Labels()) {
				x.join(s, id)
			}
		}
	}
}

func selects(s labels.Selector, l labels.Labels) bool { return s != nil && s.Matches(l) }

func (x *peerIndex) join(s *peerSet, id *identity.Identity) {
	s.members[id] = struct{}{}
	x.of[id] = append(x.of[id], s)
}

// leave takes a chain off a set's users, and drops the set with the last.
func (x *peerIndex) leave(s *peerSet, ch *chain) {
	if s.users[ch]--; s.users[ch] > 0 {
		return
	}
	delete(s.users, ch)
	if len(s.users) > 0 {
		return
	}
	delete(x.byName, s.name)
	delete(x.everywhere, s)
	if in := x.byNamespace[s.namespace]; in != nil {
		delete(in, s)
		if len(in) == 0 {
			delete(x.byNamespace, s.namespace)
		}
	}
	for id := range s.members {
		x.part(s, id)
	}
}

func (x *peerIndex) part(s *peerSet, id *identity.Identity) {
	sets := x.of[id]
	for i := range sets {
		if sets[i] == s {
			sets[i] = sets[len(sets)-1]
			sets[len(sets)-1] = nil
			sets = sets[:len(sets)-1]
			break
		}
	}
	if len(sets) == 0 {
		delete(x.of, id)
		return
	}
	x.of[id] = sets
}

// appear finds the sets that a new identity belongs to.
func (x *peerIndex) appear(id *identity.Identity) {
	for s := range x.byNamespace[id.Namespace()] {
		if selects(s.pods, id.Labels()) {
			x.join(s, id)
		}
	}
	for s := range x.everywhere {
		if selects(s.namespaces, id.NamespaceLabels()) && selects(s.pods, id.Labels()) {
			x.join(s, id)
		}
	}
}

// disappear takes an identity out of all sets.
func (x *peerIndex) disappear(id *identity.Identity) {
	for _, s := range x.of[id] {
		delete(s.members, id)
	}
	delete(x.of, id)
}

// users are the chains that name an identity.
func (x *peerIndex) users(id *identity.Identity) map[*chain]struct{} {
	out := map[*chain]struct{}{}
	for _, s := range x.of[id] {
		for ch := range s.users {
			out[ch] = struct{}{}
		}
	}
	return out
}
