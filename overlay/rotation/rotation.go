// Package rotation decides when a node gives a lane new keys, and which lane it
// sends on to each other node, so that no packet is lost on the way.
//
// Input: the time, this node's generation, and of every other node what its verified
// claim says, whether it is alive, and how the lanes to it stand. Output: what to do
// with the own keys, what to claim, and the lane for each node.
//
// Lane generation % 2 has keys of that generation, the other lane those of the one
// before. Two nodes send each other on the lane of the lower of their generations,
// as soon as it has a handshake. A node is settled in a generation when it sends so
// to every living node. It gives the idle lane new keys, which is the next
// generation, only when it and all living nodes have claimed to be settled in its
// own; it does so when that is due, or when another has.
//
// Invariants:
//   - No lane gets new keys while a living node sends on it to this one, or this one
//     on it to any: claims may be late or lost, since a node never claims to be
//     settled further than it is with anybody, and a pair stays on a lane until both
//     ends have claimed the next generation.
//   - A node moves to a lane only after a handshake of the keys that are there.
//   - While all living nodes hear each other, each generation ends in all of them.
//   - A node that was away goes on with the others; one that claims a generation far
//     ahead of most leads nobody.
//
// Out of scope: keys, claims and their signatures, the kernel, the clock.
package rotation

import (
	"slices"
	"time"

	"github.com/kithnet/kith/overlay"
)

// fresh is how old the last handshake of a lane may be that can carry: without one
// for longer, WireGuard refuses its session.
const fresh = 180 * time.Second

// Peer is another node. Lane is the one that its routes have now, or negative.
// Agreed says that a lane has the preshared key that it should have, or needs none;
// a zero Handshake that there was none of the keys that it should have.
type Peer struct {
	Name                string
	Alive               bool
	Generation, Settled uint32
	Lane                int
	Handshake           [overlay.Lanes]time.Time
	Agreed              [overlay.Lanes]bool
}

// Input is all that a decision rests on. Due asks for a new generation.
type Input struct {
	Now        time.Time
	Generation uint32
	Due        bool
	Peers      []Peer
}

// Action is what to do with the own keys.
type Action uint8

// The actions. Relabel gives the same keys the generation that the Decision says;
// Renew gives the idle lane new keys, of the next generation.
const (
	Stay Action = iota
	Relabel
	Renew
)

// Decision is what to do now. Settled is to be claimed, with the own generation as
// it is before the action. HeldBy are the living nodes that a generation which is
// due waits for, first those that are behind.
type Decision struct {
	Action     Action
	Generation uint32 // to relabel as
	Settled    uint32
	Lanes      map[string]int
	Moving     bool // something is under way: decide again soon
	HeldBy     []string
}

// Rotation remembers since when all nodes have been settled.
type Rotation struct {
	hold  time.Duration
	last  time.Time // decision
	since time.Time
	alive []string
}

// New makes one that lets hold pass between the last claim and the change of keys,
// so that a node that has just come to life is heard. Decisions must not be further
// apart than that while one is under way.
func New(hold time.Duration) *Rotation { return &Rotation{hold: hold} }

// Decide takes one step.
func (r *Rotation) Decide(in Input) Decision {
	d := Decision{Settled: in.Generation, Lanes: make(map[string]int, len(in.Peers))}
	for _, p := range in.Peers {
		lane := in.lane(p)
		d.Lanes[p.Name] = lane
		if p.Alive {
			d.Settled = min(d.Settled, level(in.Generation, p.Generation, lane))
		}
	}
	d.Action, d.Generation = in.catchUp()
	wanted := in.Due || in.led()
	if !wanted || in.Now.Sub(r.last) > r.hold {
		r.since = time.Time{}
	}
	r.last = in.Now
	d.Moving = wanted || d.Settled < in.Generation || d.Action != Stay
	if d.Action == Stay && wanted {
		d.HeldBy = in.heldBy()
		if r.held(in, d.HeldBy) {
			d.Action = Renew
		}
	}
	return d
}

// lane is the one to send on: of those that have a handshake one with a preshared
// key, then the one that the generations say.
func (in Input) lane(p Peer) int {
	best := int(min(in.Generation, p.Generation) % overlay.Lanes)
	if p.Lane < 0 {
		p.Lane = best
	}
	other := 1 - best
	switch {
	case !in.carries(p, best) && !in.carries(p, other):
		return p.Lane
	case !in.carries(p, best):
		return other
	case !in.carries(p, other) || p.Agreed[best] || !p.Agreed[other]:
		return best
	}
	return other
}

func (in Input) carries(p Peer, lane int) bool {
	return !p.Handshake[lane].IsZero() && in.Now.Sub(p.Handshake[lane]) < fresh
}

// level is how far a node is settled with another.
func level(own, other uint32, lane int) uint32 {
	both := min(own, other)
	if lane != int(both%overlay.Lanes) {
		return both - min(both, 1)
	}
	return both
}

// led says that a living node is one generation ahead, or most of them are further.
func (in Input) led() bool {
	return in.most() > in.Generation || slices.ContainsFunc(in.Peers, func(p Peer) bool {
		return p.Alive && p.Generation == in.Generation+1
	})
}

// most is the highest generation that more than half of the living nodes have
// reached, this one not counted.
func (in Input) most() uint32 {
	var all []uint32
	for _, p := range in.Peers {
		if p.Alive {
			all = append(all, p.Generation)
		}
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[(len(all)-1)/2]
}

// catchUp relabels the keys of a node that was away, so that both lanes still get
// new ones on the rest of the way.
func (in Input) catchUp() (Action, uint32) {
	most := in.most()
	to := most - min(most, overlay.Lanes)
	if to%overlay.Lanes != in.Generation%overlay.Lanes {
		to--
	}
	if to <= in.Generation || most <= overlay.Lanes {
		return Stay, 0
	}
	return Relabel, to
}

// heldBy names first who lacks the generation, or a way from this node. Whoever is
// settled as far as the one behind all others lets anybody be is left out.
func (in Input) heldBy() []string {
	behind := in.Generation
	for _, p := range in.Peers {
		if p.Alive {
			behind = min(behind, p.Generation)
		}
	}
	var first, rest []string
	for _, p := range in.Peers {
		switch {
		case !p.Alive:
		case level(in.Generation, p.Generation, in.lane(p)) < in.Generation:
			first = append(first, p.Name)
		case p.Settled < in.Generation && (behind == in.Generation || p.Settled+1 < behind):
			rest = append(rest, p.Name)
		}
	}
	slices.Sort(first)
	slices.Sort(rest)
	return append(first, rest...)
}

// held says that nobody has been waited for, among the same living nodes, for long
// enough.
func (r *Rotation) held(in Input, heldBy []string) bool {
	var alive []string
	for _, p := range in.Peers {
		if p.Alive {
			alive = append(alive, p.Name)
		}
	}
	slices.Sort(alive)
	if len(heldBy) > 0 || r.since.IsZero() || !slices.Equal(alive, r.alive) {
		r.since, r.alive = in.Now, alive
	}
	if len(heldBy) > 0 || in.Now.Sub(r.since) < r.hold {
		return false
	}
	r.since = time.Time{}
	return true
}
