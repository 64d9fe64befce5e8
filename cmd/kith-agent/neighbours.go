package main

import (
	"context"
	"net/netip"
	"time"

	"github.com/kithnet/kith/overlay"
	"github.com/kithnet/kith/overlay/wireguard"
)

// keepEvery is how often the node's neighbours are looked at. What is kept stays in between.
const keepEvery = 30 * time.Second

// keepNeighbours sees to it that pods which send to many addresses of the node's own network take no place from the neighbours by
// which the node reaches its gateways, other nodes, name servers and the API server.
func (a *agent) keepNeighbours(ctx context.Context) error {
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	var neighbours wireguard.Neighbours
	told := ""
	for {
		err := neighbours.Keep(reachedBy(a.bounds.Get(), a.known.List()))
		if err == nil {
			told = ""
		} else if err.Error() != told {
			told = err.Error()
			a.log.Warn("pods can take places of other nodes and gateways in the table of neighbours", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// reachedBy are the addresses that a node must reach outside of the tunnel.
func reachedBy(b overlay.Bounds, nodes []overlay.Node) []netip.Addr {
	var out []netip.Addr
	for _, r := range b.Reserved {
		if r.Range.IsSingleIP() {
			out = append(out, r.Range.Addr())
		}
	}
	for _, n := range nodes {
		if n.Name != b.Self {
			out = append(out, n.Underlay()...)
		}
	}
	return out
}
