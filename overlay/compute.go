package overlay

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// Compute returns the mesh that this node should be part of. The nodes' CIDRs are as Grant gave them.
func Compute(local Local, nodes []Node, claims []Claim, paths map[string]Path) (Mesh, []Problem) {
	c := newComputation(local, nodes, claims)
	c.paths = paths
	for _, n := range c.nodes {
		for _, cidr := range n.PodCIDRs {
			c.grants.add(cidr, n.Name)
		}
	}
	c.addSelf()
	for i := range c.nodes {
		if c.nodes[i].Name != local.Name {
			c.addRemote(&c.nodes[i])
		}
	}
	c.mesh.Sort()
	return c.mesh, c.problems.sorted()
}

// computation holds what Compute knows half-way: who owns which CIDR and key.
type computation struct {
	local    Local
	nodes    []Node       // the order in which contested claims are granted
	own      []netip.Addr // this node's
	claims   map[string]Claim
	paths    map[string]Path
	grants   grants
	keys     map[Key]string
	outer    Family
	mesh     Mesh
	problems problems
}

func newComputation(local Local, nodes []Node, claims []Claim) *computation {
	c := &computation{
		local:  local,
		nodes:  slices.Clone(nodes),
		claims: make(map[string]Claim, len(claims)),
		keys:   make(map[Key]string, len(nodes)),
	}
	slices.SortFunc(c.nodes, func(a, b Node) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Name, b.Name))
	})
	for _, claim := range claims {
		c.claims[claim.Node] = claim
	}
	if self, ok := c.self(); ok {
		c.own = self.Underlay()
	}
	c.outer = c.underlayFamily()
	return c
}

func (c *computation) self() (Node, bool) {
	i := slices.IndexFunc(c.nodes, func(n Node) bool { return n.Name == c.local.Name })
	if i < 0 {
		return Node{}, false
	}
	return c.nodes[i], true
}

func (c *computation) underlayFamily() Family {
	if c.local.Underlay != Auto {
		return c.local.Underlay
	}
	if len(c.own) > 0 {
		return FamilyOf(c.own[0])
	}
	return IPv4
}

func (c *computation) addSelf() {
	for i := range c.mesh.Lanes {
		c.mesh.Lanes[i] = Lane{
			Device:     c.local.Devices[i],
			Key:        c.local.Keys[i],
			ListenPort: c.local.ListenPort + uint16(i),
			Up:         true,
			MTU:        c.local.deviceMTU(c.outer, IPv4),
		}
	}
	self, ok := c.self()
	if !ok {
		c.problems.add(OwnNodeMissing, c.local.Name, "this node's own Node object is not there")
		return
	}
	if c.claims[self.Name].Keys != c.local.Keys {
		c.problems.add(OwnKeyDiffers, self.Name, "this node's published claim is not its own yet")
	}
	own := self.PodCIDRs
	if len(own) == 0 {
		c.problems.add(NoPodCIDR, self.Name, "no pod CIDR yet")
	}
	c.mesh.Unreachable = slices.Clone(own)
	if need := minMTU6 + c.outer.overhead(); hasIPv6(own) && c.local.UnderlayMTU < need {
		c.problems.add(UnderlayTooSmall, self.Name, "underlay MTU %d: IPv6 pods need %d", c.local.UnderlayMTU, need)
	}
	for _, family := range []Family{IPv4, IPv6} {
		i := slices.IndexFunc(own, func(p netip.Prefix) bool { return FamilyOf(p.Addr()) == family })
		if i < 0 {
			continue
		}
		for lane := range c.mesh.Lanes {
			l := &c.mesh.Lanes[lane]
			l.Addresses = append(l.Addresses, MeshAddress(own[i]))
			l.MTU = max(l.MTU, c.local.deviceMTU(c.outer, family))
		}
	}
}

func hasIPv6(cidrs []netip.Prefix) bool {
	return slices.ContainsFunc(cidrs, func(p netip.Prefix) bool { return p.Addr().Is6() })
}

// addRemote routes another node's CIDRs into the device also while that node has
// no usable key: without a peer the device refuses the packets, and nothing
// takes the way out in clear.
func (c *computation) addRemote(n *Node) {
	for _, cidr := range n.PodCIDRs {
		c.addRoute(cidr, c.paths[n.Name].Lane)
	}
	addresses := c.addresses(n)
	keys, ok := c.peerKeys(n)
	if !ok {
		return
	}
	endpoint, ok := c.endpoint(n, addresses)
	if !ok {
		c.problems.add(NoEndpoint, n.Name, "no address to reach it at: it must speak first")
	}
	for lane, key := range keys {
		if key.IsZero() {
			continue
		}
		c.mesh.Lanes[lane].Peers = append(c.mesh.Lanes[lane].Peers, Peer{
			Name:       n.Name,
			Key:        key,
			Endpoint:   onLane(endpoint, lane),
			AllowedIPs: slices.Clone(n.PodCIDRs),
			Keepalive:  c.keepalive(n.Name, lane),
			Preshared:  c.paths[n.Name].Preshared[lane],
		})
	}
}

// keepalive makes one end alone shake hands over an idle lane, the one that asks for preshared keys and so has them last.
// Where both do at once, as both do for new keys, wireguard-go may leave one with a session that the other does not know.
func (c *computation) keepalive(node string, lane int) time.Duration {
	if lane != c.paths[node].Lane && c.local.Name > node {
		return 0
	}
	return c.local.Keepalive
}

func (c *computation) addRoute(cidr netip.Prefix, lane int) {
	family := FamilyOf(cidr.Addr())
	route := Route{CIDR: cidr, Lane: lane, MTU: c.local.routeMTU(c.outer)}
	for _, addr := range c.mesh.Lanes[lane].Addresses {
		if FamilyOf(addr) == family {
			route.Src = addr
		}
	}
	for i := range c.mesh.Lanes {
		c.mesh.Lanes[i].MTU = max(c.mesh.Lanes[i].MTU, c.local.deviceMTU(c.outer, family))
	}
	c.mesh.Routes = append(c.mesh.Routes, route)
}

// peerKeys are those of the node's claim. A lane that it has no key for has no peer.
func (c *computation) peerKeys(n *Node) ([Lanes]Key, bool) {
	claim, ok := c.claims[n.Name]
	if !ok {
		c.problems.add(ClaimMissing, n.Name, "no claim that verifies yet: it has no place in the mesh")
		return [Lanes]Key{}, false
	}
	for _, key := range claim.Keys {
		if slices.Contains(c.local.Keys[:], key) {
			c.problems.add(KeyTaken, n.Name, "key %s refused: it is this node's own", key)
			return [Lanes]Key{}, false
		}
		if holder, taken := c.keys[key]; taken {
			c.problems.add(KeyTaken, n.Name, "key %s refused: node %s holds it", key, holder)
			return [Lanes]Key{}, false
		}
	}
	for _, key := range claim.Keys {
		if !key.IsZero() {
			c.keys[key] = n.Name
		}
	}
	return claim.Keys, true
}
