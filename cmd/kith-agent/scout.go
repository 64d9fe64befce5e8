package main

import (
	"cmp"
	"context"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/kithnet/kith/overlay"
	"github.com/kithnet/kith/overlay/path"
	"github.com/kithnet/kith/overlay/probe"
	"github.com/kithnet/kith/overlay/wireguard"
	"github.com/kithnet/kith/policy/nft"
	"github.com/kithnet/kith/policy/ruleset"
)

// lookAround is how often the prober hears of the peers.
const lookAround = 2 * time.Second

// scout tells the prober which nodes there are, and what is known of them without probes.
func (a *agent) scout(ctx context.Context) error {
	tick := time.NewTicker(lookAround)
	defer tick.Stop()
	told := ""
	seen := evidence{before: a.enforcer.Proved(), proved: a.enforcer.Proved(), began: time.Now()}
	for {
		if err := a.lookAround(ctx, &seen); err == nil {
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

// lookAround also tells the rules what is proved to arrive, if that is something else than before.
func (a *agent) lookAround(ctx context.Context, seen *evidence) error {
	mesh := a.mesher.State().Mesh
	peers, err := a.device.Peers(ctx)
	if err != nil {
		return err
	}
	doubted, err := seen.doubts(nft.Dropped)
	if err != nil {
		a.log.Debug("what is said against proofs is not known: their probes take their time", "error", err)
	}
	all := targets(mesh, peers, a.gossip.Members(), a.device.Carrier(a.mesher.local.UnderlayMTU))
	err = a.prober.Follow(mesh.Lanes[0].Addresses, doubt(all, peers, mesh, doubted))
	now := time.Now()
	if now := seen.still(seen.proofs(mesh, peers, a.prober.Paths(), now), now); !slices.Equal(now, seen.proved) {
		a.enforcer.Update(func(c *ruleset.Compiler) { c.SetProved(now) })
		seen.proved = now
	}
	return err
}

// evidence is what is proved, and how much was said against it that the rules dropped.
type evidence struct {
	proved  []ruleset.Proof
	dropped map[string]uint64    // by chain
	since   map[string]time.Time // when each node was first seen
	turn    int                  // whose turn it is to be doubted
	before  []ruleset.Proof      // what was proved before this agent began
	began   time.Time
}

// still adds what was proved before this agent, as long as its own probes have had no time: a restart changes nothing.
func (e *evidence) still(now []ruleset.Proof, at time.Time) []ruleset.Proof {
	if at.Sub(e.began) >= trial {
		return now
	}
	out := slices.Clone(now)
	for _, p := range e.before {
		i := slices.IndexFunc(out, func(known ruleset.Proof) bool { return known.Address == p.Address })
		switch {
		case i < 0:
			out = append(out, p)
		case p.Size < out[i].Size:
			out[i] = p
		}
	}
	slices.SortFunc(out, byAddress)
	return out
}

func byAddress(a, b ruleset.Proof) int {
	return cmp.Or(a.Address.Compare(b.Address), cmp.Compare(a.Size, b.Size))
}

// mostDoubted bounds how many ways one look has probed for what is said: who forges one error could have all of them probed.
const mostDoubted = 64

// doubts are the addresses against whose proofs somebody may have spoken since the last time: all that share a chain do.
func (e *evidence) doubts(count func(chains []string, opts ...nft.Option) (map[string]uint64, error)) (map[netip.Addr]bool, error) {
	var chains []string
	for _, p := range e.proved {
		if !slices.Contains(chains, p.Chain()) {
			chains = append(chains, p.Chain())
		}
	}
	before := e.dropped
	now, err := count(chains)
	if err != nil {
		return nil, err
	}
	e.dropped = now
	out := map[netip.Addr]bool{}
	e.turn %= max(len(e.proved), 1)
	for _, p := range slices.Concat(e.proved[e.turn:], e.proved[:e.turn]) {
		if last, known := before[p.Chain()]; known && now[p.Chain()] > last {
			out[p.Address] = true
		}
		if len(out) == mostDoubted {
			break
		}
	}
	e.turn += len(out)
	return out, nil
}

// doubt marks the targets whose peers are at the addresses.
func doubt(all []probe.Target, peers []wireguard.PeerStatus, mesh overlay.Mesh, addresses map[netip.Addr]bool) []probe.Target {
	doubted := map[string]bool{}
	names := namesOf(mesh)
	for _, p := range peers {
		if addresses[p.Endpoint.Addr().Unmap()] {
			doubted[names[p.Key]] = true
		}
	}
	for i := range all {
		all[i].Doubted = doubted[all[i].Name]
	}
	return all
}

// namesOf are the nodes' names by their keys on each lane.
func namesOf(mesh overlay.Mesh) map[overlay.Key]string {
	names := map[overlay.Key]string{}
	for _, lane := range mesh.Lanes {
		for _, p := range lane.Peers {
			names[p.Key] = p.Name
		}
	}
	return names
}

// carrier knows the largest packet that this node lets out to an endpoint, and the largest that is said to arrive there.
type carrier func(endpoint netip.AddrPort) (limit, said int, err error)

const (
	// fresh is how long a proof holds. The prober checks a known size more often, so that a few lost probes end none.
	fresh = 30 * time.Second
	// patient is how long it holds while nothing at all comes back, as from a node that restarts.
	patient = 10 * time.Minute
	// trial is how long the whole way to a node that was never heard is taken for proved, so that probes decide first.
	trial = 20 * time.Second
)

// holds returns what is proved of a way, in the tunnel, where whole is the most that there is room for.
func holds(p path.Path, whole int, since, now time.Time) int {
	switch {
	case p.MTU == 0 && now.Sub(since) < trial:
		return whole
	case now.Sub(p.ProvedAt) < fresh:
		return p.Proved
	case !p.Silent.IsZero() && p.Silent.Sub(p.ProvedAt) < fresh && now.Sub(p.Silent) < patient:
		return p.Proved
	}
	return 0
}

// meet notes who is seen for the first time, and forgets who is gone.
func (e *evidence) meet(paths []path.Path, now time.Time) {
	since := make(map[string]time.Time, len(paths))
	for _, p := range paths {
		since[p.Node] = now
		if first, known := e.since[p.Node]; known {
			since[p.Node] = first
		}
	}
	e.since = since
}

// proofs are the largest packets that have just arrived whole at the addresses where peers are. ICMP errors about such
// packets are nobody's word against what was seen. A peer that is at two addresses, one for each lane, or at another than its
// node's, proves nothing: it may say that it is where somebody else is.
func (e *evidence) proofs(mesh overlay.Mesh, peers []wireguard.PeerStatus, paths []path.Path, now time.Time) []ruleset.Proof {
	e.meet(paths, now)
	at := map[overlay.Key]netip.AddrPort{}
	for _, p := range peers {
		at[p.Key] = p.Endpoint
	}
	proved := map[string]int{}
	whole := mesh.Lanes[0].MTU
	for _, p := range paths {
		proved[p.Node] = holds(p, whole, e.since[p.Node], now)
	}
	endpoints := map[string]netip.AddrPort{}
	for _, lane := range mesh.Lanes {
		for _, p := range lane.Peers {
			endpoint := at[p.Key]
			switch other, twice := endpoints[p.Name]; {
			case !endpoint.IsValid():
			case twice && other.Addr() != endpoint.Addr(), endpoint.Addr().Unmap() != p.Endpoint.Addr().Unmap():
				delete(proved, p.Name)
			default:
				endpoints[p.Name] = endpoint
			}
		}
	}
	var out []ruleset.Proof
	for name, size := range proved {
		if endpoint, known := endpoints[name]; known && size > 0 {
			size = overlay.Carries(size, whole, endpoint)
			out = append(out, ruleset.Proof{Address: endpoint.Addr().Unmap(), Size: uint16(min(size, math.MaxUint16))})
		}
	}
	slices.SortFunc(out, byAddress)
	return out
}

// targets are the peers that this node can send to, by the first mesh address that both have the family of. A node has a
// peer on each lane; what this node sends goes by the route's.
func targets(mesh overlay.Mesh, peers []wireguard.PeerStatus, members []overlay.Member, carries carrier) []probe.Target {
	names := namesOf(mesh)
	received := map[string]int64{}
	endpoints := map[string]netip.AddrPort{}
	for _, p := range peers {
		received[names[p.Key]] += p.ReceivedBytes
		if p.Endpoint.IsValid() {
			endpoints[names[p.Key]] = p.Endpoint
		}
	}
	alive := map[string]bool{}
	for _, m := range members {
		alive[m.Name] = m.Alive
	}
	var out []probe.Target
	for _, p := range mesh.Lanes[0].Peers {
		if route, ok := reachable(mesh.Routes, p.AllowedIPs); ok {
			limit, hint := sizes(route.MTU, endpoints[p.Name], carries)
			out = append(out, probe.Target{Address: overlay.MeshAddress(route.CIDR), Target: path.Target{
				Name: p.Name, Limit: limit, Hint: hint, Received: received[p.Name], Alive: alive[p.Name],
			}})
		}
	}
	return out
}

// reachable is the route to the first of a peer's pod CIDRs that this node has an address for.
func reachable(routes []overlay.Route, cidrs []netip.Prefix) (overlay.Route, bool) {
	for _, cidr := range cidrs {
		for _, r := range routes {
			if r.CIDR == cidr && r.Src.IsValid() {
				return r, true
			}
		}
	}
	return overlay.Route{}, false
}

// sizes are the largest packet that this node lets into the tunnel, and the largest that is said to arrive. The second is
// a reason to probe; zero: nobody says.
func sizes(mtu int, endpoint netip.AddrPort, carries carrier) (limit, hint int) {
	if !endpoint.IsValid() {
		return mtu, 0
	}
	known, said, err := carries(endpoint)
	if err != nil {
		return mtu, 0
	}
	return min(mtu, overlay.Fits(known, endpoint)), overlay.Fits(said, endpoint)
}
