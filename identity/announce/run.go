package announce

import (
	"context"
	"net/netip"
	"slices"
	"time"
)

// Run sends until ctx ends.
func (a *Announcer) Run(ctx context.Context) error {
	var waiting []saying
	for {
		queue := a.queue
		if len(waiting) >= maxWaiting {
			queue = nil
		}
		var due <-chan time.Time
		if len(waiting) > 0 {
			due = time.After(time.Until(next(waiting)))
		}
		select {
		case <-ctx.Done():
			a.mu.Lock()
			defer a.mu.Unlock()
			return a.close()
		case s := <-queue:
			waiting = append(waiting, s)
		case <-due:
		}
		waiting = a.round(waiting)
	}
}

func (s saying) next() time.Time { return s.since.Add(s.times[0]) }

// next is when the first of them is due.
func next(waiting []saying) time.Time {
	return slices.MinFunc(waiting, func(s, o saying) int { return s.next().Compare(o.next()) }).next()
}

// round sends what is due, and returns what is still to come.
func (a *Announcer) round(waiting []saying) []saying {
	now := time.Now()
	var packets [][]byte
	for i, s := range waiting {
		if s.next().After(now) {
			continue
		}
		packets = append(packets, s.packet)
		for len(waiting[i].times) > 0 && !waiting[i].next().After(now) {
			waiting[i].times = waiting[i].times[1:]
		}
	}
	a.deliver(packets)
	return slices.DeleteFunc(waiting, func(s saying) bool { return len(s.times) == 0 })
}

// deliver sends packets to every node. It holds no lock while it does: who says something does not wait for it.
func (a *Announcer) deliver(packets [][]byte) {
	a.mu.Lock()
	sockets, nodes := a.sockets, a.nodes
	a.mu.Unlock()
	for _, n := range nodes {
		s, to, ok := way(sockets, n)
		if !ok {
			continue
		}
		for _, p := range packets {
			s.send(p, netip.AddrPortFrom(to, a.port))
		}
	}
}

// way is the first address of a node that this one has an address of the same family for.
func way(sockets []*socket, n Node) (*socket, netip.Addr, bool) {
	for _, to := range n.Addresses {
		for _, s := range sockets {
			if s.address.Is4() == to.Is4() {
				return s, to, true
			}
		}
	}
	return nil, netip.Addr{}, false
}

// hear takes a hint if its sender is a node, and the addresses are that node's to give.
func (a *Announcer) hear(b []byte, from netip.AddrPort) {
	a.mu.Lock()
	sender, known := a.sender[from.Addr()]
	a.mu.Unlock()
	if !known || from.Port() != a.port {
		return
	}
	h, err := parse(b)
	if err != nil || !sender.gives(h.Addresses) {
		return
	}
	h.Node, h.Until = sender.Name, time.Now().Add(Lifetime)
	a.take(h)
}

// gives says whether all of these addresses are of the node's CIDRs.
func (n Node) gives(addresses []netip.Addr) bool {
	outside := func(addr netip.Addr) bool {
		return !slices.ContainsFunc(n.CIDRs, func(c netip.Prefix) bool { return c.Contains(addr) })
	}
	return !slices.ContainsFunc(addresses, outside)
}
