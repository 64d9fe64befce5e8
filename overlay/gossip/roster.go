package gossip

import (
	"cmp"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/hashicorp/memberlist"

	"github.com/kithnet/kith/overlay"
)

// roster remembers members beyond memberlist's own memory, which drops the dead.
// memberlist calls it under its own lock, so it never calls back.
type roster struct {
	self    string
	judge   Judge
	refuse  func(Cause)
	changed chan struct{}
	seeded  chan struct{}

	mu    sync.Mutex
	known map[string]entry
	seeds map[string][]netip.AddrPort
	// at counts the known members and seeds at each address.
	at map[netip.Addr]int
}

type entry struct {
	addr  netip.AddrPort
	alive bool
}

func newRoster(self string, judge Judge, refuse func(Cause)) *roster {
	return &roster{
		self:    self,
		judge:   judge,
		refuse:  refuse,
		changed: make(chan struct{}, 1),
		seeded:  make(chan struct{}, 1),
		known:   make(map[string]entry),
		at:      make(map[netip.Addr]int),
	}
}

// maxName is the longest name that a Node may have.
const maxName = 253

var (
	errTooLong  = errors.New("longer than members say it")
	errProtocol = errors.New("of another protocol")
)

// NotifyAlive refuses a member whose record the judge refuses. What others say of
// this node itself passes: memberlist has to hear it to refute it.
func (r *roster) NotifyAlive(n *memberlist.Node) error {
	if len(n.Name) > maxName || len(n.Meta) > memberlist.MetaMaxSize {
		r.refuse(MessageSize)
		return errTooLong
	}
	if n.Name == r.self {
		return nil
	}
	if !understood(n) {
		r.refuse(Unreadable)
		return errProtocol
	}
	return r.judge.Hear(overlay.Heard{Name: n.Name, Address: addrPort(n), Record: n.Meta})
}

// understood tells whether a member is said to speak as all do. Nobody signs that,
// and memberlist exchanges nothing any more with anybody once one living member
// is said not to.
func understood(n *memberlist.Node) bool {
	const spoken = memberlist.ProtocolVersion2Compatible
	return n.PMin <= spoken && spoken <= n.PMax && n.PCur == spoken && n.DMin == 0 && n.DCur == 0
}

// NotifyConflict hears of two nodes that go by one name.
func (r *roster) NotifyConflict(_, other *memberlist.Node) { r.judge.Conflict(other.Name) }

func (r *roster) NotifyJoin(n *memberlist.Node)   { r.note(n, entry{alive: true}) }
func (r *roster) NotifyUpdate(n *memberlist.Node) { r.note(n, entry{alive: true}) }
func (r *roster) NotifyLeave(n *memberlist.Node)  { r.note(n, entry{alive: false}) }

// note completes the entry with the member's address.
func (r *roster) note(n *memberlist.Node, e entry) {
	e.addr = addrPort(n)
	r.mu.Lock()
	if old, ok := r.known[n.Name]; ok {
		r.leaves(old.addr)
	}
	r.at[e.addr.Addr()]++
	r.known[n.Name] = e
	r.mu.Unlock()
	signal(r.changed)
}

func (r *roster) members() []overlay.Member {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]overlay.Member, 0, len(r.known))
	for name, e := range r.known {
		out = append(out, overlay.Member{Name: name, Address: e.addr, Alive: e.alive})
	}
	slices.SortFunc(out, func(a, b overlay.Member) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

func (r *roster) forget(name string) {
	r.mu.Lock()
	e, ok := r.known[name]
	gone := ok && !e.alive
	if gone {
		delete(r.known, name)
		r.leaves(e.addr)
	}
	r.mu.Unlock()
	if gone {
		signal(r.changed)
	}
}

func (r *roster) setSeeds(seeds map[string][]netip.AddrPort) {
	r.mu.Lock()
	for _, addrs := range r.seeds {
		for _, old := range addrs {
			r.leaves(old)
		}
	}
	r.seeds = maps.Clone(seeds)
	for _, addrs := range r.seeds {
		for _, seed := range addrs {
			r.at[seed.Addr()]++
		}
	}
	r.mu.Unlock()
	signal(r.seeded)
}

func (r *roster) leaves(addr netip.AddrPort) {
	if r.at[addr.Addr()]--; r.at[addr.Addr()] == 0 {
		delete(r.at, addr.Addr())
	}
}

// knows tells whether a member is, was or may be at an address.
func (r *roster) knows(addr netip.Addr) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.at[addr] > 0
}

// address returns where a member was last, or may be.
func (r *roster) address(name string) (netip.AddrPort, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e, ok := r.known[name]; ok {
		return e.addr, true
	}
	if seeds := r.seeds[name]; len(seeds) > 0 {
		return seeds[0], true
	}
	return netip.AddrPort{}, false
}

// alive returns how many members live.
func (r *roster) alive() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	alive := 0
	for _, e := range r.known {
		if e.alive {
			alive++
		}
	}
	return alive
}

// lost returns the addresses of each node that no live member is, as far as no other
// lives there.
func (r *roster) lost() [][]netip.AddrPort {
	r.mu.Lock()
	defer r.mu.Unlock()
	live := make(map[netip.AddrPort]bool, len(r.known))
	at := map[string][]netip.AddrPort{}
	for name, addrs := range r.seeds {
		at[name] = slices.Clone(addrs)
	}
	for name, e := range r.known {
		if e.alive {
			live[e.addr] = true
			delete(at, name)
		} else {
			at[name] = append(at[name], e.addr)
		}
	}
	var all [][]netip.AddrPort
	for _, addrs := range at {
		if addrs = slices.DeleteFunc(addrs, func(a netip.AddrPort) bool { return live[a] }); len(addrs) > 0 {
			all = append(all, addrs)
		}
	}
	return all
}

func addrPort(n *memberlist.Node) netip.AddrPort {
	addr, _ := netip.AddrFromSlice(n.Addr)
	return netip.AddrPortFrom(addr.Unmap(), n.Port)
}

// signal wakes a consumer that has not been woken yet.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
