// Package policy is the model of network policy and its specification in Go.
//
// Input: a Cluster, that is pods, namespaces, nodes and policies as values: the NetworkPolicies of the namespaces and
// the ClusterNetworkPolicies of the tiers before and after them. Decide says what must happen to a Flow and why. What
// the kernel does (policy/ruleset) must always agree with it. The model keeps the API's fine differences apart: a zero
// Rule, Peer or Port matches nothing, and "everything" must be said (AllPeers, AllPorts, a selector).
//
// Out of scope: reading API objects (policy/kube), and how to make a kernel enforce it (policy/ruleset).
package policy

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/kithnet/kith/identity"
	"k8s.io/apimachinery/pkg/labels"
)

// Name names a policy. That of a ClusterNetworkPolicy has no namespace.
type Name struct{ Namespace, Name string }

// String is namespace/name, or the name of what has no namespace.
func (n Name) String() string {
	if n.Namespace == "" {
		return n.Name
	}
	return n.Namespace + "/" + n.Name
}

// Policy is a NetworkPolicy or a ClusterNetworkPolicy, as its Tier says. Both hold for subjects, in each direction that
// is not nil. A NetworkPolicy isolates them: what no rule accepts is denied. A ClusterNetworkPolicy says nothing about
// what none of its rules matches.
type Policy struct {
	Tier            Tier
	Priority        int32 // within Admin or Baseline: the lower is asked first
	Namespace, Name string
	Namespaces      labels.Selector // of the subjects, instead of Namespace, in Admin and Baseline
	Subject         labels.Selector // the subjects' own labels
	Ingress, Egress *Rules
}

// Key names the policy.
func (p Policy) Key() Name { return Name{p.Namespace, p.Name} }

// Selects says whether a pod with these labels in a namespace with these is a subject.
func (p Policy) Selects(namespace string, namespaceLabels, pod labels.Labels) bool {
	if p.Tier == NetworkPolicy {
		return p.Namespace == namespace && selects(p.Subject, pod)
	}
	return selects(p.Namespaces, namespaceLabels) && selects(p.Subject, pod)
}

// Compare orders policies as they are asked: tier by tier, by priority, and where that is the same by name. "If two (or
// more) policies in the same tier with the same priority could match a connection, then the implementation can apply
// any of the matching policies"; ours is the same everywhere and always.
func (p Policy) Compare(q Policy) int {
	return cmp.Or(
		cmp.Compare(p.Tier.place(), q.Tier.place()), cmp.Compare(p.Priority, q.Priority),
		strings.Compare(p.Namespace, q.Namespace), strings.Compare(p.Name, q.Name),
	)
}

// Tier is a group of policies that decide together, before or after those of other tiers.
type Tier uint8

// The tiers. They are asked in the order Admin, NetworkPolicy, Baseline.
const (
	NetworkPolicy Tier = iota
	Admin
	Baseline
)

// String is the tier's name in the API.
func (t Tier) String() string { return [...]string{"NetworkPolicy", "Admin", "Baseline"}[t] }

func (t Tier) place() int { return [...]int{1, 0, 2}[t] }

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

// Action is what a rule does with what it matches. Those of a NetworkPolicy only accept.
type Action uint8

// The actions. Accept and Deny are final for their direction, Pass leaves the tier for the next.
const (
	Accept Action = iota
	Deny
	Pass
)

// String is the action's name in the API.
func (a Action) String() string { return [...]string{"Accept", "Deny", "Pass"}[a] }

// Rules are the rules of one direction. The order matters in a ClusterNetworkPolicy.
type Rules []Rule

// Rule acts on what one of its Peers and one of its Ports match.
type Rule struct {
	Name     string // for people; may be empty
	Action   Action
	AllPeers bool
	Peers    []Peer
	AllPorts bool // every protocol, also those without ports
	Ports    []Port
}

// NamesDomains says whether a peer of the rule is domain names.
func (r Rule) NamesDomains() bool {
	return slices.ContainsFunc(r.Peers, func(p Peer) bool { return len(p.Domains) > 0 })
}

// Peer is the other end of a connection: pods, or addresses, or nodes, or domain names. A selector that is nil selects nothing.
type Peer struct {
	Namespaces   labels.Selector
	OwnNamespace bool // instead of Namespaces: the policy's own
	Pods         labels.Selector
	Block        *Block
	Nodes        labels.Selector
	Domains      []Domain // only of egress rules that accept
}

// OfPods says whether the peer selects pods by their labels.
func (p Peer) OfPods() bool { return p.Block == nil && p.Nodes == nil && len(p.Domains) == 0 }

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
	Labels    map[string]string
	PodCIDRs  []netip.Prefix
	Addresses []netip.Addr // the addresses of the Node object
	Mesh      []netip.Addr // its own addresses in its pod CIDRs: what it sends into the mesh bears them
}
