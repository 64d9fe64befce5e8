package overlay

import (
	"net/netip"
	"slices"
)

// Fits returns how large a packet may be in the tunnel so that the encrypted one, on
// its way to the endpoint, is not larger than the underlay's MTU there.
func Fits(underlayMTU int, endpoint netip.AddrPort) int {
	return Local{UnderlayMTU: underlayMTU}.routeMTU(FamilyOf(endpoint.Addr()))
}

// Carries returns how large the encrypted packet is that has carried one of a size to
// the endpoint, where the device's MTU is known: the padding does not go beyond it.
func Carries(size, deviceMTU int, endpoint netip.AddrPort) int {
	padded := (size + padding - 1) / padding * padding
	return max(size, min(padded, deviceMTU)) + FamilyOf(endpoint.Addr()).overhead()
}

// Within narrows the routes to what the ways to the nodes carry, by node name. A
// node whose way is not known yet keeps the MTU its route has, if that is lower: it
// was known once. No route grows beyond what m has for it.
func (m Mesh) Within(ways map[string]int, have []Route) Mesh {
	limits := make(map[netip.Prefix]int, len(m.Routes))
	for _, r := range have {
		limits[r.CIDR] = r.MTU
	}
	for _, p := range m.Lanes[0].Peers {
		if mtu, known := ways[p.Name]; known {
			for _, cidr := range p.AllowedIPs {
				limits[cidr] = mtu
			}
		}
	}
	m.Routes = slices.Clone(m.Routes)
	for i, r := range m.Routes {
		if limit := limits[r.CIDR]; limit >= minMTU4 && limit < r.MTU {
			m.Routes[i].MTU = limit
		}
	}
	return m
}

// Remake returns the steps that make a node's peer anew on each lane, with nothing
// left of its sessions or of where it was last heard from. Without such a peer there
// are none.
func (m Mesh) Remake(node string) Plan {
	var plan Plan
	for i, lane := range m.Lanes {
		for _, p := range lane.Peers {
			if p.Name == node {
				step, _ := setPeer(nil, p)
				step.On = On{i}
				plan.Steps = append(plan.Steps, RemovePeer{On: On{i}, Key: p.Key}, step)
			}
		}
	}
	return plan
}
