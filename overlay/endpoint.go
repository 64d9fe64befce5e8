package overlay

import (
	"fmt"
	"net/netip"
	"slices"
)

// The highest port that leaves one for each lane.
const maxPort = 1<<16 - Lanes

// addresses are those of the node's that WireGuard's packets may be sent to. Grant reports the others.
func (c *computation) addresses(n *Node) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(n.Underlay()), func(addr netip.Addr) bool { return c.unfit(addr) != "" })
}

// unfit says why WireGuard's packets must not be sent to an address; nothing: they may. The routes of pod CIDRs lead
// into the tunnel, and what is encrypted would be encrypted again.
func (c *computation) unfit(addr netip.Addr) string {
	if holder, held := c.grants.holder(netip.PrefixFrom(addr, addr.BitLen())); held {
		return fmt.Sprintf("it is in pod CIDR %s of node %s", holder.cidr, holder.node)
	}
	if !addr.IsGlobalUnicast() && !addr.IsLinkLocalUnicast() {
		return "no other node can have it"
	}
	return ""
}

// endpoint prefers the claim, which tells of a move first. Liveness plays no part:
// a member that is called dead may be alive behind a lossy path.
func (c *computation) endpoint(n *Node, addresses []netip.Addr) (netip.AddrPort, bool) {
	claimed := c.claims[n.Name].Endpoints
	candidates := c.fit(n, claimed)
	if len(claimed) == 0 {
		for _, addr := range addresses {
			candidates = append(candidates, netip.AddrPortFrom(addr, c.local.ListenPort))
		}
	}
	if len(candidates) == 0 {
		return netip.AddrPort{}, false
	}
	return c.ofFamily(candidates), true
}

// fit leaves out the endpoints of a claim that nothing may be sent to.
func (c *computation) fit(n *Node, claimed []netip.AddrPort) []netip.AddrPort {
	var out []netip.AddrPort
	for _, ep := range claimed {
		ep = netip.AddrPortFrom(ep.Addr().Unmap(), ep.Port())
		why := c.unfit(ep.Addr())
		if ep.Port() == 0 || ep.Port() > maxPort {
			why = "there are no ports for all lanes"
		}
		if why != "" {
			c.problems.add(EndpointRefused, n.Name, "endpoint %s refused: %s", ep, why)
			continue
		}
		out = append(out, ep)
	}
	return out
}

// ofFamily returns the first endpoint of the underlay's family, or else the first.
func (c *computation) ofFamily(endpoints []netip.AddrPort) netip.AddrPort {
	for _, ep := range endpoints {
		if FamilyOf(ep.Addr()) == c.outer {
			return ep
		}
	}
	return endpoints[0]
}

// onLane is the endpoint of a lane, given that of lane 0.
func onLane(endpoint netip.AddrPort, lane int) netip.AddrPort {
	if !endpoint.IsValid() {
		return endpoint
	}
	return netip.AddrPortFrom(endpoint.Addr(), endpoint.Port()+uint16(lane))
}
