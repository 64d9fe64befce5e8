package policy

import (
	"fmt"
	"slices"
)

// unknown says whether the other end is in the cluster and nobody knows what it is: an address of a node's pod CIDRs that no
// known pod has, and that is not a node's own. What is there may be any pod, and so nothing accepts it by its labels and
// everything denies it that denies pods.
func (c Cluster) unknown(e end) bool {
	if _, inside := c.nodeOf(e.otherAddr); !inside || e.other != nil {
		return false
	}
	return !slices.ContainsFunc(c.Nodes, func(n Node) bool { return n.has(e.otherAddr) })
}

// deniesUnknown says whether a rule denies what is not known, as far as it could be a pod that the rule names.
func (c Cluster) deniesUnknown(r Rule, e end, f Flow) bool {
	if r.Action != Deny || !r.AllPeers && !slices.ContainsFunc(r.Peers, Peer.OfPods) || !c.unknown(e) {
		return false
	}
	return r.AllPorts || slices.ContainsFunc(r.Ports, func(p Port) bool {
		// What the ports of an unknown pod are called is not known either.
		return matchPort(p, e, f) || p.Name != "" && e.direction == Egress && p.Protocol == f.Protocol
	})
}

// notKnown tells a person why a rule that names pods denied a flow.
func notKnown(e end) string {
	return fmt.Sprintf(" denies it: %s is in the cluster and may be any pod, since no pod is known to have it", e.otherAddr)
}
