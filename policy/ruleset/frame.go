package ruleset

import (
	"net/netip"
	"slices"
)

// The fixed sets and maps, beside those whose elements open an attachment.
const (
	mapIdentity4 = "identity4" // address : identity, of those that a chain names
	mapIdentity6 = "identity6"
	mapEgress4   = "egress4" // subject : its chain for what it sends
	mapEgress6   = "egress6"
	mapIngress4  = "ingress4" // subject : its chain for what it receives
	mapIngress6  = "ingress6"
	setSelf4     = "self4" // subject . itself
	setSelf6     = "self6"
	setSubjects4 = "subjects4" // subjects of either direction
	setSubjects6 = "subjects6"
	setCluster4  = "cluster4" // the pod CIDRs of all nodes
	setCluster6  = "cluster6"
	setOwn4      = "own4" // the pod CIDRs of this node
	setOwn6      = "own6"
	setNoMasq4   = "nomasquerade4" // destinations that see pods under their own addresses
	setNoMasq6   = "nomasquerade6"
	setLinkLocal = "linklocal6" // link-local and unspecified addresses
)

// The fixed chains that others reach.
const (
	allowed  = "allowed"   // a subject's connection that a rule allows
	ends     = "ends"      // a connection's sender, then its receiver
	closed   = "closed"    // packets without a connection that could be judged
	errors   = "errors"    // ICMP errors about a connection
	fromPod  = "from_pod"  // what comes out of a veth
	fromMesh = "from_mesh" // what comes out of the mesh
	toPod    = "to_pod"    // what goes into a veth
)

// The ICMP types that rules name.
const (
	icmp6RouterAdvertisement   = 134
	icmp6NeighborSolicitation  = 135
	icmp6NeighborAdvertisement = 136
	icmp6Redirect              = 137
)

// Where the base chains stand: the guards before connection tracking and after NAT.
const (
	priorityRaw       = -300
	priorityFilter    = 0
	prioritySourceNAT = 100
	priorityLast      = 150
)

// frame makes the sets and chains that every ruleset has.
func (w *wanted) frame() {
	for _, s := range frameSets() {
		w.putSet(s)
	}
	for _, c := range slices.Concat(guardChains(), policyChains(), []Chain{natChain(nil)}) {
		w.putChain(c)
	}
	w.put(setLinkLocal, intervalKey(rangePart(prefixRange(netip.MustParsePrefix("fe80::/10")))), Value{})
	w.put(setLinkLocal, intervalKey(addrPart(netip.IPv6Unspecified())), Value{})
}

func frameSets() []SetSpec {
	sets := []SetSpec{
		{Name: SetOpened, Key: []Type{TypeIfName}},
		{Name: setLinkLocal, Key: []Type{TypeIPv6Addr}, Interval: true},
	}
	for _, f := range []struct {
		suffix string
		addr   Type
	}{{"4", TypeIPv4Addr}, {"6", TypeIPv6Addr}} {
		one := []Type{f.addr}
		sets = append(sets,
			SetSpec{Name: "identity" + f.suffix, Key: one, Data: TypeClassID},
			SetSpec{Name: "egress" + f.suffix, Key: one, Data: TypeVerdict},
			SetSpec{Name: "ingress" + f.suffix, Key: one, Data: TypeVerdict},
			SetSpec{Name: "self" + f.suffix, Key: []Type{f.addr, f.addr}},
			SetSpec{Name: "subjects" + f.suffix, Key: one},
			SetSpec{Name: "pods" + f.suffix, Key: []Type{TypeIfName, TypeEtherAddr, f.addr}},
			SetSpec{Name: "cluster" + f.suffix, Key: one, Interval: true},
			SetSpec{Name: "own" + f.suffix, Key: one, Interval: true},
			SetSpec{Name: "nomasquerade" + f.suffix, Key: one, Interval: true},
		)
	}
	return sets
}

func in(name string) Interface            { return Interface{InInterface, Equal, name} }
func out(name string) Interface           { return Interface{OutInterface, Equal, name} }
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
				accept(in("lo")), // the node to itself under its mesh address
				drop(isIn(setCluster4, IPSource)),
				drop(isIn(setCluster6, IP6Source)),
			},
		)},
		{ChainSpec{fromPod, nil}, []Rule{
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

// policyChains lead every forwarded packet through its sender's and its receiver's chain. What belongs to an open
// connection, which is nearly everything, takes the shortest way there.
func policyChains() []Chain {
	return []Chain{
		{ChainSpec{"forward", &Hook{"filter", "forward", priorityFilter}}, []Rule{
			rule(ClampMSS{}),
			to(ends, State{StateEstablished}),
			drop(isIn(setLinkLocal, IP6Source)),
			call(closed, State{StateInvalid | StateUntracked}),
			call(closed, State{StateNew}, NotSYN{}),
			call(errors, State{StateRelated}),
			to(ends),
		}},
		{ChainSpec{ends, nil}, []Rule{
			rule(VerdictMap{[]Field{OriginalSource}, mapEgress4}),
			rule(VerdictMap{[]Field{ReplySource}, mapIngress4}),
			rule(VerdictMap{[]Field{OriginalSource6}, mapEgress6}),
			rule(VerdictMap{[]Field{ReplySource6}, mapIngress6}),
		}},
		{ChainSpec{closed, nil}, []Rule{
			drop(isIn(setSubjects4, IPSource)),
			drop(isIn(setSubjects4, IPDestination)),
			drop(isIn(setSubjects6, IP6Source)),
			drop(isIn(setSubjects6, IP6Destination)),
		}},
		{ChainSpec{errors, nil}, []Rule{
			accept(ICMPType{1, 3}), accept(ICMPType{1, 11}), accept(ICMPType{1, 12}),
			accept(ICMPType{58, 1}), accept(ICMPType{58, 2}), accept(ICMPType{58, 3}), accept(ICMPType{58, 4}),
		}},
		{ChainSpec{allowed, nil}, []Rule{rule(PriorityNone{})}},
	}
}

// natChain hides what leaves the cluster behind the node's address, and what the node sends into the mesh behind its
// mesh addresses. These are written out: a masqueraded connection would end when its packets change to another device
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
	rules = append(rules, onMesh(func(device string) Rule { return accept(out(device)) })...)
	return Chain{ChainSpec{"source_nat", &Hook{"nat", "postrouting", prioritySourceNAT}}, append(rules,
		accept(out(VethPrefix+"*")),
		accept(out("lo")),
		rule(isIn(setOwn4, IPSource), notIn(IPDestination, setCluster4), notIn(IPDestination, setNoMasq4), Masquerade{}),
		rule(isIn(setOwn6, IP6Source), notIn(IP6Destination, setCluster6), notIn(IP6Destination, setNoMasq6), Masquerade{}),
	)}
}

// fillNetwork fills the sets of address ranges.
func (c *Compiler) fillNetwork() {
	var cluster, own []netip.Prefix
	var mesh []netip.Addr
	for _, n := range c.network.Nodes {
		cluster = append(cluster, n.PodCIDRs...)
		if n.Name == c.network.Node {
			own, mesh = append(own, n.PodCIDRs...), append(mesh, n.Mesh...)
		}
	}
	c.want.putChain(natChain(mesh))
	c.fillPrefixes(setCluster4, setCluster6, cluster)
	c.fillPrefixes(setOwn4, setOwn6, own)
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

func rangeKeys(rs []addrRange) []Key {
	var keys []Key
	for _, r := range mergeRanges(rs) {
		keys = append(keys, intervalKey(rangePart(r)))
	}
	return keys
}
