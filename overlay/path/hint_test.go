package path

import (
	"testing"
	"time"
)

// hint lets time go on while something is said to arrive, as an agent looks around.
func (w *world) hint(d time.Duration, say func(n int) int) {
	w.Helper()
	for n, end := 0, w.now.Add(d); w.now.Before(end); n++ {
		w.targets[0].Hint = say(n)
		w.follow()
		w.run(2 * time.Second)
	}
}

// TestHintIsNoLimit has anybody say anything about a way that carries everything: its size stays, for a few probes.
func TestHintIsNoLimit(t *testing.T) {
	for name, say := range map[string]func(n int) int{
		"the least":       func(int) int { return 576 },
		"less and less":   func(n int) int { return 1400 - n },
		"this and that":   func(n int) int { return 600 + 100*(n%2) },
		"next to nothing": func(n int) int { return 1 + n },
	} {
		quiet := newWorld(t, Target{Name: "n", Limit: 1440})
		w := newWorld(t, Target{Name: "n", Limit: 1440})
		for _, one := range []*world{quiet, w} {
			one.run(time.Minute)
			one.sent = 0
		}
		quiet.run(10 * time.Minute)
		for n := range 300 {
			w.hint(2*time.Second, func(int) int { return say(n) })
			if got := w.path("n").MTU; got != 1440 {
				t.Fatalf("%s: the way is taken for %d", name, got)
			}
		}
		// Two sizes and a small one, once in an interval.
		if extra, most := w.sent-quiet.sent, 3*int(10*time.Minute/w.table.config.Interval); extra > most {
			t.Errorf("%s: costs %d probes, at most %d expected", name, extra, most)
		}
	}
}

// TestHintIsLookedAtAtOnce: a way that shrinks and says so is known a few lost probes later, whatever else is said.
func TestHintIsLookedAtAtOnce(t *testing.T) {
	for _, c := range []struct {
		carries, hint, within int
		want                  int // at last
	}{
		{1300, 1300, 6, 1300}, {1296, 1296, 6, 1296}, {600, 600, 6, 600}, {1300, 700, 6, 1296}, {1000, 1200, 25, 992}, {1000, 576, 25, 992},
	} {
		w := newWorld(t, Target{Name: "n", Limit: 1440})
		w.run(time.Minute + 5*time.Second)
		w.carries["n"] = c.carries
		w.hint(time.Duration(c.within)*time.Second, func(int) int { return c.hint })
		if got := w.path("n").MTU; got > c.carries {
			t.Errorf("%+v: taken for %d after %d s", c, got, c.within)
		}
		w.hint(30*time.Second, func(int) int { return c.hint })
		if got := w.path("n").MTU; got != c.want {
			t.Errorf("%+v: found %d", c, got)
		}
	}
}

// TestHintsPutNothingOff: a way that grows again is found to, while it is said to be small.
func TestHintsPutNothingOff(t *testing.T) {
	w := newWorld(t, Target{Name: "n", Limit: 1440})
	w.carries["n"] = 1300
	w.run(time.Minute)
	w.carries["n"] = 1440
	w.hint(w.table.config.Raise+10*time.Second, func(n int) int { return 1280 - n%100 })
	if got := w.path("n").MTU; got != 1440 {
		t.Errorf("found %d, want 1440", got)
	}
}

// TestHintsInSilence: where nothing comes back, a hint says nothing about sizes either.
func TestHintsInSilence(t *testing.T) {
	w := newWorld(t, Target{Name: "n", Limit: 1440})
	w.run(time.Minute)
	w.carries["n"] = 0
	w.hint(10*time.Minute, func(n int) int { return 600 + n%500 })
	if got := w.path("n").MTU; got != 1440 {
		t.Errorf("taken for %d", got)
	}
}
