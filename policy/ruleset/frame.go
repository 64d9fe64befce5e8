package ruleset

import (
	"net/netip"
	"slices"
)

// The fixed sets and maps, beside those whose elements open an attachment.
const (
	mapIdentity4 = "identity4" // address : identity, of those that a chain names
	mapIdentity6 = "identity6"
	setSelf4     = "self4" // a local pod's address . another of the same pod
	setSelf6     = "self6"
	setSubjects4 = "subjects4" // subjects of either direction
	setSubjects6 = "subjects6"
	setBound4    = "bound4" // subjects of ClusterNetworkPolicies for what they send, also to their own node
	setBound6    = "bound6"
	setCluster4  = "cluster4" // the pod CIDRs of all nodes, and of those that are gone
	setCluster6  = "cluster6"
	setHome4     = "home4" // the pod CIDR of a node . itself
	setHome6     = "home6"
	setMeshPorts = "meshports" // protocol . port where nodes listen for each other
	setNodes4    = "nodes4"    // addresses of nodes, also in the mesh
	setNodes6    = "nodes6"
	setMeshes4   = "meshes4" // nodes' mesh addresses
	setMeshes6   = "meshes6"
	setOwn4      = "own4" // the pod CIDRs of this node
	setOwn6      = "own6"
	setMesh4     = "mesh4" // this node's own mesh addresses
	setMesh6     = "mesh6"
	setTunnels   = "tunnels"       // protocol . port that WireGuard sends from
	setNoMasq4   = "nomasquerade4" // destinations that see pods under their own addresses
	setNoMasq6   = "nomasquerade6"
	setLoopback  = "loopback4"  // of the node, which route_localnet lets in from outside
	setLinkLocal = "linklocal6" // link-local and unspecified addresses
)

// The maps that send subjects to their chains.
const (
	mapAdminEgress4    = "adminegress4" // the Admin tier, for what a subject sends
	mapAdminEgress6    = "adminegress6"
	mapEgress4         = "egress4" // NetworkPolicies, or else the Baseline tier
	mapEgress6         = "egress6"
	mapBaselineEgress4 = "baselineegress4" // the Baseline tier only, for what it sends to its own node
	mapBaselineEgress6 = "baselineegress6"
	mapAdminIngress4   = "adminingress4" // the same for what it receives
	mapAdminIngress6   = "adminingress6"
	mapIngress4        = "ingress4"
	mapIngress6        = "ingress6"
)

// The maps that send the first packets of connections to their limits.
const (
	mapOpens4   = "opens4" // by who opens the connection
	mapOpens6   = "opens6"
	mapAnswers4 = "answers4" // by who answers it, where no pod opens it
	mapAnswers6 = "answers6"
)

// The fixed chains that others reach.
const (
	allowed  = "allowed"   // a connection that a rule accepts: nothing else decides in its direction
	passed   = "passed"    // a connection that a rule passes to the next tier
	senders  = "senders"   // what is forwarded, on its way to its sender's chains
	ownNode  = "own_node"  // between this node and its pods
	unjudged = "unjudged"  // of these, packets without a connection that could be judged
	closed   = "closed"    // of the others
	lost     = "lost"      // segments of connections that the kernel's table has lost
	lostOwn  = "lost_own"  // of these, between this node and its pods
	fromPod  = "from_pod"  // what comes out of a veth
	fromMesh = "from_mesh" // what comes out of the mesh
	toPod    = "to_pod"    // what goes into a veth
)

// The ICMP types that rules name.
const (
	icmp6TooBig                = 2
	icmp6RouterAdvertisement   = 134
	icmp6NeighborSolicitation  = 135
	icmp6NeighborAdvertisement = 136
	icmp6Redirect              = 137
)

// Where the base chains stand: the guards before connection tracking and after NAT.
const (
	priorityRaw       = -300
	priorityFilter    = 0
	priorityIngress   = 1
	prioritySourceNAT = 99 // before others' 100: of equals, who registered first is first
	priorityLast      = 150
)

// frame makes the sets and chains that every ruleset has.
func (w *wanted) frame() {
	for _, s := range frameSets() {
		w.putSet(s)
	}
	for _, c := range slices.Concat(guardChains(), policyChains(), errorChains(), ipvsChains(), portChains(), limitChains(), forgottenChains(Network{}), []Chain{natChain(nil)}) {
		w.putChain(c)
	}
	w.put(setLoopback, intervalKey(rangePart(prefixRange(netip.MustParsePrefix("127.0.0.0/8")))), Value{})
	w.put(setLinkLocal, intervalKey(rangePart(prefixRange(netip.MustParsePrefix("fe80::/10")))), Value{})
	w.put(setLinkLocal, intervalKey(addrPart(netip.IPv6Unspecified())), Value{})
}

func frameSets() []SetSpec {
	sets := []SetSpec{
		{Name: SetOpened, Key: []Type{TypeIfName}},
		{Name: setMeshPorts, Key: []Type{TypeInetProto, TypeInetService}},
		{Name: setTunnels, Key: []Type{TypeInetProto, TypeInetService}},
		{Name: mapProved4, Key: []Type{TypeQuoted4}, Data: TypeVerdict},
		{Name: mapProved6, Key: []Type{TypeQuoted6}, Data: TypeVerdict},
		{Name: setLoopback, Key: []Type{TypeIPv4Addr}, Interval: true},
		{Name: setLinkLocal, Key: []Type{TypeIPv6Addr}, Interval: true},
	}
	for _, f := range []struct {
		suffix string
		addr   Type
	}{{"4", TypeIPv4Addr}, {"6", TypeIPv6Addr}} {
		one := []Type{f.addr}
		sets = append(sets,
			SetSpec{Name: "identity" + f.suffix, Key: one, Data: TypeClassID},
			SetSpec{Name: "adminegress" + f.suffix, Key: one, Data: TypeVerdict},
			SetSpec{Name: "egress" + f.suffix, Key: one, Data: TypeVerdict},
			SetSpec{Name: "baselineegress" + f.suffix, Key: one, Data: TypeVerdict},
			SetSpec{Name: "adminingress" + f.suffix, Key: one, Data: TypeVerdict},
			SetSpec{Name: "ingress" + f.suffix, Key: one, Data: TypeVerdict},
			SetSpec{Name: "opens" + f.suffix, Key: one, Data: TypeVerdict},
			SetSpec{Name: "answers" + f.suffix, Key: one, Data: TypeVerdict},
			SetSpec{Name: "bound" + f.suffix, Key: one},
			SetSpec{Name: "self" + f.suffix, Key: []Type{f.addr, f.addr}},
			SetSpec{Name: "subjects" + f.suffix, Key: one},
			SetSpec{Name: "pods" + f.suffix, Key: []Type{TypeIfName, TypeEtherAddr, f.addr}},
			SetSpec{Name: "cluster" + f.suffix, Key: one, Interval: true},
			SetSpec{Name: "home" + f.suffix, Key: []Type{f.addr, f.addr}, Interval: true},
			SetSpec{Name: "own" + f.suffix, Key: one, Interval: true},
			SetSpec{Name: "mesh" + f.suffix, Key: one},
			SetSpec{Name: "meshes" + f.suffix, Key: one},
			SetSpec{Name: "nodes" + f.suffix, Key: one},
			SetSpec{Name: "nomasquerade" + f.suffix, Key: one, Interval: true},
		)
	}
	return sets
}

func in(name string) Interface            { return Interface{InInterface, Equal, name} }
func out(name string) Interface           { return Interface{OutInterface, Equal, name} }
func decide(f Field, m string) Rule       { return rule(VerdictMap{[]Field{f}, m}) }
func notIn(f Field, set string) Lookup    { return Lookup{[]Field{f}, NotEqual, set} }
func isIn(set string, fs ...Field) Lookup { return Lookup{fs, Equal, set} }

// onMesh is a rule for each of the mesh's devices.
func onMesh(on func(device string) Rule) []Rule {
	var rules []Rule
	for _, device := range Devices {
		rules = append(rules, on(device))
	}
	return rules
}

// guardChains hold what is true with or without policies. Pod traffic enters and leaves this node by the mesh or by the
// pod's own veth; a pod sends under its own addresses; an attachment that is not open passes nothing.
func guardChains() []Chain {
	veths := VethPrefix + "*"
	return []Chain{
		{ChainSpec{"prerouting", &Hook{"filter", "prerouting", priorityRaw}}, slices.Concat(
			[]Rule{to(fromPod, in(veths))},
			onMesh(func(device string) Rule { return to(fromMesh, in(device)) }),
			[]Rule{
				// The node to itself. A process of this node that forges another source is nobody's voice but its own.
				accept(in("lo"), isIn(setMesh4, IPSource)),
				accept(in("lo"), isIn(setMesh6, IP6Source)),
				accept(in("lo"), State{StateRelated}, ResetFlag{}), // the kernel's own, see forgottenChains
				drop(isIn(setCluster4, IPSource)),
				drop(isIn(setCluster6, IP6Source)),
				accept(in("lo")),
				// Before DNAT: what comes by a port of a node or a Service bears another destination here.
				drop(isIn(setCluster4, IPDestination), notIn(IPSource, setNoMasq4)),
				drop(isIn(setCluster6, IP6Destination), notIn(IP6Source, setNoMasq6)),
			},
		)},
		{ChainSpec{fromPod, nil}, []Rule{
			drop(isIn(setLoopback, IPDestination)),
			accept(isIn(SetPods4, InInterface, EtherSource, IPSource)),
			drop(ICMPType{58, icmp6RouterAdvertisement}),
			drop(ICMPType{58, icmp6Redirect}),
			accept(isIn(SetPods6, InInterface, EtherSource, IP6Source)),
			accept(isIn(SetOpened, InInterface), isIn(setLinkLocal, IP6Source), ICMPType{58, icmp6NeighborSolicitation}),
			accept(isIn(SetOpened, InInterface), isIn(setLinkLocal, IP6Source), ICMPType{58, icmp6NeighborAdvertisement}),
			drop(),
		}},
		{ChainSpec{fromMesh, nil}, []Rule{
			accept(isIn(setOwn4, IPDestination)),
			accept(isIn(setOwn6, IP6Destination)),
			drop(),
		}},
		{ChainSpec{"postrouting", &Hook{"filter", "postrouting", priorityLast}}, slices.Concat(
			onMesh(func(device string) Rule { return accept(out(device)) }),
			[]Rule{
				to(toPod, out(veths)),
				accept(out("lo")),
				drop(isIn(setCluster4, IPDestination)),
				drop(isIn(setCluster6, IP6Destination)),
				// Whatever NAT did not take for masquerading, such as a packet that belongs to no connection.
				drop(isIn(setOwn4, IPSource), notIn(IPDestination, setNoMasq4)),
				drop(isIn(setOwn6, IP6Source), notIn(IP6Destination, setNoMasq6)),
			},
		)},
		{ChainSpec{toPod, nil}, []Rule{accept(isIn(SetOpened, OutInterface)), drop()}},
	}
}

// policyChains lead every forwarded packet through its sender's chains, and then through its receiver's: two base chains,
// so that an accept in the one ends that one only. What a pod and its own node say to each other only the sender's
// ClusterNetworkPolicies judge. What belongs to an open connection, which is nearly everything, takes the shortest way
// there.
func policyChains() []Chain {
	veths := VethPrefix + "*"
	return []Chain{
		{ChainSpec{"forward_egress", &Hook{"filter", "forward", priorityFilter}}, []Rule{
			rule(ClampMSS{}),
			call(farPorts, in(veths), isIn(setMeshPorts, L4Proto, DestinationPort)),
			to(senders, State{StateEstablished}),
			call(makers, Unconfirmed{}),
			call(farPorts, Translated{}, isIn(setMeshPorts, L4Proto, DestinationPort)),
			drop(isIn(setLinkLocal, IP6Source)),
			call(unknownErrors, in(veths), State{StateInvalid | StateUntracked}),
			call(closed, State{StateInvalid | StateUntracked}),
			call(lost, State{StateNew}, NotSYN{}),
			call(errors, State{StateRelated}),
			to(senders),
		}},
		{ChainSpec{senders, nil}, []Rule{
			decide(OriginalSource, mapAdminEgress4), decide(OriginalSource6, mapAdminEgress6),
			decide(OriginalSource, mapEgress4), decide(OriginalSource6, mapEgress6),
		}},
		{ChainSpec{"forward_ingress", &Hook{"filter", "forward", priorityIngress}}, append([]Rule{
			// Here too, and not only where packets leave: a chain is taken through as of one generation of the table, and
			// a packet that found no policy in the last one must not find the attachment open in the next.
			drop(out(veths), notIn(OutInterface, SetOpened)),
			call(errors, State{StateRelated}),
		}, receivers()...)},
		inputChain(),
		{ChainSpec{"output", &Hook{"filter", "output", priorityFilter}}, []Rule{
			rule(isIn(setTunnels, L4Proto, SourcePort), KeepWhole{}),
			call(errorKinds, out(veths), State{StateRelated}),
			accept(out(veths), ResetFlag{}),
			to(byIPVS, Arrived{}),
			to(ownNode, out(veths)),
		}},
		{ChainSpec{ownNode, nil}, []Rule{
			call(unjudged, State{StateInvalid | StateUntracked}),
			call(lostOwn, State{StateNew}, NotSYN{}),
			decide(OriginalSource, mapAdminEgress4), decide(OriginalSource6, mapAdminEgress6),
			decide(OriginalSource, mapBaselineEgress4), decide(OriginalSource6, mapBaselineEgress6),
		}},
		{ChainSpec{allowed, nil}, []Rule{accept(PriorityNone{})}},
		{ChainSpec{passed, nil}, []Rule{rule(PriorityNone{})}},
	}
}

// inputChain guards the node itself, and notes what arrived.
func inputChain() Chain {
	veths := VethPrefix + "*"
	return Chain{ChainSpec{"input", &Hook{"filter", "input", priorityFilter}}, slices.Concat([]Rule{
		rule(Interface{InInterface, NotEqual, "lo"}, SetArrived{}),
		rule(FragmentationNeeded{}, VerdictMap{[]Field{QuotedDestination}, mapProved4}),
		rule(ICMPType{58, icmp6TooBig}, VerdictMap{[]Field{QuotedDestination6}, mapProved6}),
		call(ownPorts, in(veths), isIn(setMeshPorts, L4Proto, DestinationPort)),
		call(ownPorts, Translated{}, isIn(setMeshPorts, L4Proto, DestinationPort)),
	}, onMesh(func(device string) Rule {
		return call(meshOnly, in(device), isIn(setMeshPorts, L4Proto, DestinationPort))
	}), []Rule{
		call(errors, Interface{InInterface, NotEqual, "lo"}, State{StateRelated}),
		call(unknownErrors, in(veths), State{StateInvalid | StateUntracked}),
		call(makers, Unconfirmed{}),
	})}
}

// natChain hides what leaves the cluster behind the node's address, and what the node sends into the mesh behind its
// mesh addresses. A pod keeps its own into the mesh, also by a node port that kube-proxy would masquerade: an accept here
// stops no later chain, but a source that is bound does. The mesh addresses are written out: a masqueraded connection would end when its packets change to another device
// of the mesh.
func natChain(mesh []netip.Addr) Chain {
	var rules []Rule
	for _, address := range mesh {
		source, own := IPSource, setOwn4
		if address.Is6() {
			source, own = IP6Source, setOwn6
		}
		rules = append(rules, onMesh(func(device string) Rule {
			return rule(out(device), notIn(source, own), SourceNAT{address})
		})...)
	}
	for _, keep := range []Rule{rule(isIn(setOwn4, IPSource), KeepSource{IPSource}), rule(isIn(setOwn6, IP6Source), KeepSource{IP6Source})} {
		rules = append(rules, onMesh(func(device string) Rule {
			return rule(append([]Expr{out(device)}, keep.Exprs...)...)
		})...)
	}
	rules = append(rules, onMesh(func(device string) Rule { return accept(out(device)) })...)
	return Chain{ChainSpec{"source_nat", &Hook{"nat", "postrouting", prioritySourceNAT}}, append(rules,
		accept(out(VethPrefix+"*")),
		accept(out("lo")),
		// Other nodes hear pods by the mesh alone, and so this node in their place, though pods may show themselves there.
		rule(isIn(setOwn4, IPSource), isIn(setNodes4, IPDestination), Masquerade{}),
		rule(isIn(setOwn6, IP6Source), isIn(setNodes6, IP6Destination), Masquerade{}),
		rule(isIn(setOwn4, IPSource), notIn(IPDestination, setCluster4), notIn(IPDestination, setNoMasq4), Masquerade{}),
		rule(isIn(setOwn6, IP6Source), notIn(IP6Destination, setCluster6), notIn(IP6Destination, setNoMasq6), Masquerade{}),
	)}
}

// fillNetwork fills the sets of address ranges.
func (c *Compiler) fillNetwork() {
	var own []netip.Prefix
	var mesh, meshes, nodeAddresses []netip.Addr
	var nodes []netip.Prefix
	for _, n := range c.network.Nodes {
		nodes = append(nodes, n.PodCIDRs...)
		meshes = append(meshes, n.Mesh...)
		nodeAddresses = append(nodeAddresses, n.Addresses...)
		if n.Name == c.network.Node {
			own, mesh = append(own, n.PodCIDRs...), append(mesh, n.Mesh...)
		}
	}
	c.want.putChain(natChain(mesh))
	for _, chain := range forgottenChains(c.network) {
		c.want.putChain(chain)
	}
	c.fillPrefixes(setCluster4, setCluster6, slices.Concat(c.network.Vacated, nodes))
	home4, home6 := homes(nodes)
	c.want.fill(setHome4, home4)
	c.want.fill(setHome6, home6)
	c.fillPrefixes(setOwn4, setOwn6, own)
	c.fillAddresses(setMesh4, setMesh6, mesh)
	c.fillAddresses(setMeshes4, setMeshes6, meshes)
	c.fillAddresses(setNodes4, setNodes6, slices.Concat(meshes, nodeAddresses))
	c.want.fill(setMeshPorts, c.network.Ports.keys())
	c.want.fill(setTunnels, Ports{WireGuard: c.network.Ports.WireGuard}.keys())
	c.fillPrefixes(setNoMasq4, setNoMasq6, c.network.NoMasquerade)
}

func (c *Compiler) fillPrefixes(set4, set6 string, ps []netip.Prefix) {
	var four, six []addrRange
	for _, p := range ps {
		if p.Addr().Is4() {
			four = append(four, prefixRange(p))
		} else {
			six = append(six, prefixRange(p))
		}
	}
	c.want.fill(set4, rangeKeys(four))
	c.want.fill(set6, rangeKeys(six))
}

func (c *Compiler) fillAddresses(set4, set6 string, addrs []netip.Addr) {
	keys := map[string][]Key{set4: nil, set6: nil}
	for _, addr := range addrs {
		set := byFamily(addr, set4, set6)
		keys[set] = append(keys[set], exactKey(addrPart(addr)))
	}
	c.want.fill(set4, keys[set4])
	c.want.fill(set6, keys[set6])
}

func rangeKeys(rs []addrRange) []Key {
	var keys []Key
	for _, r := range mergeRanges(rs) {
		keys = append(keys, intervalKey(rangePart(r)))
	}
	return keys
}
