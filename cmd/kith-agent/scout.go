package main

import (
	"context"
	"net/netip"
	"time"

	"github.com/kithnet/kith/overlay"
	"github.com/kithnet/kith/overlay/path"
	"github.com/kithnet/kith/overlay/probe"
	"github.com/kithnet/kith/overlay/wireguard"
)

// lookAround is how often the prober hears of the peers.
const lookAround = 2 * time.Second

// scout tells the prober which nodes there are, and what is known of them without probes.
func (a *agent) scout(ctx context.Context) error {
	tick := time.NewTicker(lookAround)
	defer tick.Stop()
	told := ""
	for {
		if err := a.lookAround(ctx); err == nil {
			told = ""
		} else if ctx.Err() == nil && err.Error() != told {
			told = err.Error()
			a.log.Warn("ways to other nodes cannot be probed", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (a *agent) lookAround(ctx context.Context) error {
	mesh := a.mesher.State().Mesh
	peers, err := a.device.Peers(ctx)
	if err != nil {
		return err
	}
	return a.prober.Follow(mesh.Addresses, targets(mesh, peers, a.gossip.Members()))
}

// targets are the peers that this node can send to, by the first mesh address that both have the family of.
func targets(mesh overlay.Mesh, peers []wireguard.PeerStatus, members []overlay.Member) []probe.Target {
	status := map[overlay.Key]wireguard.PeerStatus{}
	for _, p := range peers {
		status[p.Key] = p
	}
	alive := map[string]bool{}
	for _, m := range members {
		alive[m.Name] = m.Alive
	}
	routes := map[netip.Prefix]overlay.Route{}
	for _, r := range mesh.Routes {
		routes[r.CIDR] = r
	}
	var out []probe.Target
	for _, p := range mesh.Peers {
		for _, cidr := range p.AllowedIPs {
			route := routes[cidr]
			if !route.Src.IsValid() {
				continue
			}
			out = append(out, probe.Target{Address: overlay.MeshAddress(cidr), Target: path.Target{
				Name: p.Name, Limit: limit(route.MTU, status[p.Key].Endpoint), Received: status[p.Key].ReceivedBytes, Alive: alive[p.Name],
			}})
			break
		}
	}
	return out
}

// limit is the route's MTU, or less where the kernel knows of less on the way to the endpoint.
func limit(mtu int, endpoint netip.AddrPort) int {
	if !endpoint.IsValid() {
		return mtu
	}
	known, err := wireguard.PathMTU(endpoint)
	if err != nil {
		return mtu
	}
	return min(mtu, overlay.Fits(known, endpoint))
}
