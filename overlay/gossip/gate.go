package gossip

import (
	"cmp"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/kithnet/kith/overlay"
)

// Cause says why something that came was dropped before memberlist or the judge read it.
type Cause string

// The causes. Those about packets and streams are counted by address, the others for all together.
const (
	PacketRate  Cause = "packet-rate"  // more packets than one address may send
	PacketSize  Cause = "packet-size"  // a packet larger than members send
	StreamRate  Cause = "stream-rate"  // more streams than one address may open, one after another or at once
	StreamSize  Cause = "stream-size"  // a stream with more than all that a cluster knows
	SocketFull  Cause = "socket-full"  // the kernel had no room left
	QueueFull   Cause = "queue-full"   // memberlist had no room left
	MailboxFull Cause = "mailbox-full" // letters came faster than they were read
	MessageSize Cause = "message-size" // a name, a record or a letter longer than members send
	BadLetter   Cause = "bad-letter"   // a letter that is none, or not from whom it says
	Unreadable  Cause = "unreadable"   // it bears the cluster's key, and is no message
)

// Unheard is how much was dropped unread. From is zero for all addresses at which no member is known.
type Unheard struct {
	From  netip.Addr
	Cause Cause
	Count uint64
}

// What one address may send, and what all may that are not a member's together: some ten times what a member of a
// large cluster does send.
const (
	maxPacket = 2048
	maxStream = 8 << 20
	maxHeld   = 3 * maxStream // in all streams together

	maxSources = 8192
	floodEvery = time.Minute
)

// gate bounds what members and strangers cost before anything they send is decrypted. Each member's address has a
// budget of its own: who floods takes nothing from the others. All addresses at which no member is known share one.
type gate struct {
	knows func(netip.Addr) bool
	now   func() time.Time
	log   *slog.Logger

	mu      sync.Mutex
	sources map[netip.Addr]*source // members'
	others  *source
	rest    map[Cause]uint64
	held    int    // bytes in all open streams
	socket  uint32 // the kernel's count of what its socket dropped
}

// source is what came from one address, or from all others.
type source struct {
	packets, streams overlay.Budget
	open, maxOpen    int
	held, maxHeld    int // bytes in open streams
	unheard          map[Cause]uint64
	told             time.Time
}

func newGate(knows func(netip.Addr) bool, log *slog.Logger) *gate {
	return &gate{
		knows: knows, now: time.Now, log: log,
		sources: map[netip.Addr]*source{}, rest: map[Cause]uint64{},
		others: &source{
			packets: overlay.Budget{Burst: 4096, PerSecond: 2048}, streams: overlay.Budget{Burst: 256, PerSecond: 64},
			maxOpen: 32, maxHeld: maxStream / 2, unheard: map[Cause]uint64{},
		},
	}
}

func newSource() *source {
	return &source{
		packets: overlay.Budget{Burst: 512, PerSecond: 256}, streams: overlay.Budget{Burst: 64, PerSecond: 16},
		maxOpen: 16, maxHeld: maxStream, unheard: map[Cause]uint64{},
	}
}

// packet says whether a packet may be read.
func (g *gate) packet(from netip.Addr, size int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.source(from)
	switch {
	case size == 0 || size > maxPacket:
		g.drop(s, from, PacketSize)
	case !s.packets.Take(g.now()):
		g.drop(s, from, PacketRate)
	default:
		return true
	}
	return false
}

// stream says whether a stream may be opened; nil: no.
func (g *gate) stream(from netip.Addr) *toll {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.source(from)
	if s.open >= s.maxOpen || !s.streams.Take(g.now()) {
		g.drop(s, from, StreamRate)
		return nil
	}
	s.open++
	return &toll{gate: g, source: s, from: from}
}

func (g *gate) source(from netip.Addr) *source {
	if !g.knows(from) {
		return g.others
	}
	s := g.sources[from]
	if s == nil {
		if len(g.sources) >= maxSources {
			g.prune()
		}
		s = newSource()
		g.sources[from] = s
	}
	return s
}

// prune keeps only the counts of all sources.
func (g *gate) prune() {
	for _, s := range g.sources {
		for cause, n := range s.unheard {
			g.others.unheard[cause] += n
		}
	}
	clear(g.sources)
}

func (g *gate) drop(s *source, from netip.Addr, cause Cause) {
	s.unheard[cause]++
	if now := g.now(); now.Sub(s.told) >= floodEvery {
		s.told = now
		g.log.Warn("gossip dropped unread", "from", from, "cause", cause, "count", s.unheard[cause])
	}
}

// count counts what was lost behind the gate.
func (g *gate) count(cause Cause) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.rest[cause]++
}

// overflow takes the kernel's count of what the socket dropped since it was opened.
func (g *gate) overflow(total uint32) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.rest[SocketFull] += uint64(total - g.socket)
	g.socket = total
}

func (g *gate) unheard() []Unheard {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []Unheard
	add := func(from netip.Addr, counts map[Cause]uint64) {
		for cause, n := range counts {
			if n > 0 {
				out = append(out, Unheard{From: from, Cause: cause, Count: n})
			}
		}
	}
	add(netip.Addr{}, g.others.unheard)
	add(netip.Addr{}, g.rest)
	for from, s := range g.sources {
		add(from, s.unheard)
	}
	slices.SortFunc(out, func(a, b Unheard) int {
		return cmp.Or(a.From.Compare(b.From), cmp.Compare(a.Cause, b.Cause))
	})
	return out
}

// toll is what one open stream has of its source's share.
type toll struct {
	gate   *gate
	source *source
	from   netip.Addr
	held   int
	once   sync.Once
}

// read says whether so many bytes more may be held.
func (t *toll) read(n int) bool {
	t.gate.mu.Lock()
	defer t.gate.mu.Unlock()
	if t.source.held+n > t.source.maxHeld || t.gate.held+n > maxHeld {
		t.gate.drop(t.source, t.from, StreamSize)
		return false
	}
	t.source.held += n
	t.gate.held += n
	t.held += n
	return true
}

// leave gives the share back, once.
func (t *toll) leave() {
	t.once.Do(func() {
		t.gate.mu.Lock()
		defer t.gate.mu.Unlock()
		t.source.open--
		t.source.held -= t.held
		t.gate.held -= t.held
	})
}
