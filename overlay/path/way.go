package path

import "time"

const (
	window  = 20 // small probes that the loss is counted over
	enough  = 3  // probes in a row without an answer that mean something
	lateFor = 5  // timeouts for which a late answer is still taken
)

// outcome is what became of a probe.
type outcome uint8

const (
	answered outcome = iota
	lost
)

// shot is a probe under way.
type shot struct {
	size  int
	at    time.Time
	lost  bool // so far
	whole bool
}

// way is the way to one node.
type way struct {
	config *Config
	target Target
	sizer  sizer
	sent   map[uint64]shot

	next      time.Time // small probe
	results   []outcome // of the last small probes
	missed    int       // in a row
	asked     time.Time // first of those missed
	silent    time.Time
	roundTrip time.Duration
	moved     time.Time // when bytes were last seen to have come
	remade    time.Time
	proved    shot // the largest that came back whole
}

func newWay(config *Config, start time.Time) *way {
	return &way{config: config, sizer: sizer{config: config, check: start}, sent: map[uint64]shot{}, next: start, moved: start}
}

func (w *way) follow(now time.Time, target Target) {
	if target.Received != w.target.Received {
		w.moved = now
	}
	w.target = target
	w.sizer.bound(now, target.Limit)
	w.sizer.suspect(now, target.Hint)
	if target.Doubted {
		w.sizer.again(now)
	}
}

// due returns the sizes to send now.
func (w *way) due(now time.Time) []int {
	w.expire(now)
	sizes := w.sizer.due(now)
	if len(sizes) == 0 && now.Before(w.next) {
		return nil
	}
	// A small one goes with the others: its answer tells a black hole from silence.
	w.next = now.Add(w.config.Interval)
	return append([]int{0}, sizes...)
}

func (w *way) expire(now time.Time) {
	for number, s := range w.sent {
		age := now.Sub(s.at)
		if age >= w.config.Timeout && !s.lost {
			s.lost = true
			w.sent[number] = s
			if s.size == 0 {
				w.miss(now, s)
			}
		}
		if age >= lateFor*w.config.Timeout {
			delete(w.sent, number)
		}
	}
}

func (w *way) miss(now time.Time, s shot) {
	w.note(lost)
	if w.missed == 0 || s.at.Before(w.asked) {
		w.asked = s.at
	}
	w.missed++
	if w.missed < enough {
		w.next = now
	} else if w.silent.IsZero() {
		w.silent = w.asked
	}
}

func (w *way) note(o outcome) {
	w.results = append(w.results, o)
	if len(w.results) > window {
		w.results = w.results[1:]
	}
}

func (w *way) answer(now time.Time, number uint64) {
	s, known := w.sent[number]
	if !known {
		return
	}
	delete(w.sent, number)
	if !w.silent.IsZero() {
		// The way may be another one now.
		w.sizer.doubt(now)
	}
	w.missed, w.silent = 0, time.Time{}
	if s.size > 0 {
		w.sizer.answer(now, s.size)
		w.prove(s)
		return
	}
	w.sizer.hear()
	if !s.lost {
		w.note(answered)
		w.smooth(now.Sub(s.at))
	}
}

// goesWhole says whether this end would not cut a probe. Where less is said to arrive, it may; nothing is proved then.
func (w *way) goesWhole(size int) bool { return size > 0 && size <= w.target.Hint }

// prove notes what came back whole. Something smaller that did says nothing new while that is fresh.
func (w *way) prove(s shot) {
	if s.whole && (s.size >= w.proved.size || s.at.Sub(w.proved.at) > 2*w.config.Check) {
		w.proved = s
	}
}

func (w *way) smooth(trip time.Duration) {
	if w.roundTrip == 0 {
		w.roundTrip = max(trip, 1)
		return
	}
	w.roundTrip += (trip - w.roundTrip) / 8
}

// wake is when something may be due.
func (w *way) wake() time.Time {
	wake := w.next
	if check := w.sizer.check; check.Before(wake) && w.target.Limit > 0 {
		wake = check
	}
	for _, s := range w.sent {
		if end := s.at.Add(w.config.Timeout); !s.lost && end.Before(wake) {
			wake = end
		}
	}
	return wake
}

func (w *way) remake(now time.Time) bool {
	patience := w.config.Patience
	if w.silent.IsZero() || now.Sub(w.silent) < patience || now.Sub(w.moved) < patience {
		return false
	}
	if !w.target.Alive || !w.remade.Before(w.silent) {
		return false
	}
	w.remade = now
	return true
}

func (w *way) path(name string) Path {
	p := Path{Node: name, MTU: w.sizer.mtu, RoundTrip: w.roundTrip, Silent: w.silent, Remade: w.remade}
	// What is larger than what probes find now is proved no more.
	if w.proved.size <= p.MTU {
		p.Proved, p.ProvedAt = w.proved.size, w.proved.at
	}
	for _, o := range w.results {
		if o == lost {
			p.Loss++
		}
	}
	if len(w.results) > 0 {
		p.Loss /= float64(len(w.results))
	}
	return p
}
