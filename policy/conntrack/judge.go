package conntrack

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// What of the table is used, in hundredths of what it can hold.
const (
	// HighWater is what more than that is too much.
	HighWater = 80
	// LowWater is what remains when whoever has too much has no more than its share.
	LowWater = 70
	// AgainWater is from where on connections of those who are limited end again.
	AgainWater = 75
	// CalmWater is below which nobody stays limited.
	CalmWater = 60
)

const (
	// smallestShare is the part of the table that everybody may hold: no node has as many pods.
	smallestShare = 256
	// limitedRate is the part of the table that all who are limited may still take in a second, together.
	limitedRate = 512
	// MostEnds is how many connections end after one look.
	MostEnds = 1 << 15
	// mostHolders bounds what a census counts one by one.
	mostHolders = 1 << 16
)

// A look costs processor time in proportion to the table, so looks keep their distance: more of it when the last one found
// nothing to do.
const (
	lookAgain     = 3 * time.Second
	lookAfterVain = 30 * time.Second
	// soonAgain is within which who has too much again is limited, though all that it has too much is closing.
	soonAgain = 10 * time.Second
)

// Census counts whose the connections of a table are.
type Census struct {
	addresses Addresses
	total     int
	counts    map[Holder]held
	longest   map[Class]time.Duration // how long the kernel keeps a connection of a class that just had a packet
}

// held is how many connections a holder has, and how many of them are closing or without an answer.
type held struct{ all, ending int }

// NewCensus has counted nothing yet.
func NewCensus(a Addresses) *Census {
	return &Census{addresses: a, counts: map[Holder]held{}, longest: map[Class]time.Duration{}}
}

// Count counts a connection.
func (c *Census) Count(x Connection) {
	c.total++
	c.longest[x.Class] = max(c.longest[x.Class], x.Rest)
	h, ok := c.addresses.Holder(x)
	if !ok {
		return
	}
	n, known := c.counts[h]
	if !known && len(c.counts) == mostHolders {
		return
	}
	if n.all++; x.ends() {
		n.ending++
	}
	c.counts[h] = n
}

// Excess is who is limited.
type Excess struct {
	Holder
	Held  int // at the last look
	Share int // of the table
}

// Judgement is what follows from a census.
type Judgement struct {
	Limited []Excess // who holds most first
	End     map[Holder]int
}

// Judge says who is limited in a table of that capacity, and what ends. Who has too much only because of what is closing
// loses that, and is limited if it soon has too much again: a busy server has many such connections, and none is missed.
// Who was limited stays so until it holds less than half of its share: it would take the same again.
func (c *Census) Judge(capacity int, w Watch, now time.Time) Judgement {
	share := max(c.share(capacity*LowWater/100), capacity/smallestShare, 1)
	j := Judgement{End: map[Holder]int{}}
	for h, n := range c.counts {
		if n.all <= share {
			continue
		}
		j.End[h] = n.all - share
		if n.all-n.ending > share || w.again(h, now) {
			j.Limited = append(j.Limited, Excess{h, n.all, share})
		}
	}
	for _, was := range w.Limited {
		held := c.counts[was.Holder].all
		if was.Share = min(was.Share, share); held <= share && 2*held >= was.Share {
			j.Limited = append(j.Limited, Excess{was.Holder, held, was.Share})
		}
	}
	slices.SortFunc(j.Limited, func(a, b Excess) int {
		return cmp.Or(b.Held-a.Held, a.Address.Compare(b.Address), cmp.Compare(a.Side, b.Side))
	})
	j.bound()
	return j
}

// bound makes what ends at once no more than MostEnds, from each in proportion.
func (j *Judgement) bound() {
	sum := 0
	for _, n := range j.End {
		sum += n
	}
	if sum <= MostEnds {
		return
	}
	for h, n := range j.End {
		j.End[h] = n * MostEnds / sum
	}
	maps.DeleteFunc(j.End, func(_ Holder, n int) bool { return n == 0 })
}

// share is the largest number of which holds: if everybody who has more had just so many, all would fit into the room.
// Where all fit as they are, it is what the largest has.
func (c *Census) share(room int) int {
	var counts []int
	sum := 0
	for _, n := range c.counts {
		counts = append(counts, n.all)
		sum += n.all
	}
	slices.Sort(counts)
	// What is nobody's takes room, too, but no more than half: no pod ends for what its node holds.
	room = max(room-(c.total-sum), room/2)
	for i, n := range counts {
		rest := len(counts) - i
		if n*rest >= room {
			return room / rest
		}
		room -= n
	}
	return slices.Max(append(counts, 0))
}

// PerSecond is how many connections each of so many who are limited may still make in a second.
func PerSecond(capacity, limited int) int { return max(capacity/limitedRate/max(limited, 1), 1) }

// Step is what there is to do.
type Step uint8

// The steps.
const (
	Rest    Step = iota
	Look         // at the table, and judge
	Release      // all who are limited
)

// Watch is what is remembered between two moments.
type Watch struct {
	Limited []Excess
	looked  time.Time
	cut     map[Holder]int // what ended after the last look
}

// Due says what there is to do now, with so many connections in the table.
func (w Watch) Due(count, capacity int, now time.Time) Step {
	used, limiting := count*100, len(w.Limited) > 0
	switch {
	case capacity <= 0:
		return Rest
	case limiting && used < CalmWater*capacity:
		return Release
	case used > HighWater*capacity || limiting && used > AgainWater*capacity:
		return w.look(now)
	}
	return Rest
}

func (w Watch) look(now time.Time) Step {
	distance := lookAgain
	if len(w.cut) == 0 {
		distance = lookAfterVain
	}
	if now.Sub(w.looked) < distance {
		return Rest
	}
	return Look
}

// Looked is the watch after a look.
func (w Watch) Looked(j Judgement, now time.Time) Watch {
	return Watch{Limited: j.Limited, looked: now, cut: j.End}
}

// Without is the watch with nobody limited at these addresses: the next pod there has taken nothing yet.
func (w Watch) Without(gone []netip.Addr) Watch {
	w.Limited = slices.DeleteFunc(slices.Clone(w.Limited), func(x Excess) bool { return slices.Contains(gone, x.Address) })
	w.cut = maps.Clone(w.cut)
	maps.DeleteFunc(w.cut, func(h Holder, _ int) bool { return slices.Contains(gone, h.Address) })
	return w
}

// again says whether who has too much was limited, or had too much a short time ago.
func (w Watch) again(h Holder, now time.Time) bool {
	_, cut := w.cut[h]
	limited := slices.ContainsFunc(w.Limited, func(x Excess) bool { return x.Holder == h })
	return limited || cut && now.Sub(w.looked) <= soonAgain
}

// Released is the watch with nobody limited.
func (w Watch) Released() Watch {
	w.Limited = nil
	return w
}
