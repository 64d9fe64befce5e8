package ruleset

import (
	"net/netip"
	"slices"
)

// The chains that judge ICMP errors. Connection tracking calls an error RELATED by the packet that it quotes, whoever
// sends it: without them, any pod could speak of any connection, with a payload of its own.
const (
	errors        = "errors"         // what is related to a connection
	podErrors     = "pod_errors"     // an error out of a veth
	meshErrors    = "mesh_errors"    // an error out of the mesh
	outerErrors   = "outer_errors"   // an error from elsewhere
	errorKinds    = "error_kinds"    // the errors that end something
	unknownErrors = "unknown_errors" // errors of pods about connections that this node does not know
)

// icmpErrors are the types of ICMP errors, by protocol. Source quench and redirects are of no use to anybody.
func icmpErrors() (known, useless []ICMPType) {
	return []ICMPType{{1, 3}, {1, 11}, {1, 12}, {58, 1}, {58, 2}, {58, 3}, {58, 4}}, []ICMPType{{1, 4}, {1, 5}}
}

// errorChains accept an error from a veth if its pod is an end of the connection that it speaks of: who opened it, or the
// real server. From the mesh comes what the end's node has let out, and what the node itself says: an error is of the node
// of one of the ends. From elsewhere come the errors of routers, for connections that leave the cluster.
func errorChains() []Chain {
	onEnd := func(chain, set4, set6 string) Chain {
		return Chain{ChainSpec{chain, nil}, []Rule{
			to(errorKinds, isIn(set4, IPSource, OriginalSource)), to(errorKinds, isIn(set4, IPSource, ReplySource)),
			to(errorKinds, isIn(set6, IP6Source, OriginalSource6)), to(errorKinds, isIn(set6, IP6Source, ReplySource6)),
			drop(),
		}}
	}
	known, useless := icmpErrors()
	var kinds, unknown []Rule
	for _, t := range known {
		kinds = append(kinds, accept(t))
	}
	for _, t := range slices.Concat(known, useless) {
		unknown = append(unknown, drop(t))
	}
	var first []Rule
	for _, protocol := range []uint8{1, 58} {
		first = append(first, to(podErrors, Protocol{protocol}, in(VethPrefix+"*")))
		first = append(first, onMesh(func(device string) Rule { return to(meshErrors, Protocol{protocol}, in(device)) })...)
		first = append(first, to(outerErrors, Protocol{protocol}))
	}
	return []Chain{
		{ChainSpec{errors, nil}, first},
		onEnd(podErrors, setSelf4, setSelf6),
		onEnd(meshErrors, setHome4, setHome6),
		{ChainSpec{outerErrors, nil}, []Rule{
			drop(isIn(setCluster4, OriginalSource), isIn(setCluster4, ReplySource)),
			drop(isIn(setCluster6, OriginalSource6), isIn(setCluster6, ReplySource6)),
			to(errorKinds),
		}},
		{ChainSpec{errorKinds, nil}, append(kinds, drop(Protocol{1}), drop(Protocol{58}))},
		{ChainSpec{unknownErrors, nil}, unknown},
	}
}

// homes are pairs of addresses of one node. Where CIDRs overlap, the larger counts: intervals of pairs must not.
func homes(nodes []netip.Prefix) (keys4, keys6 []Key) {
	ps := slices.Clone(nodes)
	slices.SortFunc(ps, func(a, b netip.Prefix) int {
		if c := a.Masked().Addr().Compare(b.Masked().Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	var last netip.Prefix
	for _, p := range ps {
		if last.IsValid() && last.Overlaps(p) {
			continue
		}
		last = p
		r := rangePart(prefixRange(p))
		if p.Addr().Is4() {
			keys4 = append(keys4, intervalKey(r, r))
		} else {
			keys6 = append(keys6, intervalKey(r, r))
		}
	}
	return keys4, keys6
}
