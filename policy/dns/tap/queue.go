package tap

import (
	"slices"
	"sync"
	"time"
)

const (
	// mostWaiting is how many bytes of answers may wait for one pod; what each takes besides its packet counts, too.
	mostWaiting = 128 << 10
	besides     = 256
)

// waiting is an answer that is to be heard.
type waiting struct {
	answer
	since time.Time
	on    bool // it is on its way, or never was held
}

// line is what waits for the pod behind one link.
type line struct {
	first  []*waiting
	bytes  int
	queued bool // it has its turn in the queue
}

// queue gives each pod its turn, one answer each time, however many wait for it.
type queue struct {
	mu    sync.Mutex
	lines map[int]*line
	turns []int      // links, the next first
	held  []*waiting // by age; those that are on their way may be among them
	ready chan struct{}
}

func newQueue() *queue { return &queue{lines: map[int]*line{}, ready: make(chan struct{}, 1)} }

// put adds an answer, unless too much waits for its pod.
func (q *queue) put(a answer, now time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.lines[a.link]
	if l == nil {
		l = &line{}
		q.lines[a.link] = l
	}
	if l.bytes+len(a.packet)+besides > mostWaiting {
		return false
	}
	w := &waiting{a, now, !a.held}
	l.first, l.bytes = append(l.first, w), l.bytes+len(a.packet)+besides
	if a.held {
		q.held = append(q.held, w)
	}
	if !l.queued {
		l.queued, q.turns = true, append(q.turns, a.link)
	}
	select {
	case q.ready <- struct{}{}:
	default:
	}
	return true
}

// take removes the next answer; nil: there is none.
func (q *queue) take() *waiting {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.turns) == 0 {
		return nil
	}
	link := q.turns[0]
	q.turns = q.turns[1:]
	l := q.lines[link]
	w := l.first[0]
	l.first, l.bytes = l.first[1:], l.bytes-len(w.packet)-besides
	if len(l.first) == 0 {
		delete(q.lines, link)
	} else {
		q.turns = append(q.turns, link)
	}
	return w
}

// release says whether the answer is still to be sent, which is then the caller's to do.
func (q *queue) release(w *waiting) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	was := w.on
	w.on = true
	return !was
}

// overdue are the answers held since before a time, which are then the caller's to send. They are heard all the same.
func (q *queue) overdue(before time.Time) (out []*waiting) {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := slices.IndexFunc(q.held, func(w *waiting) bool { return !w.on && !w.since.Before(before) })
	if n < 0 {
		n = len(q.held)
	}
	for _, w := range q.held[:n] {
		if !w.on {
			w.on = true
			out = append(out, w)
		}
	}
	q.held = slices.Clone(q.held[n:])
	return out
}
