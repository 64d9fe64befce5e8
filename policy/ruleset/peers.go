package ruleset

import (
	"fmt"
	"iter"

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
	demand     demand // of pods
	members    map[*identity.Identity]struct{}
	users      map[*chain]int
}

// peerIndex finds the sets that a new identity may belong to, and the identities that a new set may have.
type peerIndex struct {
	byName map[string]*peerSet
	// Sets that demand no label of a pod: those of one namespace, and the others.
	byNamespace map[string]map[*peerSet]struct{}
	everywhere  map[*peerSet]struct{}
	byLabel     labelIndex // all other sets
	of          map[*identity.Identity][]*peerSet
}

func newPeerIndex() peerIndex {
	return peerIndex{
		byName: map[string]*peerSet{}, byNamespace: map[string]map[*peerSet]struct{}{},
		everywhere: map[*peerSet]struct{}{}, byLabel: newLabelIndex(), of: map[*identity.Identity][]*peerSet{},
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
	if s.pods != nil {
		s.demand = demandOf(s.pods)
	}
	s.members, s.users = map[*identity.Identity]struct{}{}, map[*chain]int{ch: 1}
	x.enter(s)
	x.populate(s, t)
	return s
}

func (x *peerIndex) enter(s *peerSet) {
	x.byName[s.name] = s
	switch {
	case s.demand.key != "":
		x.byLabel.enter(s)
	case s.namespace == "":
		x.everywhere[s] = struct{}{}
	default:
		insert(x.byNamespace, s.namespace, s)
	}
}

// populate finds a set's members: among the identities that meet its demand, or else in the namespaces that it selects.
func (x *peerIndex) populate(s *peerSet, t *identity.Table) {
	if s.demand.key != "" {
		for id := range x.byLabel.meeting(s.demand, t) {
			x.consider(s, id)
		}
		return
	}
	for name, nsLabels := range t.Namespaces() {
		if s.namespace == name || s.namespace == "" && selects(s.namespaces, nsLabels) {
			for id := range t.IdentitiesIn(name) {
				x.consider(s, id)
			}
		}
	}
}

// consider enters an identity into a set if the set selects it.
func (x *peerIndex) consider(s *peerSet, id *identity.Identity) {
	if s.selects(id) {
		x.join(s, id)
	}
}

func (s *peerSet) selects(id *identity.Identity) bool {
	if s.namespace != "" && s.namespace != id.Namespace() || !selects(s.pods, id.Labels()) {
		return false
	}
	return s.namespace != "" || selects(s.namespaces, id.NamespaceLabels())
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
	switch {
	case s.demand.key != "":
		x.byLabel.leave(s)
	case s.namespace == "":
		delete(x.everywhere, s)
	default:
		remove(x.byNamespace, s.namespace, s)
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
	x.byLabel.appear(id)
	for s := range x.candidates(id) {
		x.consider(s, id)
	}
}

// candidates are the sets that may select an identity, each once.
func (x *peerIndex) candidates(id *identity.Identity) iter.Seq[*peerSet] {
	return func(yield func(*peerSet) bool) {
		for _, sets := range []map[*peerSet]struct{}{x.byNamespace[id.Namespace()], x.everywhere} {
			for s := range sets {
				if !yield(s) {
					return
				}
			}
		}
		for _, s := range x.byLabel.demanding(id) {
			if !yield(s) {
				return
			}
		}
	}
}

// disappear takes an identity out of all sets.
func (x *peerIndex) disappear(id *identity.Identity) {
	x.byLabel.disappear(id)
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
