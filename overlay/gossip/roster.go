package gossip

import (
	"cmp"
	"errors"
	"fmt"
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
	changed chan struct{}
	seeded  chan struct{}

	mu      sync.Mutex
	known   map[string]entry
	seeds   []netip.AddrPort
	refused map[string]uint64
}

type entry struct {
	record Record
	addr   netip.AddrPort
	alive  bool
}

func newRoster(self string) *roster {
	return &roster{
		self:    self,
		changed: make(chan struct{}, 1),
		seeded:  make(chan struct{}, 1),
		known:   make(map[string]entry),
		refused: make(map[string]uint64),
	}
}

// NotifyAlive refuses a member whose record cannot be read.
func (r *roster) NotifyAlive(n *memberlist.Node) error {
	_, err := ParseRecord(n.Meta)
	if err == nil {
		return nil
	}
	r.refuse(cause(err))
	return fmt.Errorf("refuse member %q: %w", n.Name, err)
}

// NotifyConflict counts two nodes that go by one name.
func (r *roster) NotifyConflict(_, _ *memberlist.Node) { r.refuse("name-conflict") }

func (r *roster) NotifyJoin(n *memberlist.Node)   { r.note(n, entry{alive: true}) }
func (r *roster) NotifyUpdate(n *memberlist.Node) { r.note(n, entry{alive: true}) }
func (r *roster) NotifyLeave(n *memberlist.Node)  { r.note(n, entry{alive: false}) }

// note completes the entry with what the member says.
func (r *roster) note(n *memberlist.Node, e entry) {
	var err error
	if e.record, err = ParseRecord(n.Meta); err != nil {
		return
	}
	e.addr = addrPort(n)
	r.mu.Lock()
	r.known[n.Name] = e
	r.mu.Unlock()
	signal(r.changed)
}

func (r *roster) refuse(cause string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refused[cause]++
}

func cause(err error) string {
	if errors.Is(err, ErrVersion) {
		return "version"
	}
	return "malformed"
}

func (r *roster) refusals() map[string]uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.refused)
}

func (r *roster) members() []overlay.Member {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]overlay.Member, 0, len(r.known))
	for name, e := range r.known {
		out = append(out, overlay.Member{
			Name:      name,
			Keys:      e.record.Keys,
			Endpoints: slices.Clone(e.record.Endpoints),
			Alive:     e.alive,
		})
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
	}
	r.mu.Unlock()
	if gone {
		signal(r.changed)
	}
}

func (r *roster) setSeeds(seeds []netip.AddrPort) {
	r.mu.Lock()
	r.seeds = slices.Clone(seeds)
	r.mu.Unlock()
	signal(r.seeded)
}

// lost returns the known addresses at which no live member is, in order.
func (r *roster) lost() []netip.AddrPort {
	r.mu.Lock()
	defer r.mu.Unlock()
	live := make(map[netip.AddrPort]bool, len(r.known))
	var all []netip.AddrPort
	for _, e := range r.known {
		if e.alive {
			live[e.addr] = true
		} else {
			all = append(all, e.addr)
		}
	}
	all = append(all, r.seeds...)
	all = slices.DeleteFunc(all, func(a netip.AddrPort) bool { return live[a] })
	slices.SortFunc(all, netip.AddrPort.Compare)
	return slices.Compact(all)
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
