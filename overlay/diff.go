package overlay

import (
	"net/netip"
	"slices"
)

// Diff returns the steps from the mesh that is there to the mesh that is wanted.
// Closing steps come first and opening the way out in clear comes last: own CIDRs
// become unreachable and remote ones lead into a device before there are peers;
// routes outlive their peers.
func Diff(have, want Mesh) Plan {
	d := differ{have: have, want: want}
	for _, cidr := range missing(want.Unreachable, have.Unreachable) {
		d.add(AddUnreachable{CIDR: cidr})
	}
	for i := range want.Lanes {
		d.device(On{i})
	}
	for _, route := range missing(want.Routes, have.Routes) {
		d.add(SetRoute{Route: route})
	}
	for i := range want.Lanes {
		d.setPeers(On{i})
		d.removePeers(On{i})
	}
	d.removeRoutes()
	for i := range want.Lanes {
		for _, addr := range missing(have.Lanes[i].Addresses, want.Lanes[i].Addresses) {
			d.add(RemoveAddress{On: On{i}, Addr: addr})
		}
	}
	return Plan{Steps: d.steps}
}

type differ struct {
	have, want Mesh
	steps      []Step
}

func (d *differ) add(s Step) { d.steps = append(d.steps, s) }

func (d *differ) device(on On) {
	have, want := &d.have.Lanes[on.Lane], d.want.Lanes[on.Lane]
	if have.Device != want.Device {
		d.add(CreateDevice{on})
	}
	if have.Key != want.Key {
		// A peer that stayed would tell of a handshake of the old key.
		for _, p := range have.Peers {
			d.add(RemovePeer{On: on, Key: p.Key})
		}
		have.Peers = nil
		d.add(SetKey{On: on, Key: want.Key})
	}
	if have.ListenPort != want.ListenPort {
		d.add(SetPort{On: on, Port: want.ListenPort})
	}
	if have.MTU != want.MTU {
		d.add(SetMTU{On: on, MTU: want.MTU})
	}
	if !have.Up {
		d.add(SetUp{on})
	}
	for _, addr := range missing(want.Addresses, have.Addresses) {
		d.add(AddAddress{On: on, Addr: addr})
	}
}

func (d *differ) setPeers(on On) {
	have := byKey(d.have.Lanes[on.Lane].Peers)
	for _, want := range d.want.Lanes[on.Lane].Peers {
		if p, exists := have[want.Key]; exists && p.Preshared != want.Preshared {
			// A peer that stayed would tell of a handshake without it.
			d.add(RemovePeer{On: on, Key: want.Key})
			delete(have, want.Key)
		}
		if step, differs := setPeer(have, want); differs {
			step.On = on
			d.add(step)
		}
	}
}

func setPeer(all map[Key]Peer, want Peer) (SetPeer, bool) {
	have, exists := all[want.Key]
	step := SetPeer{Name: want.Name, Key: want.Key, New: !exists}
	if want.Endpoint.IsValid() && have.Endpoint != want.Endpoint {
		step.Endpoint = want.Endpoint
	}
	if have.Keepalive != want.Keepalive {
		step.Keepalive = &want.Keepalive
	}
	if step.New {
		step.Preshared = want.Preshared
	}
	step.Allow = missing(want.AllowedIPs, have.AllowedIPs)
	return step, step.New || step.Endpoint.IsValid() || step.Keepalive != nil || len(step.Allow) > 0
}

// removePeers runs after setPeers, so a CIDR that moved has its new holder.
func (d *differ) removePeers(on On) {
	have, want := d.have.Lanes[on.Lane].Peers, byKey(d.want.Lanes[on.Lane].Peers)
	if stale := staleAllowed(have, want); len(stale) > 0 {
		slices.SortFunc(stale, comparePrefix)
		d.add(DropAllowed{On: on, CIDRs: stale})
	}
	for _, p := range have {
		if _, stays := want[p.Key]; !stays {
			d.add(RemovePeer{On: on, Key: p.Key})
		}
	}
}

// staleAllowed returns what peers that stay have and nobody should. What somebody
// else should have was taken from them by setPeers.
func staleAllowed(have []Peer, want map[Key]Peer) []netip.Prefix {
	var kept, wanted []netip.Prefix
	for _, p := range have {
		if _, stays := want[p.Key]; stays {
			kept = append(kept, p.AllowedIPs...)
		}
	}
	for _, p := range want {
		wanted = append(wanted, p.AllowedIPs...)
	}
	return missing(kept, wanted)
}

// removeRoutes leaves alone what an earlier step has turned from one kind into the
// other or moved to another lane.
func (d *differ) removeRoutes() {
	wanted := slices.Concat(cidrs(d.want.Routes), d.want.Unreachable)
	replaced := cidrs(missing(d.want.Routes, d.have.Routes))
	for _, r := range missing(d.have.Routes, d.want.Routes) {
		if !slices.Contains(replaced, r.CIDR) && !slices.Contains(d.want.Unreachable, r.CIDR) {
			d.add(RemoveRoute{On: On{r.Lane}, CIDR: r.CIDR})
		}
	}
	for _, cidr := range missing(d.have.Unreachable, wanted) {
		d.add(RemoveUnreachable{CIDR: cidr})
	}
}

// missing returns the elements of all that are not in from.
func missing[T comparable](all, from []T) []T {
	if slices.Equal(all, from) {
		return nil
	}
	known := make(map[T]struct{}, len(from))
	for _, x := range from {
		known[x] = struct{}{}
	}
	var out []T
	for _, x := range all {
		if _, ok := known[x]; !ok {
			out = append(out, x)
		}
	}
	return out
}

func byKey(peers []Peer) map[Key]Peer {
	m := make(map[Key]Peer, len(peers))
	for _, p := range peers {
		m[p.Key] = p
	}
	return m
}

func cidrs(routes []Route) []netip.Prefix {
	out := make([]netip.Prefix, 0, len(routes))
	for _, r := range routes {
		out = append(out, r.CIDR)
	}
	return out
}
