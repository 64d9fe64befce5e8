package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/kithnet/kith/identity"
	"k8s.io/apimachinery/pkg/labels"
)

// Cluster is everything that a decision depends on.
type Cluster struct {
	Pods       []identity.Pod
	Namespaces []identity.Namespace
	Policies   []Policy
	Nodes      []Node
}

// Flow is a connection as its real ends see it: behind every Service, and before the source is masqueraded.
type Flow struct {
	Source, Destination netip.Addr
	Protocol            identity.Protocol
	Port                uint16 // the destination's; protocols without ports: 0
}

// Verdict says whether a flow is allowed, and why. It needs both ends.
type Verdict struct {
	Allowed         bool
	Egress, Ingress Decision
}

// Decision is one end's part of a verdict.
type Decision struct {
	Direction Direction
	Allowed   bool
	Tier      string // "NetworkPolicy", or empty when no policy had to be asked
	Policy    Name   // the policy whose rule allows; none when the flow is denied or no policy isolates
	Rule      int    // the index of that rule
	Reason    string
}

// tierNetworkPolicy is the tier of networking.k8s.io/v1.
const tierNetworkPolicy = "NetworkPolicy"

// Decide is the specification: what must happen to a flow.
//
// "For a connection from a source pod to a destination pod to be allowed, both the egress policy on the source pod
// and the ingress policy on the destination pod need to allow the connection."
func Decide(c Cluster, f Flow) Verdict {
	f.Source = c.shown(f.Source, f.Destination)
	src, dst := c.podAt(f.Source), c.podAt(f.Destination)
	v := Verdict{
		Egress:  Decision{Direction: Egress},
		Ingress: Decision{Direction: Ingress},
	}
	if src != nil && dst != nil && src.Key() == dst.Key() {
		v.Egress.allow("a pod may always reach itself")
		v.Ingress.allow("a pod may always reach itself")
	} else {
		v.Egress = c.decide(end{Egress, src, f.Source, dst, f.Destination}, f)
		v.Ingress = c.decide(end{Ingress, dst, f.Destination, src, f.Source}, f)
	}
	v.Allowed = v.Egress.Allowed && v.Ingress.Allowed
	return v
}

// end is a flow seen from one of its ends: the subject, whose policies decide here, and the other.
type end struct {
	direction Direction
	subject   *identity.Pod // nil: not a pod
	address   netip.Addr
	other     *identity.Pod // nil: not a pod
	otherAddr netip.Addr
}

func (c Cluster) decide(e end, f Flow) Decision {
	d := Decision{Direction: e.direction}
	if e.subject == nil {
		return d.allow(fmt.Sprintf("%s is not a pod: no policy applies", e.address))
	}
	// "Traffic to and from the node where a Pod is running is always allowed, regardless of the IP address of the Pod
	// or the node."
	if n, ok := c.nodeOf(e.address); ok && e.other == nil && n.has(e.otherAddr) {
		return d.allow("a pod and its own node may always reach each other")
	}
	// "By default, a pod is non-isolated; all connections are allowed. A pod is isolated if there is any NetworkPolicy
	// that both selects the pod and has the direction in its policyTypes."
	isolating := c.isolating(*e.subject, e.direction)
	if len(isolating) == 0 {
		return d.allow(fmt.Sprintf("no policy isolates %s for %s", e.subject.Key(), e.direction))
	}
	// "The only allowed connections are those allowed by the rules of some NetworkPolicy that applies to the pod. The
	// effects of those lists combine additively."
	d.Tier = tierNetworkPolicy
	for _, p := range isolating {
		for n, rule := range *p.In(e.direction) {
			if c.matchRule(p, rule, e, f) {
				d.Policy, d.Rule = p.Key(), n
				return d.allow(fmt.Sprintf("%s rule %d of %s", e.direction, n, p.Key()))
			}
		}
	}
	d.Reason = fmt.Sprintf("%s is isolated for %s by %s and no rule allows it", e.subject.Key(), e.direction, names(isolating))
	return d
}

func (d *Decision) allow(reason string) Decision {
	d.Allowed, d.Reason = true, reason
	return *d
}

// isolating is the policies that isolate a pod in a direction, by name.
func (c Cluster) isolating(p identity.Pod, d Direction) []Policy {
	var out []Policy
	for _, pol := range c.Policies {
		if pol.Namespace == p.Namespace && pol.In(d) != nil && selects(pol.Subject, labels.Set(p.Labels)) {
			out = append(out, pol)
		}
	}
	slices.SortFunc(out, func(a, b Policy) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// matchRule: "This rule matches traffic only if the traffic matches at least one item in the from list" and "in the
// ports list"; "if this field is empty or missing, this rule matches all".
func (c Cluster) matchRule(p Policy, r Rule, e end, f Flow) bool {
	peer := r.AllPeers || slices.ContainsFunc(r.Peers, func(peer Peer) bool { return c.matchPeer(p, peer, e) })
	port := r.AllPorts || slices.ContainsFunc(r.Ports, func(port Port) bool { return matchPort(port, e, f) })
	return peer && port
}

// matchPeer: a selector selects pods, by their own labels and their namespace's; an ipBlock contains addresses, also
// those of pods, and a node that it covers it covers under its mesh address too.
func (c Cluster) matchPeer(p Policy, peer Peer, e end) bool {
	if peer.Block != nil {
		return peer.Block.Contains(e.otherAddr) || slices.ContainsFunc(c.Nodes, func(n Node) bool {
			return slices.Contains(n.Mesh, e.otherAddr) && peer.Block.CoversNode(n)
		})
	}
	if e.other == nil || !selects(peer.Pods, labels.Set(e.other.Labels)) {
		return false
	}
	if peer.OwnNamespace {
		return e.other.Namespace == p.Namespace
	}
	ns, ok := c.namespace(e.other.Namespace)
	return ok && selects(peer.Namespaces, ns.LabelSet())
}

// matchPort: a port belongs to the destination, and so does its name, whichever end decides.
func matchPort(p Port, e end, f Flow) bool {
	if p.Protocol != f.Protocol {
		return false
	}
	if p.Name == "" {
		return p.First <= f.Port && f.Port <= p.Last
	}
	dst := e.subject
	if e.direction == Egress {
		dst = e.other
	}
	return dst != nil && slices.Contains(identity.PortNumbers(dst.Ports, p.Protocol, p.Name), f.Port)
}

func selects(s labels.Selector, l labels.Labels) bool { return s != nil && s.Matches(l) }

// podAt is the pod that has an address: the newest of those that claim it. A pod whose namespace is not known is
// nobody.
func (c Cluster) podAt(a netip.Addr) *identity.Pod {
	var found *identity.Pod
	for i, p := range c.Pods {
		if slices.Contains(p.Addresses, a) && (found == nil || p.Newer(*found)) {
			found = &c.Pods[i]
		}
	}
	if found == nil {
		return nil
	}
	if _, ok := c.namespace(found.Namespace); !ok {
		return nil
	}
	return found
}

func (c Cluster) namespace(name string) (identity.Namespace, bool) {
	n := slices.IndexFunc(c.Namespaces, func(n identity.Namespace) bool { return n.Name == name })
	if n < 0 {
		return identity.Namespace{}, false
	}
	return c.Namespaces[n], true
}

// nodeOf is the node on which the pod with an address runs: the one whose pod CIDRs contain it.
func (c Cluster) nodeOf(a netip.Addr) (Node, bool) {
	for _, n := range c.Nodes {
		if slices.ContainsFunc(n.PodCIDRs, func(p netip.Prefix) bool { return p.Contains(a) }) {
			return n, true
		}
	}
	return Node{}, false
}

// shown is the address under which a source shows itself: what a node sends to another node's pods goes through the
// mesh and bears its mesh address.
func (c Cluster) shown(src, dst netip.Addr) netip.Addr {
	to, ok := c.nodeOf(dst)
	if !ok {
		return src
	}
	for _, n := range c.Nodes {
		if n.Name == to.Name || !slices.Contains(n.Addresses, src) {
			continue
		}
		for _, a := range n.Mesh {
			if a.Is4() == dst.Is4() {
				return a
			}
		}
	}
	return src
}

func (n Node) has(a netip.Addr) bool {
	return slices.Contains(n.Addresses, a) || slices.Contains(n.Mesh, a)
}

func names(ps []Policy) string {
	s := make([]string, len(ps))
	for i, p := range ps {
		s[i] = p.Key().String()
	}
	return strings.Join(s, ", ")
}
