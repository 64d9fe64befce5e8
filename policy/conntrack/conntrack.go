// Package conntrack decides who takes too much of the kernel's table of connections, which all pods of a node and the node
// itself share. When it is full, nobody opens a connection: not even the node to its own pods.
//
// Input: how many connections the table holds and can hold, which addresses are whose (Addresses), and the connections
// themselves, one after the other (Census, Selection). Output: when to look at them (Watch.Due), who is limited from now
// on, and how many of whose connections end (Census.Judge), and which (Selection).
//
// Invariants:
//   - below HighWater, as long as nobody is limited, nothing is looked at, limited or ended;
//   - only who holds more than its share is limited or loses connections, and it keeps its share. A share is what makes all
//     fit below LowWater if nobody has more, and never less than a 256th of the table;
//   - what this node itself opened, and what is of no pod, is never counted as anybody's, limited or ended;
//   - of a holder's connections those end first that nobody answers or that are closing, then those that were silent longest;
//   - memory is bounded: by the number of holders, and by MostEnds.
//
// Out of scope: reading the kernel's table and deleting from it (package kernel), and how a limit is kept (policy/ruleset).
package conntrack

import (
	"net/netip"
	"time"
)

// Connection is what is to be known of a connection in the table.
type Connection struct {
	// Opener is its original source, Answerer its reply source: the real server, after destination NAT.
	Opener, Answerer netip.Addr
	Class            Class
	// Answered says that packets of both directions were seen.
	Answered bool
	// Rest is the time until the kernel forgets it if nothing more is heard.
	Rest time.Duration
}

// Class are the connections that the kernel keeps for the same time after their last packet.
type Class struct {
	Protocol uint8
	// State is TCP's, with the kernel's numbers; of other protocols 0.
	State    uint8
	Answered bool
}

// The states of TCP in which a connection is about to end.
const (
	protocolTCP = 6
	firstEnding = 4 // FIN_WAIT; CLOSE_WAIT, LAST_ACK, TIME_WAIT and CLOSE follow
	lastEnding  = 8
)

// ends says whether the connection is closing, or nobody has answered it.
func (c Connection) ends() bool {
	closing := c.Class.Protocol == protocolTCP && firstEnding <= c.Class.State && c.Class.State <= lastEnding
	return !c.Answered || closing
}

// Side is an end of connections.
type Side uint8

// The sides.
const (
	Opens Side = iota
	Answers
)

// Holder is a pod's address and the side by which connections are its own. A pod that opens a connection holds it; one that
// no pod opened is of the pod that answers it.
type Holder struct {
	Address netip.Addr
	Side    Side
}

// Addresses says which addresses are pods'.
type Addresses struct {
	pods  map[netip.Prefix]struct{}
	bits4 []int // the lengths of pods' prefixes
	bits6 []int
	nodes map[netip.Addr]struct{} // of any node: they are none of a pod's
	own   map[netip.Addr]struct{} // of this node
}

// NewAddresses is made of the pod CIDRs of the cluster, of all addresses of its nodes, those in the mesh included, and of
// this node's.
func NewAddresses(pods []netip.Prefix, nodes, own []netip.Addr) Addresses {
	a := Addresses{pods: map[netip.Prefix]struct{}{}, nodes: addressSet(nodes), own: addressSet(own)}
	lengths := map[[2]int]struct{}{}
	for _, p := range pods {
		a.pods[p.Masked()] = struct{}{}
		lengths[[2]int{p.Addr().BitLen(), p.Bits()}] = struct{}{}
	}
	for l := range lengths {
		if l[0] == 32 {
			a.bits4 = append(a.bits4, l[1])
			continue
		}
		a.bits6 = append(a.bits6, l[1])
	}
	return a
}

func addressSet(all []netip.Addr) map[netip.Addr]struct{} {
	out := make(map[netip.Addr]struct{}, len(all))
	for _, a := range all {
		out[a] = struct{}{}
	}
	return out
}

// isPod says whether an address is in a pod CIDR and not a node's.
func (a Addresses) isPod(addr netip.Addr) bool {
	if _, node := a.nodes[addr]; node {
		return false
	}
	lengths := a.bits4
	if addr.Is6() {
		lengths = a.bits6
	}
	for _, bits := range lengths {
		p, err := addr.Prefix(bits)
		if _, pod := a.pods[p]; pod && err == nil {
			return true
		}
	}
	return false
}

// Holder is whose a connection is. What this node itself opened, and what no pod has a part in, is nobody's.
func (a Addresses) Holder(c Connection) (Holder, bool) {
	if _, own := a.own[c.Opener]; own || c.Opener.IsLoopback() {
		return Holder{}, false
	}
	if a.isPod(c.Opener) {
		return Holder{c.Opener, Opens}, true
	}
	if a.isPod(c.Answerer) {
		return Holder{c.Answerer, Answers}, true
	}
	return Holder{}, false
}
