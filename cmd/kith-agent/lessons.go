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
)

// lessons are what one pod was told, each with when it is over.
type lessons struct {
	until    map[ruleset.ElementChange]time.Time
	earliest time.Time // nothing is over before
	refused  int       // for want of room, since it was logged
	logged   time.Time
}

func newLessons(now time.Time) *lessons {
	return &lessons{until: map[ruleset.ElementChange]time.Time{}, earliest: now.Add(longestBelief + grace)}
}

// note takes in a lesson, or refuses it.
func (s *lessons) note(e ruleset.ElementChange, now, until time.Time) bool {
	if !s.room(e, now) {
		s.refused++
		return false
	}
	s.until[e] = until
	s.expect(until)
	return true
}

func (s *lessons) expect(until time.Time) {
	if until.Before(s.earliest) {
		s.earliest = until
	}
}

// room says whether the pod may be told this, too, after what is over was forgotten. It looks for that only when
// something may be over: with one time, once.
func (s *lessons) room(e ruleset.ElementChange, now time.Time) bool {
	if _, again := s.until[e]; again || len(s.until) < mostLessons {
		return true
	}
	if s.earliest.Before(now) {
		s.prune(now)
	}
	return len(s.until) < mostLessons
}

func (s *lessons) prune(now time.Time) {
	s.earliest = now.Add(longestBelief + grace)
	for e, until := range s.until {
		if until.Before(now) {
			delete(s.until, e)
			continue
		}
		s.expect(until)
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
