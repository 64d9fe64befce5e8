// Package policy is the model of network policy and its specification in Go.
//
// Input: a Cluster, that is pods, namespaces, nodes and policies as values. Decide says what must happen to a Flow and
// why. What the kernel does (policy/ruleset) must always agree with it. The model keeps the API's fine differences
// apart: a zero Rule, Peer or Port allows nothing, and "everything" must be said (AllPeers, AllPorts, a selector).
//
// Out of scope: reading API objects (policy/kube), and how to make a kernel enforce it (policy/ruleset).
package policy

import (
	"net/netip"

	"github.com/kithnet/kith/identity"
	"k8s.io/apimachinery/pkg/labels"
)

// Name names a policy.
type Name struct{ Namespace, Name string }

// String is namespace/name.
func (n Name) String() string { return n.Namespace + "/" + n.Name }

// Policy isolates the pods that Subject selects in its namespace, in each direction that is not nil, and lists what
// they may still do.
type Policy struct {
	Namespace, Name string
	Subject         labels.Selector
	Ingress, Egress *Rules
}

// Key names the policy.
func (p Policy) Key() Name { return Name{p.Namespace, p.Name} }

// In is the policy's rules for a direction, nil when it does not isolate in that direction.
func (p Policy) In(d Direction) *Rules {
	if d == Egress {
		return p.Egress
	}
	return p.Ingress
}

// Direction is the end of a connection at which a policy decides: the receiver's or the sender's.
type Direction uint8

// The directions.
const (
	Ingress Direction = iota
	Egress
)

// String is the direction's name in the API.
func (d Direction) String() string {
	if d == Egress {
		return "egress"
	}
	return "ingress"
}

// Rules are the rules of one direction. None: nothing is allowed.
type Rules []Rule

// Rule allows what one of its Peers and one of its Ports match.
type Rule struct {
	AllPeers bool
	Peers    []Peer
	AllPorts bool // every protocol, also those without ports
	Ports    []Port
}

// Peer is the other end of a connection, either pods or addresses. A selector that is nil selects nothing.
type Peer struct {
	Namespaces   labels.Selector
	OwnNamespace bool // instead of Namespaces: the policy's own
	Pods         labels.Selector
	Block        *Block
}

// Block is a range of addresses with holes.
type Block struct {
	CIDR   netip.Prefix
	Except []netip.Prefix
}

// Port is a range of ports of a protocol, or a named port of the destination pod. All ports are 0 to 65535.
type Port struct {
	Protocol    identity.Protocol
	First, Last uint16
	Name        string // instead of First and Last
}

// Node is a node as policies see it.
type Node struct {
	Name      string
	PodCIDRs  []netip.Prefix
	Addresses []netip.Addr // the addresses of the Node object
	Mesh      []netip.Addr // its own addresses in its pod CIDRs: what it sends into the mesh bears them
}
