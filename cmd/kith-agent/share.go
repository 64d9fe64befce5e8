package main

import (
	"cmp"
	"slices"
	"time"

	"github.com/kithnet/kith/policy/ruleset"
)

const (
	// mostOfSet is how much all pods together may hold of one set: less than the kernel has room for, since what is over stays
	// there until the kernel collects it.
	mostOfSet = ruleset.LearnedSize - 1024
	// mostTakenBack is how much is taken back at a time, so that it is seldom looked for.
	mostTakenBack = 256
)

// share makes room for a lesson in its set, and says whether there is: where pods have filled a set, who holds the most of it
// gives to those who hold less, and what ends soonest goes first. Connections that are open go on.
func (l *learner) share(known *lessons, e ruleset.ElementChange, now time.Time) bool {
	if _, again := known.told[e]; again || l.held[e.Set] < mostOfSet {
		return true
	}
	most := known
	for _, s := range l.told {
		if s.earliest.Before(now) {
			s.prune(now)
		}
		if s.held[e.Set] > most.held[e.Set] {
			most = s
		}
	}
	if l.held[e.Set] < mostOfSet {
		return true
	}
	more := most.held[e.Set] - known.held[e.Set]
	if more < 2 {
		return false
	}
	l.takeBack(most, e.Set, min(more/2, mostTakenBack))
	return true
}

// takeBack forgets some of what a pod was told.
func (l *learner) takeBack(from *lessons, set string, n int) {
	var all []ruleset.ElementChange
	for e := range from.told {
		if e.Set == set {
			all = append(all, e)
		}
	}
	slices.SortFunc(all, func(a, b ruleset.ElementChange) int {
		return cmp.Or(from.told[a].until.Compare(from.told[b].until), cmp.Compare(a.Key.Low, b.Key.Low))
	})
	all = all[:min(n, len(all))]
	if err := l.pupil.Forget(all); err != nil {
		l.log.Error("what a pod was told stays until its time is over", "set", set, "error", err)
	}
	for _, e := range all {
		from.drop(e)
	}
	from.refused += len(all)
}
