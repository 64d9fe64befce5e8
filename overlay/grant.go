package overlay

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// Bounds is what limits every grant, beside what the nodes themselves hold.
type Bounds struct {
	Self     string         // this node's name: its own addresses keep out every CIDR
	Within   []netip.Prefix // the pods' ranges: each pod CIDR lies inside one; empty: not known
	Services []netip.Prefix // the Services' ranges, as far as they are known
	Reserved []Reserved     // what this node must go on reaching outside of the tunnel
}

// Reserved is a range that no pod CIDR may share an address with.
type Reserved struct {
	Range netip.Prefix
	What  string // for people, as in "the gateway"
}

// Grants is what nodes may have of what their Node objects ask for.
type Grants struct {
	Nodes    []Node // with PodCIDRs and Addresses as granted, the oldest first
	Problems []Problem
}

// The shortest prefix of a family that a pod CIDR of one node may have. A node of the largest size that Kubernetes
// supports needs /24 and /64; what is shorter than this takes other people's networks.
const (
	shortest4 = 8
	shortest6 = 32
)

// What a person does about a refusal.
const (
	fixNode  = "delete the Node, so that it registers again and gets a free one"
	fixRange = "choose a pod range outside of it (kubeadm: podSubnet) and let the node register again"
)

// Grant decides whose each pod CIDR and each node address is. Everything that routes, drops, masquerades, judges or gives
// out addresses by a node's CIDRs takes them from here: what a Node object says is a claim, and a kubelet may write it.
//
// A CIDR that is outside of the bounds, or covers an address of this node, of its own node, or of an older one, is
// refused. Of two that overlap, the one that was granted before holds, then that of the node created first, then that of
// the smaller name. before is what was granted last, empty at the very first time: a node that was granted a CIDR does not
// lose it because another says later that it has an address or a CIDR there.
func Grant(b Bounds, nodes, before []Node) Grants {
	g := newGranting(b, nodes, before)
	g.each(func(i int, cidr netip.Prefix, held bool) {
		if held {
			g.grant(i, cidr, i)
		}
	})
	g.each(func(i int, cidr netip.Prefix, held bool) {
		if !held {
			g.grant(i, cidr, 0)
		}
	})
	for i := range g.nodes {
		g.nodes[i].Addresses = g.addresses(i)
	}
	return Grants{Nodes: g.nodes, Problems: g.problems.sorted()}
}

// granting holds what Grant knows half-way.
type granting struct {
	bounds   Bounds
	nodes    []Node // the oldest first
	held     map[claimedCIDR]bool
	known    []nodeAddress // of all nodes, by address, then age
	granted  grants
	problems problems
}

// nodeAddress is an underlay address and whose it is.
type nodeAddress struct {
	addr netip.Addr
	node int // in granting.nodes
}

// claimedCIDR is a CIDR of one Node object.
type claimedCIDR struct {
	name, uid string
	cidr      netip.Prefix
}

// each visits every CIDR that is asked for, the oldest node's first, and says whether its node has held it.
func (g *granting) each(visit func(node int, cidr netip.Prefix, held bool)) {
	for i := range g.nodes {
		n := &g.nodes[i]
		for _, cidr := range n.Requested {
			cidr = cidr.Masked()
			visit(i, cidr, g.held[claimedCIDR{n.Name, n.UID, cidr}])
		}
	}
}

func newGranting(b Bounds, nodes, before []Node) *granting {
	g := &granting{bounds: b, nodes: slices.Clone(nodes), held: map[claimedCIDR]bool{}}
	slices.SortFunc(g.nodes, func(a, b Node) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Name, b.Name))
	})
	for _, n := range before {
		for _, cidr := range n.PodCIDRs {
			g.held[claimedCIDR{n.Name, n.UID, cidr}] = true
		}
	}
	for i := range g.nodes {
		g.nodes[i].PodCIDRs = nil
		for _, addr := range g.nodes[i].Underlay() {
			g.known = append(g.known, nodeAddress{addr, i})
		}
	}
	slices.SortFunc(g.known, func(a, b nodeAddress) int { return cmp.Or(a.addr.Compare(b.addr), cmp.Compare(a.node, b.node)) })
	return g
}

// grant gives the node at i a CIDR unless that takes something from somebody, such as an address from this node or from one
// of those from elder to i.
func (g *granting) grant(i int, cidr netip.Prefix, elder int) {
	n := &g.nodes[i]
	refuse := func(kind ProblemKind, why, fix string) {
		g.problems.add(kind, n.Name, "pod CIDR %s refused: %s; %s", cidr, why, fix)
	}
	if why, fix := g.bounds.refusal(cidr); why != "" {
		refuse(CIDRRefused, why, fix)
		return
	}
	if holder, taken := g.granted.holder(cidr); taken {
		refuse(CIDRTaken, fmt.Sprintf("node %s holds %s", holder.node, holder.cidr), fixNode)
		return
	}
	for _, known := range g.inside(cidr) {
		if owner := &g.nodes[known.node]; elder <= known.node && known.node <= i || owner.Name == g.bounds.Self {
			refuse(CIDRCoversNodes, fmt.Sprintf("it covers address %s of node %s", known.addr, owner.Name), fixRange)
			return
		}
	}
	g.granted.add(cidr, n.Name)
	n.PodCIDRs = append(n.PodCIDRs, cidr)
}

// inside is the known addresses that a CIDR contains.
func (g *granting) inside(cidr netip.Prefix) []nodeAddress {
	first, _ := slices.BinarySearchFunc(g.known, cidr.Addr(), func(have nodeAddress, want netip.Addr) int {
		return have.addr.Compare(want)
	})
	last := first
	for last < len(g.known) && cidr.Contains(g.known[last].addr) {
		last++
	}
	return g.known[first:last]
}

// Fits says whether a CIDR could be granted as far as the bounds go, and covers no address of these nodes.
func (b Bounds) Fits(cidr netip.Prefix, nodes []Node) bool {
	why, _ := b.refusal(cidr)
	return why == "" && !slices.ContainsFunc(nodes, func(n Node) bool { return slices.ContainsFunc(n.Underlay(), cidr.Contains) })
}

// refusal says why no node may have a CIDR, and what to do; nothing: one may.
func (b Bounds) refusal(cidr netip.Prefix) (why, fix string) {
	for _, r := range special() {
		if cidr.Overlaps(r.Range) {
			return fmt.Sprintf("%s are %s", r.Range, r.What), fixNode
		}
	}
	shortest := shortest4
	if cidr.Addr().Is6() {
		shortest = shortest6
	}
	if cidr.Bits() < shortest {
		return fmt.Sprintf("it is larger than a /%d", shortest), fixNode
	}
	inside := func(p netip.Prefix) bool { return p.Bits() <= cidr.Bits() && p.Contains(cidr.Addr()) }
	if len(b.Within) > 0 && !slices.ContainsFunc(b.Within, inside) {
		return fmt.Sprintf("it is outside of the pods' ranges %s", b.Within), "delete the Node, or add the range to podCIDRs of Kith's configuration"
	}
	if i := slices.IndexFunc(b.Services, cidr.Overlaps); i >= 0 {
		return fmt.Sprintf("%s is the Services' range", b.Services[i]), fixRange
	}
	for _, r := range b.Reserved {
		if cidr.Overlaps(r.Range) {
			return fmt.Sprintf("it covers %s, %s", r.Range.Addr(), r.What), fixRange
		}
	}
	return "", ""
}

// special are the ranges that no node can have, whatever a cluster looks like.
func special() []Reserved {
	prefix := netip.MustParsePrefix
	return []Reserved{
		{prefix("0.0.0.0/8"), "this host's own (RFC 1122)"}, {prefix("127.0.0.0/8"), "loopback"},
		{prefix("169.254.0.0/16"), "link-local"}, {prefix("224.0.0.0/3"), "multicast or reserved"},
		{prefix("::/96"), "loopback or unspecified"}, {prefix("::ffff:0:0/96"), "IPv4 in IPv6"},
		{prefix("fe80::/10"), "link-local"}, {prefix("ff00::/8"), "multicast"},
	}
}

// addresses are those that policies know a node by: first the one by which it is reached, then what its status names, less
// what is a pod's, a Service's, or another node's. Blocks decide by the first, which others than the node's agent write in a
// status as they like. An InternalIP that several name is this node's, or else the oldest one's, and not that of a
// node whose claim says that it is elsewhere. An ExternalIP may be shared, as by nodes
// behind one NAT, but is never another's InternalIP.
func (g *granting) addresses(i int) []netip.Addr {
	n := &g.nodes[i]
	var out []netip.Addr
	refused := func(addr netip.Addr, why string) bool {
		if why != "" {
			g.problems.add(AddressRefused, n.Name, "node address %s refused: %s", addr, why)
		}
		return why != ""
	}
	for _, addr := range n.Reached { // Compute reports what is wrong with a claim
		if cmp.Or(g.unfit(addr), g.anothers(i, addr)) == "" {
			out = append(out, addr)
		}
	}
	for _, addr := range n.Underlay() {
		if !refused(addr, cmp.Or(g.unfit(addr), g.anothers(i, addr))) && !slices.Contains(out, addr) {
			out = append(out, addr)
		}
	}
	for _, addr := range n.ExternalIPs[:min(len(n.ExternalIPs), maxAddresses)] {
		if !refused(addr, cmp.Or(g.unfit(addr), g.anothers(i, addr))) && !slices.Contains(out, addr) {
			out = append(out, addr)
		}
	}
	return out
}

// anothers says whose InternalIP an address is, if it is another node's than the one at i.
func (g *granting) anothers(i int, addr netip.Addr) string {
	all := g.inside(netip.PrefixFrom(addr, addr.BitLen()))
	if len(all) == 0 {
		return ""
	}
	owner := all[0].node
	if may := slices.IndexFunc(all, func(known nodeAddress) bool { return !g.nodes[known.node].elsewhere(addr) }); may >= 0 {
		owner = all[may].node
	}
	for _, known := range all {
		if g.nodes[known.node].Name == g.bounds.Self {
			owner = known.node
		}
	}
	if owner == i {
		return ""
	}
	return "it is the InternalIP of node " + g.nodes[owner].Name
}

// elsewhere reports whether a node's claim names another address of the family.
func (n Node) elsewhere(addr netip.Addr) bool {
	return !slices.Contains(n.Reached, addr) && slices.ContainsFunc(n.Reached, func(have netip.Addr) bool { return have.Is4() == addr.Is4() })
}

// unfit says why no node can have an address; nothing: one can.
func (g *granting) unfit(addr netip.Addr) string {
	if holder, held := g.granted.holder(netip.PrefixFrom(addr, addr.BitLen())); held {
		return fmt.Sprintf("it is in pod CIDR %s of node %s", holder.cidr, holder.node)
	}
	if !addr.IsGlobalUnicast() && !addr.IsLinkLocalUnicast() {
		return "no other node can have it"
	}
	if i := slices.IndexFunc(g.bounds.Services, func(p netip.Prefix) bool { return p.Contains(addr) }); i >= 0 {
		return fmt.Sprintf("%s is the Services' range", g.bounds.Services[i])
	}
	return ""
}

// grant is a CIDR and the node that holds it.
type grant struct {
	cidr netip.Prefix
	node string
}

// grants are the CIDRs granted so far: disjoint, by address.
type grants struct {
	held []grant
}

func (g *grants) search(addr netip.Addr) int {
	i, _ := slices.BinarySearchFunc(g.held, addr, func(have grant, want netip.Addr) int {
		return have.cidr.Addr().Compare(want)
	})
	return i
}

// holder finds a grant that shares an address with cidr. As grants are disjoint, only
// the neighbours of its first address can.
func (g *grants) holder(cidr netip.Prefix) (grant, bool) {
	i := g.search(cidr.Addr())
	for _, near := range []int{i - 1, i} {
		if near >= 0 && near < len(g.held) && g.held[near].cidr.Overlaps(cidr) {
			return g.held[near], true
		}
	}
	return grant{}, false
}

func (g *grants) add(cidr netip.Prefix, node string) {
	g.held = slices.Insert(g.held, g.search(cidr.Addr()), grant{cidr: cidr, node: node})
}
