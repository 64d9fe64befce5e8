package path

import (
	"testing"
	"time"
)

// proof is what is proved of the way, and how long ago its probe was sent.
func (w *world) proof() (int, time.Duration) {
	w.Helper()
	p := w.path("n")
	return p.Proved, w.now.Sub(p.ProvedAt)
}

// TestProofStaysFresh: what arrives is proved again and again, though some is lost.
func TestProofStaysFresh(t *testing.T) {
	w := newWorld(t, Target{Name: "n", Limit: 1440, Hint: 1440})
	w.loss = 0.05
	w.run(time.Minute)
	stale := 0
	for range 600 {
		w.run(time.Second)
		if size, age := w.proof(); size != 1440 || age > 3*w.table.config.Check {
			stale++
		}
	}
	if stale > 12 {
		t.Errorf("in %d of 600 seconds the whole way is not proved", stale)
	}
}

// TestCutProbesProveNothing: where this end may cut what it sends, all arrives, in pieces.
func TestCutProbesProveNothing(t *testing.T) {
	for _, hint := range []int{0, 576, 1300, 1439} {
		w := newWorld(t, Target{Name: "n", Limit: 1440, Hint: hint})
		for range 120 {
			w.run(time.Second)
			if size, _ := w.proof(); size > hint {
				t.Fatalf("%d are said to arrive whole: %d are taken for proved", hint, size)
			}
		}
		if got := w.path("n").MTU; got != 1440 {
			t.Errorf("%d are said to arrive whole: the way is taken for %d", hint, got)
		}
		w.targets[0].Hint = 1440
		w.follow()
		w.run(2 * w.table.config.Check)
		if size, _ := w.proof(); size != 1440 {
			t.Errorf("nothing less is said any more: %d are proved", size)
		}
	}
}

// TestProofEndsWithTheWay: on a way that shrinks at any moment, whatever is said, what does not arrive is soon proved no more,
// and what does is.
func TestProofEndsWithTheWay(t *testing.T) {
	for n := range 50 {
		w := newWorld(t, Target{Name: "n", Limit: 1440, Hint: 1440})
		w.run(time.Minute + time.Duration(n)*200*time.Millisecond)
		carries := smallest + 16*(n+1)
		w.carries["n"] = carries
		w.run(30 * time.Second)
		if size, _ := w.proof(); size > carries {
			t.Errorf("the way carries %d: %d are proved", carries, size)
		}
		w.run(30 * time.Second)
		if size, age := w.proof(); size != best(1440, carries) || age > 2*w.table.config.Check {
			t.Errorf("the way carries %d: %d are proved, %s ago", carries, size, age)
		}
	}
}

// TestSilenceProvesNothing: without answers, the proof gets old.
func TestSilenceProvesNothing(t *testing.T) {
	w := newWorld(t, Target{Name: "n", Limit: 1440, Hint: 1440})
	w.run(time.Minute)
	w.carries["n"] = 0
	w.run(time.Minute)
	if size, age := w.proof(); age < 30*time.Second {
		t.Errorf("after a minute of silence %d were proved %s ago", size, age)
	}
}

// TestDoubtIsLookedAtAtOnce: a way that shrinks, of which somebody says so, is known a few lost probes later, and one that does not
// costs a few probes, however often it is said.
func TestDoubtIsLookedAtAtOnce(t *testing.T) {
	for n := range 20 {
		w := newWorld(t, Target{Name: "n", Limit: 1440, Hint: 1440})
		w.run(time.Minute + time.Duration(n)*500*time.Millisecond)
		w.targets[0].Doubted = true
		w.carries["n"] = 1300
		for range 3 {
			w.follow()
			w.run(2 * time.Second)
		}
		if got := w.path("n").MTU; got > 1300 {
			t.Errorf("taken for %d after 6 s of doubt", got)
		}
	}
}

func TestDoubtsAreNoLimit(t *testing.T) {
	quiet, w := newWorld(t, Target{Name: "n", Limit: 1440, Hint: 1440}), newWorld(t, Target{Name: "n", Limit: 1440, Hint: 1440})
	for _, one := range []*world{quiet, w} {
		one.run(time.Minute)
		one.sent = 0
	}
	quiet.run(10 * time.Minute)
	for range 300 {
		w.targets[0].Doubted = true
		w.follow()
		w.run(2 * time.Second)
		if p := w.path("n"); p.MTU != 1440 || p.Proved != 1440 {
			t.Fatalf("the way is taken for %+v", p)
		}
	}
	if extra, most := w.sent-quiet.sent, 5*int(10*time.Minute/w.table.config.Interval); extra > most {
		t.Errorf("costs %d probes, at most %d expected", extra, most)
	}
}
