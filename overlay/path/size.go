package path

import (
	"slices"
	"time"
)

const (
	smallest = 576 // what every way is taken to carry
	step     = 16  // WireGuard pads packets to this
	rungs    = 4   // sizes asked for at once
)

// sizer finds the largest packet that arrives. Between searches it checks from time to time that the known size still
// arrives. A search asks for a few sizes at once, between one that arrives and one that does not, in rounds.
type sizer struct {
	config *Config
	limit  int
	mtu    int       // the last result; zero: none yet
	check  time.Time // when the known size is checked, or a search goes on
	raise  time.Time // when something larger is tried
	tries  int       // without an answer
	heard  bool      // something came back since the first of them

	hint  int       // the last that was looked at
	pause time.Time // when the next may be

	searching bool
	suspected bool      // the search is for a hint
	floor     int       // of such a search: what arrives of this size or more is good for now
	planned   time.Time // what check was before
	low, high int       // the largest that arrived, the smallest that did not
	asked     []int
}

// suspect asks at once whether the known size still arrives, and whether the one that is said to does. Anybody may have
// said it.
func (s *sizer) suspect(now time.Time, hint int) {
	if hint == 0 || hint >= s.mtu {
		s.hint = hint
		return
	}
	if hint == s.hint || s.searching || s.tries > 0 || now.Before(s.pause) {
		return
	}
	s.hint = hint
	s.reopen(now, hint)
	if hint > smallest {
		s.asked = []int{hint, s.mtu}
	}
}

// again asks at once whether the known size still arrives, or what does.
func (s *sizer) again(now time.Time) {
	if s.mtu == 0 || s.searching || s.tries > 0 || now.Before(s.pause) {
		return
	}
	s.reopen(now, smallest)
	s.asked = s.ladder()
}

// reopen begins a search that first asks for the known size. The next hint or doubt waits.
func (s *sizer) reopen(now time.Time, floor int) {
	planned := s.check
	s.search(smallest, s.mtu+1)
	s.pause = now.Add(s.config.Interval)
	s.suspected, s.floor, s.planned, s.check = true, floor, planned, now
	s.asked = []int{s.mtu}
}

// bound sets the limit. A known size may be too large now; or it was all there was room for, and now there is more.
func (s *sizer) bound(now time.Time, limit int) {
	if limit == s.limit {
		return
	}
	full := s.mtu == s.limit
	s.limit = limit
	s.mtu = min(s.mtu, limit)
	if s.searching || full {
		s.doubt(now)
	}
}

// doubt searches anew, as what was known may be wrong in both directions.
func (s *sizer) doubt(now time.Time) {
	s.searching, s.tries, s.raise = false, 0, now
	if s.mtu > 0 {
		s.check = now
	}
}

// hear takes note that small packets come back.
func (s *sizer) hear() { s.heard = true }

// answer takes the proof that a size arrives, also a late one.
func (s *sizer) answer(now time.Time, size int) {
	s.heard = true
	if size > s.limit {
		return
	}
	if s.searching {
		s.low = max(s.low, size)
		s.asked = slices.DeleteFunc(s.asked, func(n int) bool { return n <= size })
		if len(s.asked) == 0 {
			s.check = now
		}
		return
	}
	s.mtu = max(s.mtu, size)
	if size == s.mtu {
		s.tries, s.check = 0, now.Add(s.config.Check)
	}
}

// due returns the sizes to ask for now.
func (s *sizer) due(now time.Time) []int {
	if s.limit == 0 || now.Before(s.check) {
		return nil
	}
	switch {
	case s.searching:
		s.round(now)
	case s.mtu == 0:
		s.search(smallest, s.limit+1)
	case s.tries == enough && !s.heard:
		s.rest(now)
		return nil
	case s.tries == enough:
		s.search(smallest, s.mtu+1)
	case s.tries == 0 && s.mtu < s.limit && !now.Before(s.raise):
		s.search(s.mtu, s.limit+1)
	}
	if !s.searching && s.check.After(now) {
		return nil
	}
	return s.ask(now)
}

// ask repeats what was not answered, or checks the known size.
func (s *sizer) ask(now time.Time) []int {
	if s.tries == 0 {
		s.heard = false
	}
	s.tries++
	s.check = now.Add(s.config.Timeout)
	if s.searching {
		return slices.Clone(s.asked)
	}
	return []int{s.mtu}
}

func (s *sizer) search(low, high int) {
	s.searching, s.suspected, s.tries = true, false, 0
	s.low, s.high = low, high
	s.asked = s.ladder()
}

// round goes on with a search: again for what was not answered, or closer.
func (s *sizer) round(now time.Time) {
	switch {
	case len(s.asked) > 0 && s.tries < enough:
		return
	case len(s.asked) > 0 && !s.heard:
		s.searching = false
		s.rest(now)
		return
	case len(s.asked) > 0:
		s.high = s.asked[0]
		if s.suspected && s.low > smallest && s.low >= s.floor {
			// Until more is found to arrive.
			s.mtu, s.raise = min(s.mtu, s.low), now.Add(s.config.Raise)
		}
	}
	s.tries, s.asked = 0, s.ladder()
	if len(s.asked) == 0 {
		s.end(now)
	}
}

// end takes the result of a search. A hint that came to nothing does not put off what is due for other reasons.
func (s *sizer) end(now time.Time) {
	before := s.mtu
	s.searching, s.mtu = false, min(s.low, s.limit)
	s.rest(now)
	if s.suspected && s.mtu == before {
		s.check = s.planned
		return
	}
	s.raise = now.Add(s.config.Raise)
}

// rest waits for the next check.
func (s *sizer) rest(now time.Time) {
	s.tries, s.check = 0, now.Add(s.config.Check)
}

// ladder divides what lies between low and high; the largest possible size is always among them.
func (s *sizer) ladder() []int {
	top := s.high - 1
	if top != s.limit {
		top -= top % step
	}
	var out []int
	for i := 1; i <= rungs; i++ {
		size := s.low + (top-s.low)*i/rungs
		if i < rungs {
			size -= size % step
		}
		if size > s.low && !slices.Contains(out, size) {
			out = append(out, size)
		}
	}
	return out
}
