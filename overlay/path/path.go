// Package path models what a node finds out about its way to each other node through the tunnel: whether packets come
// back, how long they take, how many are lost, and how large they may be.
//
// Input: the nodes to follow, the time, and the answers to probes. Output: the probes to send now, when to ask again,
// what is known of each way, and whose peer should be made anew.
//
// The largest packet is searched for as in RFC 8899: padded probes that must not be fragmented, and answers. Nobody has
// to say that a packet was too large; where large ones vanish while small ones come back, there is a black hole.
//
// Invariants:
//   - A size is the result only if it came back, or if it is the smallest. It is never above the target's limit.
//   - A way that answers has its size found in a bounded number of rounds, and with a few packets in each.
//   - Silence says nothing about sizes: what was known stays.
//   - A hint, or a doubt, costs a few probes, at most once in an interval. It changes nothing by itself.
//   - What is proved came back although nobody on the way could cut it. Probes that find less end the proof.
//   - A peer is to be made anew at most once in one silence, and only if gossip calls the node alive and not a byte
//     comes from it.
//
// Out of scope: sockets, clocks, and what a size means for routes.
package path

import (
	"hash/fnv"
	"maps"
	"slices"
	"time"
)

// Config sets the pace. A probe that is not answered within Timeout is lost.
type Config struct {
	Interval time.Duration // from one small probe of a node to the next
	Timeout  time.Duration
	Check    time.Duration // from one check of a known size to the next
	Raise    time.Duration // until a size below the limit is searched for anew
	Patience time.Duration // how long a silence is before the peer is made anew
}

// Defaults find a black hole and the way round it within 30 seconds, at a cost of two packets in five seconds for
// each node.
func Defaults() Config {
	return Config{
		Interval: 5 * time.Second, Timeout: time.Second, Check: 10 * time.Second, Raise: 5 * time.Minute, Patience: 10 * time.Second,
	}
}

// Target is a node to follow.
type Target struct {
	Name     string
	Limit    int   // the largest packet that this end lets into the tunnel
	Hint     int   // the largest that is said to arrive, by whomever; zero: nobody says
	Doubted  bool  // somebody says since the last time that less arrives than is proved
	Received int64 // bytes that have come from its peer
	Alive    bool  // as gossip says
}

// Probe is a packet to send. The answer bears its number. Size is that of the whole packet in the tunnel; zero means as
// small as can be. One that is Whole may not be cut by anybody: its answer proves that such packets arrive.
type Probe struct {
	Node   string
	Number uint64
	Size   int
	Whole  bool
}

// Path is what is known of the way to a node.
type Path struct {
	Node      string
	MTU       int           // zero: not known yet
	Proved    int           // the largest that arrived whole, never above MTU; zero: none
	ProvedAt  time.Time     // when it was last sent
	RoundTrip time.Duration // smoothed; zero: no answer yet
	Loss      float64       // share of the last small probes
	Silent    time.Time     // since when nothing comes back; zero: it answers
	Remade    time.Time     // when the peer was last to be made anew; zero: never
}

// Table follows all nodes. It is for one goroutine.
type Table struct {
	config Config
	number uint64
	ways   map[string]*way
	names  []string  // in order
	rested time.Time // when Due may look at all of them again
}

// breath bounds how often all ways are looked at, however many answers come.
const breath = 50 * time.Millisecond

// New follows nobody yet.
func New(config Config) *Table { return &Table{config: config, ways: map[string]*way{}} }

// Follow says whom to probe. What is known of those that stay, stays.
func (t *Table) Follow(now time.Time, targets []Target) {
	named := make(map[string]bool, len(targets))
	for _, target := range targets {
		named[target.Name] = true
		w := t.ways[target.Name]
		if w == nil {
			w = newWay(&t.config, now.Add(t.offset(target.Name)))
			t.ways[target.Name] = w
		}
		w.follow(now, target)
	}
	maps.DeleteFunc(t.ways, func(name string, _ *way) bool { return !named[name] })
	t.names = slices.Sorted(maps.Keys(t.ways))
}

// offset spreads the nodes over the interval, so that not all are asked at once.
func (t *Table) offset(name string) time.Duration {
	h := fnv.New64a()
	h.Write([]byte(name))
	return time.Duration(h.Sum64() % uint64(t.config.Interval))
}

// Due returns the probes to send now, and when to ask again if nothing happens before.
func (t *Table) Due(now time.Time) ([]Probe, time.Time) {
	if now.Before(t.rested) {
		return nil, t.rested
	}
	t.rested = now.Add(breath)
	var probes []Probe
	next := now.Add(t.config.Interval)
	for _, name := range t.names {
		w := t.ways[name]
		for _, size := range w.due(now) {
			t.number++
			s := shot{size: size, at: now, whole: w.goesWhole(size)}
			w.sent[t.number] = s
			probes = append(probes, Probe{Node: name, Number: t.number, Size: size, Whole: s.whole})
		}
		if wake := w.wake(); wake.Before(next) {
			next = wake
		}
	}
	if next.Before(t.rested) {
		next = t.rested
	}
	return probes, next
}

// Answer takes the answer of a node to a probe. One that was not asked for changes nothing.
func (t *Table) Answer(now time.Time, node string, number uint64) {
	if w := t.ways[node]; w != nil {
		w.answer(now, number)
	}
}

// Remake returns the nodes whose peers should be made anew now. It names each once in a silence.
func (t *Table) Remake(now time.Time) []string {
	var out []string
	for _, name := range t.names {
		if t.ways[name].remake(now) {
			out = append(out, name)
		}
	}
	return out
}

// Paths returns what is known, by name.
func (t *Table) Paths() []Path {
	out := make([]Path, 0, len(t.ways))
	for _, name := range t.names {
		out = append(out, t.ways[name].path(name))
	}
	return out
}
