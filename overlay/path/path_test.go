package path

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// world is a node's table and ways that carry packets up to a size, with a clock that jumps.
type world struct {
	*testing.T
	table   *Table
	now     time.Time
	targets []Target
	carries map[string]int // largest packet that comes back; zero: none
	loss    float64        // share of the probes whose answers get lost
	random  *rand.Rand
	sent    int
	pending []reply
}

type reply struct {
	at     time.Time
	node   string
	number uint64
}

const trip = 30 * time.Millisecond

func newWorld(t *testing.T, targets ...Target) *world {
	w := &world{
		T: t, table: New(Defaults()), now: time.Unix(1e9, 0), targets: targets,
		carries: map[string]int{}, random: rand.New(rand.NewPCG(1, 2)),
	}
	for _, target := range targets {
		w.carries[target.Name] = target.Limit
	}
	w.follow()
	return w
}

func (w *world) follow() { w.table.Follow(w.now, w.targets) }

// run lets time go on.
func (w *world) run(d time.Duration) {
	end := w.now.Add(d)
	for {
		probes, next := w.table.Due(w.now)
		if !next.After(w.now) {
			w.Fatalf("at %s the next time is %s", w.now, next)
		}
		w.sent += len(probes)
		for _, p := range probes {
			if most := w.carries[p.Node]; most > 0 && p.Size <= most && w.random.Float64() >= w.loss {
				w.pending = append(w.pending, reply{w.now.Add(trip), p.Node, p.Number})
			}
		}
		if len(w.pending) > 0 && w.pending[0].at.Before(next) {
			next = w.pending[0].at
		}
		if next.After(end) {
			w.now = end
			return
		}
		w.now = next
		for len(w.pending) > 0 && !w.pending[0].at.After(w.now) {
			w.table.Answer(w.now, w.pending[0].node, w.pending[0].number)
			w.pending = w.pending[1:]
		}
	}
}

func (w *world) path(node string) Path {
	w.Helper()
	for _, p := range w.table.Paths() {
		if p.Node == node {
			return p
		}
	}
	w.Fatalf("nothing is known of %s", node)
	return Path{}
}

// best is the size that a search should find.
func best(limit, carries int) int {
	if carries >= limit {
		return limit
	}
	return max(smallest, carries-carries%step)
}

func TestSizeIsFound(t *testing.T) {
	for _, limit := range []int{576, 1200, 1216, 1420, 1440, 8920, 8940, 65475} {
		for n := range 200 {
			carries := smallest + n*(limit+100-smallest)/199
			w := newWorld(t, Target{Name: "n", Limit: limit})
			w.carries["n"] = carries
			w.run(30 * time.Second)
			if got, want := w.path("n").MTU, best(limit, carries); got != want {
				t.Errorf("limit %d, way carries %d: found %d, want %d", limit, carries, got, want)
			}
		}
	}
}

// TestBlackHoleIsFound lets ways shrink at any moment, and says how long a packet of the old size was lost at most.
func TestBlackHoleIsFound(t *testing.T) {
	var worst time.Duration
	for n := range 100 {
		w := newWorld(t, Target{Name: "n", Limit: 8940})
		w.run(time.Minute + time.Duration(n)*100*time.Millisecond)
		carries := smallest + w.random.IntN(8940-smallest)
		w.carries["n"] = carries
		begin := w.now
		for w.path("n").MTU > carries {
			w.run(100 * time.Millisecond)
			if w.now.Sub(begin) > 30*time.Second {
				t.Fatalf("way carries %d, still taken for %d after %s", carries, w.path("n").MTU, w.now.Sub(begin))
			}
		}
		worst = max(worst, w.now.Sub(begin))
		if got, want := w.path("n").MTU, best(8940, carries); got != want {
			t.Errorf("way carries %d: found %d, want %d", carries, got, want)
		}
	}
	t.Logf("found within %s", worst)
}

func TestWayThatGrowsIsFound(t *testing.T) {
	w := newWorld(t, Target{Name: "n", Limit: 1440})
	w.carries["n"] = 1300
	w.run(time.Minute)
	w.carries["n"] = 1400
	w.run(w.table.config.Raise)
	if got := w.path("n").MTU; got != 1392 {
		t.Errorf("found %d, want 1392", got)
	}
}

func TestLimitIsNeverExceeded(t *testing.T) {
	w := newWorld(t, Target{Name: "n", Limit: 8940})
	w.run(time.Minute)
	for _, limit := range []int{1440, 8940, 1420} {
		w.targets[0].Limit = limit
		w.follow()
		if got := w.path("n").MTU; got > limit {
			t.Errorf("limit %d: %d", limit, got)
		}
		w.run(time.Minute)
		if got := w.path("n").MTU; got != min(limit, 8940) {
			t.Errorf("limit %d: %d a minute later", limit, got)
		}
	}
}

func TestSilenceSaysNothingAboutSizes(t *testing.T) {
	w := newWorld(t, Target{Name: "n", Limit: 1440})
	w.carries["n"] = 1300
	w.run(time.Minute)
	w.carries["n"] = 0
	w.run(time.Hour)
	if p := w.path("n"); p.MTU != 1296 || p.Silent.IsZero() || p.Loss != 1 {
		t.Errorf("after an hour of silence: %+v", p)
	}
	w.carries["n"] = 1440
	w.run(30 * time.Second)
	if p := w.path("n"); p.MTU != 1440 || !p.Silent.IsZero() {
		t.Errorf("after the silence: %+v", p)
	}
	never := newWorld(t, Target{Name: "n", Limit: 1440})
	never.carries["n"] = 0
	never.run(time.Hour)
	if p := never.path("n"); p.MTU != 0 || p.Silent.IsZero() || p.RoundTrip != 0 {
		t.Errorf("never an answer: %+v", p)
	}
}

func TestRoundTripAndLoss(t *testing.T) {
	w := newWorld(t, Target{Name: "n", Limit: 1440})
	w.run(time.Minute)
	if p := w.path("n"); p.RoundTrip != trip || p.Loss != 0 {
		t.Errorf("a good way: %+v", p)
	}
	w.loss = 0.3
	w.run(10 * time.Minute)
	if p := w.path("n"); p.Loss < 0.05 || p.Loss > 0.7 || p.RoundTrip != trip {
		t.Errorf("a way that loses three of ten: %+v", p)
	}
}

// TestLossIsNoBlackHole lets hours pass on a way that loses packets of all sizes alike.
func TestLossIsNoBlackHole(t *testing.T) {
	w := newWorld(t, Target{Name: "n", Limit: 1440})
	w.loss = 0.1
	w.run(time.Minute)
	var lower, rounds int
	for range 6 * 60 {
		w.run(time.Minute)
		rounds++
		if w.path("n").MTU < 1440 {
			lower++
		}
	}
	if lower > rounds/20 {
		t.Errorf("in %d of %d minutes the way was taken for smaller than it is", lower, rounds)
	}
}

func TestPeerIsRemadeOnceInASilence(t *testing.T) {
	const half = 30 * time.Second
	tests := map[string]struct {
		change  func(*Target, int)
		carries int
		want    int
	}{
		"silent":            {func(*Target, int) {}, 0, 1},
		"gossip calls dead": {func(t *Target, _ int) { t.Alive = false }, 0, 0},
		"bytes come":        {func(t *Target, n int) { t.Received = int64(n) }, 0, 0},
		"answers":           {func(*Target, int) {}, 1440, 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, Target{Name: "n", Limit: 1440, Alive: true})
			w.run(half)
			remade := 0
			for range 2 {
				w.carries["n"] = test.carries
				for n := range 60 {
					test.change(&w.targets[0], n)
					w.follow()
					w.run(time.Second)
					remade += len(w.table.Remake(w.now))
				}
				if remade != test.want {
					t.Fatalf("remade %d times, want %d", remade, test.want)
				}
				w.carries["n"] = 1440
				w.run(half)
				remade = 0
			}
		})
	}
}

func TestPeerIsRemadeSoon(t *testing.T) {
	w := newWorld(t, Target{Name: "n", Limit: 1440, Alive: true})
	w.run(time.Minute)
	w.carries["n"] = 0
	begin := w.now
	for len(w.table.Remake(w.now)) == 0 {
		if w.run(time.Second); w.now.Sub(begin) > 20*time.Second {
			t.Fatal("not remade after 20 seconds of silence")
		}
	}
	if p := w.path("n"); p.Remade != w.now {
		t.Errorf("remade at %s: %+v", w.now, p)
	}
}

// TestCostIsBounded counts packets: in the steady state, and when all ways turn into black holes at once.
func TestCostIsBounded(t *testing.T) {
	const nodes = 300
	var targets []Target
	for n := range nodes {
		targets = append(targets, Target{Name: fmt.Sprintf("n%d", n), Limit: 1440})
	}
	w := newWorld(t, targets...)
	w.run(time.Minute)
	w.sent = 0
	w.run(3 * time.Minute)
	if each := float64(w.sent) / nodes / 180; each > 0.45 {
		t.Errorf("%.2f packets a second for each node", each)
	} else {
		t.Logf("%.2f packets a second for each node", each)
	}
	for name := range w.carries {
		w.carries[name] = 1300
	}
	w.sent = 0
	w.run(30 * time.Second)
	if each := w.sent / nodes; each > 80 {
		t.Errorf("%d packets for each node to find its way round a black hole", each)
	}
}

func TestOrderOfTargetsDoesNotMatter(t *testing.T) {
	var targets []Target
	for n := range 20 {
		targets = append(targets, Target{Name: fmt.Sprintf("n%d", n), Limit: 1440})
	}
	shuffled := slices.Clone(targets)
	rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	a, b := newWorld(t, targets...), newWorld(t, shuffled...)
	a.run(time.Minute)
	b.run(time.Minute)
	if diff := cmp.Diff(a.table.Paths(), b.table.Paths()); diff != "" || a.sent != b.sent {
		t.Errorf("%d and %d packets, paths differ:\n%s", a.sent, b.sent, diff)
	}
}

func TestWhatWasNotAskedChangesNothing(t *testing.T) {
	w := newWorld(t, Target{Name: "n", Limit: 1440}, Target{Name: "m", Limit: 1440})
	w.run(time.Minute)
	before := w.table.Paths()
	w.table.Answer(w.now, "n", 1<<40)
	w.table.Answer(w.now, "n", 1)
	w.table.Answer(w.now, "x", 1)
	if diff := cmp.Diff(before, w.table.Paths()); diff != "" {
		t.Errorf("(-before +after):\n%s", diff)
	}
	w.targets = w.targets[:1]
	w.follow()
	if got := w.table.Paths(); len(got) != 1 || got[0].Node != "n" {
		t.Errorf("m is gone, and known is %v", got)
	}
}
