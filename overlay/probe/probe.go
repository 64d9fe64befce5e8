// Package probe is the edge between the ways of package path and the tunnel: it sends probes from this node's mesh
// addresses, answers those of others, and tells what came back.
//
// Input: this node's mesh addresses, and the nodes to probe with theirs. Output: what is known of each way, and a signal
// when a size has changed.
//
// Invariants:
//   - It listens on mesh addresses only, and answers nodes that it knows only, with a packet no larger than theirs.
//   - A probe is sent at its size or not at all. One that is to stay whole bears ECT(1), which WireGuard copies to its own packet;
//     rules of this node forbid cutting those.
//
// Out of scope: when to probe whom, and what an answer or its absence means.
package probe

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/kithnet/kith/overlay/path"
)

// Target is a node to probe, and its mesh address.
type Target struct {
	path.Target
	Address netip.Addr
}

// Prober probes the ways to other nodes.
type Prober struct {
	port    uint16
	changed chan struct{}
	wake    chan struct{}

	mu      sync.Mutex
	table   *path.Table
	own     []netip.Addr
	sockets []*socket
	address map[string]netip.Addr
	name    map[netip.Addr]string
	sizes   map[string]int
	stuck   []string
}

// New prepares to probe on a port, the same on all nodes.
func New(port uint16, config path.Config) *Prober {
	return &Prober{port: port, table: path.New(config), changed: make(chan struct{}, 1), wake: make(chan struct{}, 1)}
}

// Follow says what this node's mesh addresses are, and whom to probe. The addresses need not be there yet.
func (p *Prober) Follow(own []netip.Addr, targets []Target) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.address, p.name = map[string]netip.Addr{}, map[netip.Addr]string{}
	follow := make([]path.Target, 0, len(targets))
	for _, t := range targets {
		p.address[t.Name], p.name[t.Address] = t.Address, t.Name
		follow = append(follow, t.Target)
	}
	p.table.Follow(time.Now(), follow)
	signal(p.wake)
	return p.listen(own)
}

// listen replaces the sockets if they are others.
func (p *Prober) listen(own []netip.Addr) error {
	if slices.Equal(own, p.own) {
		return nil
	}
	err := p.close()
	for _, addr := range own {
		s, failed := listen(netip.AddrPortFrom(addr, p.port))
		if failed != nil {
			return errors.Join(err, failed)
		}
		p.sockets = append(p.sockets, s)
		go s.receive(p.take)
	}
	p.own = slices.Clone(own)
	return err
}

func (p *Prober) close() error {
	var failed error
	for _, s := range p.sockets {
		if err := s.conn.Close(); err != nil {
			failed = errors.Join(failed, fmt.Errorf("close probe socket: %w", err))
		}
	}
	p.sockets, p.own = nil, nil
	return failed
}

// Run probes until ctx ends.
func (p *Prober) Run(ctx context.Context) error {
	for {
		timer := time.NewTimer(time.Until(p.round()))
		select {
		case <-ctx.Done():
			timer.Stop()
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.close()
		case <-p.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// round sends what is due, and returns when to look again.
func (p *Prober) round() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	probes, next := p.table.Due(time.Now())
	for _, probe := range probes {
		to := p.address[probe.Node]
		for i, addr := range p.own {
			if addr.Is4() == to.Is4() {
				p.sockets[i].ask(probe, netip.AddrPortFrom(to, p.port))
				break
			}
		}
	}
	p.tell()
	return next
}

// tell signals when there is something to do about the mesh.
func (p *Prober) tell() {
	stuck := p.table.Remake(time.Now())
	p.stuck = append(p.stuck, stuck...)
	sizes := p.mtus()
	if len(stuck) > 0 || !maps.Equal(sizes, p.sizes) {
		p.sizes = sizes
		signal(p.changed)
	}
}

func (p *Prober) take(s *socket, got packet, from netip.AddrPort) {
	p.mu.Lock()
	defer p.mu.Unlock()
	name, known := p.name[from.Addr()]
	if !known || from.Port() != p.port {
		return
	}
	if got.kind == question {
		s.send(packet{answer, got.number}, 0, from)
		return
	}
	p.table.Answer(time.Now(), name, got.number)
	signal(p.wake)
}

// Changed receives after MTUs changed, or when a peer should be made anew. It is for one consumer.
func (p *Prober) Changed() <-chan struct{} { return p.changed }

// MTUs returns the largest packet for each node to which the way is known.
func (p *Prober) MTUs() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mtus()
}

func (p *Prober) mtus() map[string]int {
	out := map[string]int{}
	for _, way := range p.table.Paths() {
		if way.MTU > 0 {
			out[way.Node] = way.MTU
		}
	}
	return out
}

// Paths returns what is known of each way, by name.
func (p *Prober) Paths() []path.Path {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.table.Paths()
}

// Remake returns the nodes whose peers should be made anew now. It names each once in a silence.
func (p *Prober) Remake() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	stuck := p.stuck
	p.stuck = nil
	return stuck
}

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
