package overlay

import (
	"net/netip"
	"slices"
)

// Diff returns the steps from the mesh that is there to the mesh that is wanted.
// Closing steps come first and opening the way out in clear comes last: own CIDRs
// become unreachable and remote ones lead into the device before there are peers;
// routes outlive their peers.
func Diff(have, want Mesh) Plan {
	d := differ{have: have, want: want}
	d.close()
	d.device()
	d.addAddresses()
	d.addRoutes()
	d.setPeers()
	d.removePeers()
	d.removeRoutes()
	return Plan{Device: want.Device, Steps: d.steps}
}

type differ struct {
	have, want Mesh
	steps      []Step
}

func (d *differ) add(s Step) { d.steps = append(d.steps, s) }

func (d *differ) device() {
	if d.have.Device != d.want.Device {
		d.add(CreateDevice{})
	}
	if d.have.Key != d.want.Key {
		d.add(SetKey{Key: d.want.Key})
	}
	if d.have.ListenPort != d.want.ListenPort {
		d.add(SetPort{Port: d.want.ListenPort})
	}
	if d.have.MTU != d.want.MTU {
		d.add(SetMTU{MTU: d.want.MTU})
	}
	if !d.have.Up {
		d.add(SetUp{})
	}
}

// close needs no device.
func (d *differ) close() {
	for _, cidr := range missing(d.want.Unreachable, d.have.Unreachable) {
		d.add(AddUnreachable{CIDR: cidr})
	}
}

func (d *differ) addAddresses() {
	for _, addr := range missing(d.want.Addresses, d.have.Addresses) {
		d.add(AddAddress{Addr: addr})
	}
}

func (d *differ) addRoutes() {
	for _, route := range missing(d.want.Routes, d.have.Routes) {
		d.add(SetRoute{Route: route})
	}
}

func (d *differ) setPeers() {
	have := byKey(d.have.Peers)
	for _, want := range d.want.Peers {
		if step, differs := setPeer(have, want); differs {
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
	step.Allow = missing(want.AllowedIPs, have.AllowedIPs)
	return step, step.New || step.Endpoint.IsValid() || step.Keepalive != nil || len(step.Allow) > 0
}

// removePeers runs after setPeers, so a CIDR that moved has its new holder.
func (d *differ) removePeers() {
	want := byKey(d.want.Peers)
	if stale := d.staleAllowed(want); len(stale) > 0 {
		slices.SortFunc(stale, comparePrefix)
		d.add(DropAllowed{CIDRs: stale})
	}
	for _, p := range d.have.Peers {
		if _, stays := want[p.Key]; !stays {
			d.add(RemovePeer{Key: p.Key})
		}
	}
}

// staleAllowed returns what peers that stay have and nobody should. What somebody
// else should have was taken from them by setPeers.
func (d *differ) staleAllowed(want map[Key]Peer) []netip.Prefix {
	var kept, wanted []netip.Prefix
	for _, p := range d.have.Peers {
		if _, stays := want[p.Key]; stays {
			kept = append(kept, p.AllowedIPs...)
		}
	}
	for _, p := range d.want.Peers {
		wanted = append(wanted, p.AllowedIPs...)
	}
	return missing(kept, wanted)
}

// removeRoutes leaves alone what an earlier step has turned from one kind into the other.
func (d *differ) removeRoutes() {
	wanted := slices.Concat(cidrs(d.want.Routes), d.want.Unreachable)
	for _, cidr := range missing(cidrs(d.have.Routes), wanted) {
		d.add(RemoveRoute{CIDR: cidr})
	}
	for _, cidr := range missing(d.have.Unreachable, wanted) {
		d.add(RemoveUnreachable{CIDR: cidr})
	}
	for _, addr := range missing(d.have.Addresses, d.want.Addresses) {
		d.add(RemoveAddress{Addr: addr})
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
