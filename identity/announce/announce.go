// Package announce is the edge between hints and the tunnel: it tells all other nodes what addresses this node gave to a
// pod, before the API does, and hears what they say.
//
// Input: this node's mesh addresses, and the other nodes with theirs and their pod CIDRs. Output: hints, each under the
// name of the node that sent it.
//
// Invariants:
//   - A hint is taken from another node's mesh address, out of a device of the mesh, which vouches for the sender, and only
//     for addresses of that node's pod CIDRs.
//   - Who says something does not wait for the network; what is waiting has bounds.
//
// Out of scope: what a hint means, and whether its pod is on that node. Nothing is acknowledged: a hint is sent several
// times, and who hears none of them learns the address by the API.
package announce

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/kithnet/kith/identity"
)

// Lifetime is how long a hint counts at most.
const Lifetime = time.Minute

// maxWaiting bounds what is on its way out.
const maxWaiting = 1024

// times is when a hint is sent, from when it was said.
func times() []time.Duration {
	return []time.Duration{0, 10 * time.Millisecond, 50 * time.Millisecond, 200 * time.Millisecond, time.Second}
}

// Node is another node: its mesh addresses, and the CIDRs out of which its pods' addresses are.
type Node struct {
	Name      string
	Addresses []netip.Addr
	CIDRs     []netip.Prefix
}

// Announcer sends and hears hints.
type Announcer struct {
	port    uint16
	devices []string
	take    func(identity.Hint)
	queue   chan saying
	started time.Time

	mu      sync.Mutex
	own     []netip.Addr
	sockets []*socket
	nodes   []Node
	sender  map[netip.Addr]Node
	inside  []int // the devices that are heard, by index
	said    map[netip.Addr]time.Time
	last    uint64
}

// saying is a hint on its way out.
type saying struct {
	packet []byte
	since  time.Time
	times  []time.Duration // still to come
}

// New prepares to speak and to hear on a port, the same on all nodes. Only what comes out of these devices is heard. What
// is heard is given to take, from several goroutines.
func New(port uint16, devices []string, take func(identity.Hint)) *Announcer {
	return &Announcer{
		port: port, devices: devices, take: take, queue: make(chan saying, maxWaiting), started: time.Now(),
		sender: map[netip.Addr]Node{}, said: map[netip.Addr]time.Time{},
	}
}

// Follow says what this node's mesh addresses are, and who the others are. The addresses need not be there yet.
func (a *Announcer) Follow(own []netip.Addr, nodes []Node) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.nodes, a.sender = nodes, map[netip.Addr]Node{}
	for _, n := range nodes {
		for _, addr := range n.Addresses {
			a.sender[addr] = n
		}
	}
	var inside []int
	for _, name := range a.devices {
		if device, err := net.InterfaceByName(name); err == nil {
			inside = append(inside, device.Index)
		}
	}
	return a.listen(own, inside)
}

// listen replaces the sockets if the addresses or the devices are others.
func (a *Announcer) listen(own []netip.Addr, inside []int) error {
	if slices.Equal(own, a.own) && slices.Equal(inside, a.inside) {
		return nil
	}
	err := a.close()
	for _, addr := range own {
		s, failed := listen(netip.AddrPortFrom(addr, a.port))
		if failed != nil {
			return errors.Join(err, failed, a.close())
		}
		a.sockets = append(a.sockets, s)
		if failed := s.only(inside); failed != nil {
			return errors.Join(err, failed, a.close())
		}
		go s.receive(a.hear)
	}
	a.own, a.inside = slices.Clone(own), inside
	return err
}

func (a *Announcer) close() error {
	var failed error
	for _, s := range a.sockets {
		failed = errors.Join(failed, s.conn.Close())
	}
	a.sockets, a.own = nil, nil
	return failed
}

// Say tells the other nodes that a pod has these addresses.
func (a *Announcer) Say(p identity.Pin, addresses []netip.Addr) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	for addr, at := range a.said {
		if now.Sub(at) > Lifetime {
			delete(a.said, addr)
		}
	}
	for _, addr := range addresses {
		a.said[addr] = now
	}
	return a.enqueue(p, addresses)
}

// Unsay tells them that nobody has these addresses any more, if they may have heard who had.
func (a *Announcer) Unsay(addresses []netip.Addr) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	recent := func(addr netip.Addr) bool { return time.Since(a.said[addr]) < Lifetime }
	// What was said before this agent started is not known.
	if time.Since(a.started) > Lifetime && !slices.ContainsFunc(addresses, recent) {
		return nil
	}
	return a.enqueue(identity.Pin{}, addresses)
}

// enqueue gives a hint a sequence that grows over restarts, too.
func (a *Announcer) enqueue(p identity.Pin, addresses []netip.Addr) error {
	now := time.Now()
	a.last = max(a.last+1, uint64(now.UnixNano()))
	packet, err := encode(identity.Hint{Pin: p, Addresses: addresses, Sequence: a.last})
	if err != nil {
		return err
	}
	select {
	case a.queue <- saying{packet, now, times()}:
		return nil
	default:
		return errors.New("too many wait")
	}
}
