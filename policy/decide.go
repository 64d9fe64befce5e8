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
	Answers    []Answer // what domain names stand for: without any, rules that name domains match nothing
}

// Flow is a connection as its real ends see it: behind every Service, and before the source is masqueraded.
type Flow struct {
	Source, Destination netip.Addr
	Protocol            identity.Protocol
	Port                uint16 // the destination's; protocols without ports: 0
	// Hairpin says that the source asked a Service, which led to Destination. It matters where both ends are one pod:
	// what a pod sends to its own address does not leave it.
	Hairpin bool
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
	Tier      string // of the policies that decided: Admin, NetworkPolicy or Baseline; empty when none did
	Policy    Name   // the policy whose rule decided; none when no rule did
	Rule      int    // the index of that rule
	Reason    string // for people: also which rules passed the flow to the next tier
}

// Decide is the specification: what must happen to a flow.
//
// "For a connection from a source pod to a destination pod to be allowed, both the egress policy on the source pod
// and the ingress policy on the destination pod need to allow the connection."
func Decide(c Cluster, f Flow) Verdict {
	f.Source = c.shown(f.Source, f.Destination)
	src, dst := c.podAt(f.Source), c.podAt(f.Destination)
	if src != nil && dst != nil && src.Key() == dst.Key() && !f.Hairpin {
		return ownAddress()
	}
	v := Verdict{
		Egress:  c.decide(end{Egress, src, f.Source, dst, f.Destination}, f),
		Ingress: c.decide(end{Ingress, dst, f.Destination, src, f.Source}, f),
	}
	v.Allowed = v.Egress.Allowed && v.Ingress.Allowed
	return v
}

// ownAddress: "A Pod connecting to its own Pod IP is not subject to CNP. A Pod connecting to a Service IP that the service
// proxy load-balances back to the same Pod is subject to ClusterNetworkPolicy."
func ownAddress() Verdict {
	const reason = "what a pod sends to its own address never leaves it: no policy applies"
	return Verdict{
		Allowed: true,
		Egress:  (&Decision{Direction: Egress}).allow(reason),
		Ingress: (&Decision{Direction: Ingress}).allow(reason),
	}
}

// end is a flow seen from one of its ends: the subject, whose policies decide here, and the other.
type end struct {
	direction Direction
	subject   *identity.Pod // nil: not a pod
	address   netip.Addr
	other     *identity.Pod // nil: not a pod
	otherAddr netip.Addr
}

// itself says that a pod talks to itself, through a Service that it serves.
func (e end) itself() bool {
	return e.subject != nil && e.other != nil && e.subject.Key() == e.other.Key()
}

// decide: "Policy tiers are evaluated in the following order: Admin tier, NetworkPolicy tier, Baseline tier. If a given
// connection wasn't allowed or denied by any of the tiers, the default kubernetes policy is applied, which says that all
// pods can communicate with each other."
func (c Cluster) decide(e end, f Flow) Decision {
	d := Decision{Direction: e.direction}
	own := e.subject != nil && c.ownNode(e)
	switch {
	case e.subject == nil:
		return d.allow(fmt.Sprintf("%s is not a pod: no policy applies", e.address))
	case own && e.direction == Ingress:
		// No peer of an ingress rule can select a node, and the kubelet's probes must go on.
		return d.allow("a pod's own node may always reach it")
	}
	if d = c.rules(d, Admin, e, f); d.decided() {
		return d
	}
	// "v1.NetworkPolicy always makes a final decision for selected pods. Further evaluation only happens for Pods not
	// selected by a v1.NetworkPolicy."
	if isolating := c.holding(NetworkPolicy, e); len(isolating) > 0 {
		return c.isolated(d, isolating, e, f)
	}
	if d = c.rules(d, Baseline, e, f); d.decided() {
		return d
	}
	if d.Reason != "" {
		return d.allow(d.Reason + "and no policy after it decides")
	}
	return d.allow(fmt.Sprintf("no policy isolates %s for %s", e.subject.Key(), e.direction))
}

// rules asks the ClusterNetworkPolicies of a tier, "policies with lower priority values" first, each rule by rule: "a
// rule that appears at the top would take the highest precedence". The first that matches decides, or passes the flow
// on.
func (c Cluster) rules(d Decision, t Tier, e end, f Flow) Decision {
	for _, p := range c.holding(t, e) {
		for n, rule := range *p.In(e.direction) {
			matches := c.matchRule(p, rule, e, f)
			if !matches && c.deniesUnknown(rule, e, f) {
				d.Tier, d.Policy, d.Rule = t.String(), p.Key(), n
				d.Reason += describe(p, n, rule, e.direction) + notKnown(e)
				return d
			}
			if !matches {
				if c.maybe(rule, e, f) {
					d.Reason += describe(p, n, rule, e.direction) + " accepts only what its domain names were said to be, "
				}
				continue
			}
			does := describe(p, n, rule, e.direction)
			if rule.Action == Pass {
				// "Skips all further ClusterNetworkPolicy rules in the current tier for the selected traffic, and passes
				// evaluation to the next tier."
				d.Reason += does + " passes it on, "
				return d
			}
			d.Tier, d.Policy, d.Rule, d.Allowed = t.String(), p.Key(), n, rule.Action == Accept
			d.Reason += does + map[Action]string{Accept: " accepts it", Deny: " denies it"}[rule.Action]
			return d
		}
	}
	return d
}

// isolated: "The only allowed connections are those allowed by the rules of some NetworkPolicy that applies to the pod.
// The effects of those lists combine additively."
func (c Cluster) isolated(d Decision, isolating []Policy, e end, f Flow) Decision {
	d.Tier = NetworkPolicy.String()
	switch {
	case e.itself():
		return d.allow(d.Reason + "a pod may always reach itself")
	case c.ownNode(e):
		// "Traffic to and from the node where a Pod is running is always allowed, regardless of the IP address of the Pod
		// or the node."
		return d.allow(d.Reason + "a pod may always reach its own node")
	}
	for _, p := range isolating {
		for n, rule := range *p.In(e.direction) {
			if c.matchRule(p, rule, e, f) {
				d.Policy, d.Rule = p.Key(), n
				return d.allow(d.Reason + describe(p, n, rule, e.direction))
			}
		}
	}
	d.Reason += fmt.Sprintf("%s is isolated for %s by %s and no rule allows it", e.subject.Key(), e.direction, names(isolating))
	return d
}

func (d *Decision) allow(reason string) Decision {
	d.Allowed, d.Reason = true, reason
	return *d
}

func (d Decision) decided() bool { return d.Tier != "" }

// describe names a rule.
func describe(p Policy, n int, r Rule, d Direction) string {
	s := fmt.Sprintf("%s rule %d of %s", d, n, p.Key())
	if p.Tier != NetworkPolicy {
		s = p.Tier.String() + " " + s
	}
	if r.Name != "" {
		s += fmt.Sprintf(" (%s)", r.Name)
	}
	return s
}

// holding is the policies of a tier that hold for the end's subject in its direction, in the order in which they are
// asked. "By default, a pod is non-isolated; all connections are allowed. A pod is isolated if there is any NetworkPolicy
// that both selects the pod and has the direction in its policyTypes."
func (c Cluster) holding(t Tier, e end) []Policy {
	ns, _ := c.namespace(e.subject.Namespace)
	var out []Policy
	for _, p := range c.Policies {
		if p.Tier == t && p.In(e.direction) != nil && p.Selects(ns.Name, ns.LabelSet(), labels.Set(e.subject.Labels)) {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, Policy.Compare)
	return out
}

// ownNode says whether the other end is the node on which the subject runs.
func (c Cluster) ownNode(e end) bool {
	n, ok := c.nodeOf(e.address)
	return ok && e.other == nil && n.has(e.otherAddr)
}

// matchRule: "This rule matches traffic only if the traffic matches at least one item in the from list" and "in the
// ports list"; "if this field is empty or missing, this rule matches all".
func (c Cluster) matchRule(p Policy, r Rule, e end, f Flow) bool {
	peer := r.AllPeers || slices.ContainsFunc(r.Peers, func(peer Peer) bool { return c.matchPeer(p, peer, e) })
	port := r.AllPorts || slices.ContainsFunc(r.Ports, func(port Port) bool { return matchPort(port, e, f) })
	return peer && port
}

// maybe says that a rule that does not match would, had the subject been told that the other end bears one of its names.
func (c Cluster) maybe(r Rule, e end, f Flow) bool {
	return r.NamesDomains() && e.other == nil && (r.AllPorts || slices.ContainsFunc(r.Ports, func(p Port) bool { return matchPort(p, e, f) }))
}

// matchPeer: a selector selects pods, by their own labels and their namespace's; an ipBlock (or network) contains
// addresses, also those of pods; a node's mesh address stands for the node's own. Nodes are matched "on the IPs present in
// the node.Status.Addresses field", and on their mesh addresses. Domain names mean the addresses that
// the subject was told of.
func (c Cluster) matchPeer(p Policy, peer Peer, e end) bool {
	switch {
	case len(peer.Domains) > 0:
		return c.told(e, peer.Domains)
	case peer.Block != nil:
		return peer.Block.Contains(c.behind(e.otherAddr))
	case peer.Nodes != nil:
		return slices.ContainsFunc(c.Nodes, func(n Node) bool {
			return n.has(e.otherAddr) && peer.Nodes.Matches(labels.Set(n.Labels))
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

// behind is an address as blocks see it.
func (c Cluster) behind(a netip.Addr) netip.Addr {
	for _, n := range c.Nodes {
		if slices.Contains(n.Mesh, a) {
			return n.Behind(a)
		}
	}
	return a
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
