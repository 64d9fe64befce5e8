package main

import (
	"log/slog"
	"net/netip"
	"time"

	"github.com/kithnet/kith/policy/ruleset"
)

const (
	// mostLessons is how much one pod may have been told at a time: a pod that asks for names without end fills no more.
	mostLessons = 4096
	// complainEvery spaces what the log says of a pod that is told more.
	complainEvery = time.Minute
	// hardly is what is not worth teaching again: no time at all would be for ever, and the kernel rounds.
	hardly = time.Second
)

// lesson is one thing that a pod was told.
type lesson struct {
	until time.Time
	sure  bool // the kernel holds it so long
}

// lessons are what one pod was told.
type lessons struct {
	told     map[ruleset.ElementChange]lesson
	held     map[string]int // of them, by set
	shared   map[string]int // the same of all pods together
	earliest time.Time      // nothing is over before
	refused  int            // for want of room, since it was logged
	logged   time.Time
}

// newLessons counts in shared what it holds of each set.
func newLessons(now time.Time, shared map[string]int) *lessons {
	return &lessons{told: map[ruleset.ElementChange]lesson{}, held: map[string]int{}, shared: shared, earliest: now.Add(longestBelief + grace)}
}

// note takes in a lesson, for which there is room, and says for how long the kernel must learn it: not at all, if it has
// it for as long or longer. An answer takes nothing from another.
func (s *lessons) note(e ruleset.ElementChange, now time.Time, lifetime time.Duration) (time.Duration, bool) {
	until, known := now.Add(lifetime), s.told[e]
	if !until.After(known.until) {
		if known.sure {
			return 0, false
		}
		until = known.until
	}
	if known == (lesson{}) {
		s.held[e.Set]++
		s.shared[e.Set]++
	}
	s.told[e] = lesson{until: until}
	s.expect(until)
	return until.Sub(now), true
}

// learned says that the kernel holds it.
func (s *lessons) learned(e ruleset.ElementChange) {
	s.told[e] = lesson{s.told[e].until, true}
}

// again says of what sets have lost for how long the kernel must learn it anew, as far as the pod's rules still name it.
func (s *lessons) again(now time.Time, lost func(set string) bool, named map[string]bool) map[ruleset.ElementChange]time.Duration {
	out := map[ruleset.ElementChange]time.Duration{}
	for e, known := range s.told {
		if !lost(e.Set) {
			continue
		}
		s.told[e] = lesson{until: known.until}
		if rest := known.until.Sub(now); rest > hardly && named[e.Set] {
			out[e] = rest
		}
	}
	return out
}

func (s *lessons) expect(until time.Time) {
	if until.Before(s.earliest) {
		s.earliest = until
	}
}

// room says whether the pod may be told this, too, after what is over was forgotten. It looks for that only when
// something may be over: with one time, once.
func (s *lessons) room(e ruleset.ElementChange, now time.Time) bool {
	if _, again := s.told[e]; again || len(s.told) < mostLessons {
		return true
	}
	if s.earliest.Before(now) {
		s.prune(now)
	}
	return len(s.told) < mostLessons
}

// drop forgets a lesson.
func (s *lessons) drop(e ruleset.ElementChange) {
	delete(s.told, e)
	for _, count := range []map[string]int{s.held, s.shared} {
		if count[e.Set]--; count[e.Set] == 0 {
			delete(count, e.Set)
		}
	}
}

func (s *lessons) prune(now time.Time) {
	s.earliest = now.Add(longestBelief + grace)
	for e, known := range s.told {
		if known.until.Before(now) {
			s.drop(e)
			continue
		}
		s.expect(known.until)
	}
}

// complain logs what was refused.
func (s *lessons) complain(log *slog.Logger, pod netip.Addr, now time.Time) {
	if s.refused == 0 || now.Sub(s.logged) < complainEvery {
		return
	}
	log.Warn("pod was told too much: addresses are not learned", "pod", pod, "addresses", s.refused)
	s.refused, s.logged = 0, now
}
