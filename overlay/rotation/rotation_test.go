package rotation

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/kithnet/kith/overlay"
)

var start = time.Unix(1_000_000, 0)

func both(a bool) [overlay.Lanes]bool { return [overlay.Lanes]bool{a, a} }

func shook(ages ...time.Duration) (out [overlay.Lanes]time.Time) {
	for i, age := range ages {
		if age >= 0 {
			out[i] = start.Add(-age)
		}
	}
	return out
}

func TestLane(t *testing.T) {
	const never = time.Duration(-1)
	for _, test := range []struct {
		name       string
		own, other uint32
		lane       int
		shook      [overlay.Lanes]time.Time
		agreed     [overlay.Lanes]bool
		want       int
	}{
		{"nothing there yet", 2, 2, -1, shook(never, never), both(true), 0},
		{"the lower generation says", 3, 2, -1, shook(0, 0), both(true), 0},
		{"both have the next", 3, 3, 0, shook(0, 0), both(true), 1},
		{"no handshake there yet", 3, 3, 0, shook(0, never), both(true), 0},
		{"no handshake anywhere: stays", 3, 3, 0, shook(never, never), both(true), 0},
		{"the handshake is too old", 3, 3, 1, shook(0, fresh), both(true), 0},
		{"a preshared key on the other alone", 2, 2, 0, shook(0, 0), [overlay.Lanes]bool{false, true}, 1},
		{"a preshared key on the right one", 2, 2, 1, shook(0, 0), [overlay.Lanes]bool{true, false}, 0},
		{"no preshared key at all", 2, 2, 1, shook(0, 0), both(false), 0},
		{"the one with a preshared key is dead", 2, 2, 0, shook(0, never), [overlay.Lanes]bool{false, true}, 0},
	} {
		in := Input{Now: start, Generation: test.own}
		p := Peer{Generation: test.other, Lane: test.lane, Handshake: test.shook, Agreed: test.agreed}
		if got := in.lane(p); got != test.want {
			t.Errorf("%s: lane %d, want %d", test.name, got, test.want)
		}
	}
}

func TestCatchUp(t *testing.T) {
	for _, test := range []struct {
		own    uint32
		others []uint32
		action Action
		to     uint32
		led    bool
	}{
		{2, nil, Stay, 0, false},
		{2, []uint32{2, 2}, Stay, 0, false},
		{2, []uint32{3, 2}, Stay, 0, true},
		{2, []uint32{4}, Stay, 0, true},
		{2, []uint32{5}, Stay, 0, true},
		{2, []uint32{6}, Relabel, 4, true},
		{2, []uint32{7, 7, 8}, Relabel, 4, true},
		{3, []uint32{500, 500, 501}, Relabel, 497, true},
		{3, []uint32{1 << 31, 3, 3}, Stay, 0, false},
		{3, []uint32{1<<32 - 1, 3}, Stay, 0, false},
		{7, []uint32{2, 2}, Stay, 0, false},
	} {
		in := Input{Generation: test.own}
		for _, g := range test.others {
			in.Peers = append(in.Peers, Peer{Alive: true, Generation: g}, Peer{Generation: 9000})
		}
		if action, to := in.catchUp(); action != test.action || to != test.to || in.led() != test.led {
			t.Errorf("%d among %v: action %d to %d, led %t", test.own, test.others, action, to, in.led())
		}
	}
}

// world is nodes that tell each other claims late, in any order or not at all, and WireGuard between them.
type world struct {
	*testing.T
	rand  *rand.Rand
	now   time.Time
	nodes []*machine
	mail  []letter
	loss  float64
	hasty bool // somebody asks for new keys all the time
	lost  int  // packets
}

type claim struct {
	epoch               uint64
	generation, settled uint32
	keys                [overlay.Lanes]int
}

type letter struct {
	from, to int
	claim    claim
	due      time.Time
}

type machine struct {
	claim
	rotation *Rotation
	away     bool
	due      bool
	heard    map[int]claim
	lanes    map[int]int
	shook    map[int]*[overlay.Lanes]handshake
}

// handshake is one that this machine knows of; a side may hear of it later than the session is there.
type handshake struct {
	own, other int // keys
	at         time.Time
}

func newWorld(t *testing.T, seed uint64, count int) *world {
	w := &world{T: t, rand: rand.New(rand.NewPCG(seed, 7)), now: start, loss: 0.3}
	for range count {
		m := &machine{
			claim: claim{generation: overlay.FirstGeneration, settled: overlay.FirstGeneration}, rotation: New(5 * time.Second),
			heard: map[int]claim{}, lanes: map[int]int{}, shook: map[int]*[overlay.Lanes]handshake{},
		}
		m.keys = [overlay.Lanes]int{w.rand.Int(), w.rand.Int()}
		w.nodes = append(w.nodes, m)
	}
	return w
}

// tick is a fraction of a second in the life of all.
func (w *world) tick() {
	w.now = w.now.Add(200 * time.Millisecond)
	w.deliver()
	if w.hasty && w.rand.IntN(20) == 0 {
		w.nodes[w.rand.IntN(len(w.nodes))].due = true
	}
	for _, i := range w.rand.Perm(len(w.nodes)) {
		if m := w.nodes[i]; !m.away {
			w.shake(i)
			if w.rand.IntN(3) == 0 {
				w.decide(i)
			}
			w.say(i)
		}
	}
}

// say tells one other, as gossip does again and again.
func (w *world) say(from int) {
	to := w.rand.IntN(len(w.nodes))
	if to != from && w.rand.Float64() >= w.loss {
		delay := time.Duration(w.rand.IntN(3000)) * time.Millisecond
		w.mail = append(w.mail, letter{from, to, w.nodes[from].claim, w.now.Add(delay)})
	}
}

func (w *world) deliver() {
	w.mail = slices.DeleteFunc(w.mail, func(l letter) bool {
		if l.due.After(w.now) {
			return false
		}
		if m := w.nodes[l.to]; !m.away && (m.heard[l.from].epoch < l.claim.epoch || m.shook[l.from] == nil) {
			w.take(m, l)
		}
		return true
	})
}

// take makes peers anew whose key has changed.
func (w *world) take(m *machine, l letter) {
	if m.shook[l.from] == nil {
		m.shook[l.from] = &[overlay.Lanes]handshake{}
	}
	for lane, key := range l.claim.keys {
		if m.heard[l.from].keys[lane] != key {
			m.shook[l.from][lane] = handshake{}
		}
	}
	m.heard[l.from] = l.claim
}

// shake lets WireGuard try, on each lane to somebody, where the keys are known on both sides.
func (w *world) shake(i int) {
	a := w.nodes[i]
	for _, j := range slices.Sorted(maps.Keys(a.heard)) {
		b := w.nodes[j]
		for lane := range overlay.Lanes {
			if b.away || w.rand.IntN(4) > 0 || !w.match(i, j, lane) {
				continue
			}
			a.shook[j][lane] = handshake{a.keys[lane], b.keys[lane], w.now}
			b.shook[i][lane] = handshake{b.keys[lane], a.keys[lane], w.now}
		}
	}
}

func (w *world) match(i, j, lane int) bool {
	a, b := w.nodes[i], w.nodes[j]
	return b.shook[i] != nil && a.shook[j] != nil && a.heard[j].keys[lane] == b.keys[lane] && b.heard[i].keys[lane] == a.keys[lane]
}

func (w *world) decide(i int) {
	m := w.nodes[i]
	in := Input{Now: w.now, Generation: m.generation, Due: m.due}
	for _, j := range slices.Sorted(maps.Keys(m.heard)) {
		p := Peer{
			Name: fmt.Sprint(j), Alive: !w.nodes[j].away, Generation: m.heard[j].generation, Settled: m.heard[j].settled,
			Lane: -1, Agreed: both(true),
		}
		if lane, ok := m.lanes[j]; ok {
			p.Lane = lane
		}
		for lane := range overlay.Lanes {
			p.Handshake[lane] = m.shook[j][lane].at
		}
		in.Peers = append(in.Peers, p)
	}
	d := m.rotation.Decide(in)
	for j := range m.heard {
		m.lanes[j] = d.Lanes[fmt.Sprint(j)]
	}
	before := m.claim
	m.settled = d.Settled
	w.act(i, d)
	if before != m.claim {
		m.epoch++
	}
}

func (w *world) act(i int, d Decision) {
	m := w.nodes[i]
	switch d.Action {
	case Relabel:
		if d.Generation%overlay.Lanes != m.generation%overlay.Lanes {
			w.Fatalf("node %d turns its lanes round: %d to %d", i, m.generation, d.Generation)
		}
		m.generation = d.Generation
	case Renew:
		m.generation++
		m.due = false
		idle := int(m.generation % overlay.Lanes)
		for j, other := range w.nodes {
			if j == i || other.away || m.away {
				continue
			}
			if lane, ok := other.lanes[i]; ok && lane == idle {
				w.Fatalf("node %d renews lane %d, on which node %d sends to it", i, idle, j)
			}
			if lane, ok := m.lanes[j]; ok && lane == idle {
				w.Fatalf("node %d renews lane %d, on which it sends to node %d", i, idle, j)
			}
		}
		m.keys[idle] = w.rand.Int()
		for j := range m.shook {
			m.shook[j][idle] = handshake{}
		}
	}
}

// send lets everybody send to everybody, and counts what does not arrive.
func (w *world) send() {
	for i, a := range w.nodes {
		for j, b := range w.nodes {
			if i == j || a.away || b.away {
				continue
			}
			lane := a.lanes[j]
			if b.shook[i] == nil || a.shook[j] == nil || a.shook[j][lane].at.IsZero() || a.shook[j][lane].other != b.keys[lane] || b.heard[i].keys[lane] != a.keys[lane] {
				w.lost++
			}
		}
	}
}

// begin ticks until all know of all.
func (w *world) begin() {
	w.lost = 1
	for w.lost > 0 {
		w.tick()
		w.lost = 0
		w.send()
	}
}

// until ticks until all nodes that are not away are settled in a generation.
func (w *world) until(what string, generation uint32) {
	w.Helper()
	for range 20_000 {
		w.tick()
		w.send()
		done := true
		for _, m := range w.nodes {
			done = done && (m.away || m.generation >= generation && m.settled >= generation)
		}
		if done {
			return
		}
	}
	for i, m := range w.nodes {
		w.Logf("node %d: generation %d settled %d away %t", i, m.generation, m.settled, m.away)
	}
	w.Fatalf("%s: generation %d never ends", what, generation)
}

func TestNothingIsLostOverRotations(t *testing.T) {
	for seed := range uint64(40) {
		w := newWorld(t, seed, 2+int(seed%5))
		w.begin()
		w.hasty = seed%2 == 1
		for g := uint32(overlay.FirstGeneration + 1); g < overlay.FirstGeneration+8; g++ {
			w.nodes[w.rand.IntN(len(w.nodes))].due = true
			if w.rand.IntN(2) == 0 {
				w.nodes[w.rand.IntN(len(w.nodes))].due = true
			}
			w.until("rotation", g)
		}
		if w.lost > 0 {
			t.Errorf("seed %d: %d packets lost", seed, w.lost)
		}
	}
}

// TestNodesThatWereAway: the others go on without them, and they catch up. While they come back nothing is lost
// between those that stayed.
func TestNodesThatWereAway(t *testing.T) {
	for seed := range uint64(40) {
		w := newWorld(t, seed, 4)
		w.begin()
		missed := 1 + uint32(seed%7)
		w.nodes[0].away = true
		g := uint32(overlay.FirstGeneration)
		for range missed {
			g = w.highest() + 1
			w.nodes[1].due = true
			w.until("away", g)
		}
		w.nodes[0].away = false
		w.until("back", g)
		w.nodes[0].due = true
		w.until("after", w.highest()+1)
	}
}

func (w *world) highest() (g uint32) {
	for _, m := range w.nodes {
		g = max(g, m.generation)
	}
	return g
}

// TestOneDoesNotLeadFar: a member that claims a high generation moves nobody, and holds nobody up that it is settled with.
func TestOneDoesNotLeadFar(t *testing.T) {
	in := Input{Now: start, Generation: 5}
	for _, name := range []string{"b", "c", "liar"} {
		p := Peer{Name: name, Alive: true, Generation: 5, Settled: 5, Lane: 1, Handshake: shook(0, 0), Agreed: both(true)}
		if name == "liar" {
			p.Generation, p.Settled = 1<<32-1, 1<<32-1
		}
		in.Peers = append(in.Peers, p)
	}
	r := New(time.Second)
	for range 10 {
		if d := r.Decide(in); d.Action != Stay || d.Settled != 5 || d.Moving {
			t.Fatalf("decision %+v", d)
		}
		in.Now = in.Now.Add(time.Second)
	}
}

// TestOneBehindIsNamed: a node that stays behind keeps all from settling, and it alone is to blame.
func TestOneBehindIsNamed(t *testing.T) {
	in := Input{Now: start, Generation: 5, Due: true}
	for _, p := range []Peer{{Name: "b"}, {Name: "c"}, {Name: "d"}} {
		p.Alive, p.Generation, p.Lane, p.Handshake, p.Agreed = true, 5, 1, shook(0, 0), both(true)
		in.Peers = append(in.Peers, p)
	}
	in.Peers[1].Generation = 0
	d := New(0).Decide(in)
	if !slices.Equal(d.HeldBy, []string{"c"}) || d.Action != Stay || d.Settled != 0 {
		t.Errorf("decision %+v", d)
	}
	// Two behind are named, and one that is settled less than they explain.
	in.Peers[1].Generation, in.Peers[1].Settled, in.Peers[2].Generation, in.Peers[2].Settled = 3, 3, 4, 3
	if d := New(0).Decide(in); !slices.Equal(d.HeldBy, []string{"c", "d", "b"}) || d.Action != Stay {
		t.Errorf("decision %+v", d)
	}
	in.Peers[0].Settled = 2
	if d := New(0).Decide(in); !slices.Equal(d.HeldBy, []string{"c", "d"}) || d.Action != Stay {
		t.Errorf("decision %+v", d)
	}
}

func TestHeldByIsTold(t *testing.T) {
	in := Input{Now: start, Generation: 5, Due: true, Peers: []Peer{
		{Name: "slow", Alive: true, Generation: 5, Settled: 4, Lane: 1, Handshake: shook(0, 0), Agreed: both(true)},
		{Name: "deaf", Alive: true, Generation: 5, Settled: 5, Lane: 0, Handshake: shook(0, -1), Agreed: both(true)},
		{Name: "good", Alive: true, Generation: 5, Settled: 5, Lane: 1, Handshake: shook(0, 0), Agreed: both(true)},
		{Name: "dead", Generation: 3, Settled: 3, Lane: 1},
	}}
	r := New(0)
	d := r.Decide(in)
	if !slices.Equal(d.HeldBy, []string{"deaf", "slow"}) || d.Action != Stay || d.Settled != 4 || !d.Moving {
		t.Errorf("decision %+v", d)
	}
	in.Peers = in.Peers[2:]
	if d := r.Decide(in); d.Action != Renew || d.HeldBy != nil || d.Settled != 5 {
		t.Errorf("decision %+v", d)
	}
}
