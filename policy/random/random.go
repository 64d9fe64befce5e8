// Package random makes small clusters and flows for tests: from one seed always the same. The words are few, so that
// selectors, ports and blocks often meet, and every field of a policy is used.
//
// Out of scope: judging the flows.
package random

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
	"k8s.io/apimachinery/pkg/labels"
)

// source makes a cluster of random numbers.
type source struct{ *rand.Rand }

// New is the source for a seed.
func New(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

// Cluster is a random cluster of two or three nodes.
func Cluster(r *rand.Rand) policy.Cluster {
	s := source{r}
	var c policy.Cluster
	for i := range 2 + s.IntN(2) {
		c.Nodes = append(c.Nodes, s.node(i+1))
	}
	for i := range 1 + s.IntN(4) {
		c.Namespaces = append(c.Namespaces, identity.Namespace{Name: fmt.Sprintf("ns%d", i), Labels: s.labels("team", "env")})
	}
	for i := range 2 + s.IntN(10) {
		c.Pods = append(c.Pods, s.pod(c, i))
	}
	for i := range s.IntN(9) {
		c.Policies = append(c.Policies, s.policy(c, i))
	}
	for range s.IntN(12) {
		c.Answers = append(c.Answers, policy.Answer{Pod: pick(s, c.Pods).Key(), Name: pick(s, names()), Address: s.address(c)})
	}
	return c
}

// Replicated is a random cluster in which every pod has a second one like it, at the next addresses.
func Replicated(r *rand.Rand) policy.Cluster {
	c := Cluster(r)
	for _, p := range slices.Clone(c.Pods) {
		p.Name += "-replica"
		p.Addresses = slices.Clone(p.Addresses)
		for i, a := range p.Addresses {
			p.Addresses[i] = a.Next()
		}
		c.Pods = append(c.Pods, p)
	}
	return c
}

// Flow is a random flow of a cluster.
func Flow(r *rand.Rand, c policy.Cluster) policy.Flow {
	s := source{r}
	f := policy.Flow{Source: s.address(c), Destination: s.address(c)}
	for f.Source.Is4() != f.Destination.Is4() || !s.sensible(c, f) {
		f.Source, f.Destination = s.address(c), s.address(c)
	}
	f.Protocol = s.protocol()
	f.Port = pick(s, numbers())
	f.Hairpin = f.Source == f.Destination && s.IntN(2) == 0
	if s.IntN(6) == 0 {
		f.Port = 0
		f.Protocol = 58
		if f.Source.Is4() {
			f.Protocol = 1
		}
	}
	return f
}

// sensible: one end is a pod, and nobody sends from outside to a node. What no pod is known to have is on another node: its
// own knows it.
func (s source) sensible(c policy.Cluster, f policy.Flow) bool {
	source, destination := podHas(c, f.Source), podHas(c, f.Destination)
	if source != destination {
		for _, n := range c.Nodes {
			if nobodyHas(c, n, f.Source) && hosts(n, f.Destination) || nobodyHas(c, n, f.Destination) && hosts(n, f.Source) {
				return false
			}
		}
	}
	return source || destination
}

func podHas(c policy.Cluster, a netip.Addr) bool {
	return slices.ContainsFunc(c.Pods, func(p identity.Pod) bool { return slices.Contains(p.Addresses, a) })
}

func hosts(n policy.Node, a netip.Addr) bool {
	return slices.ContainsFunc(n.PodCIDRs, func(p netip.Prefix) bool { return p.Contains(a) })
}

// nobodyHas says whether an address is one for the node's pods that no pod is known to have.
func nobodyHas(c policy.Cluster, n policy.Node, a netip.Addr) bool {
	return hosts(n, a) && !slices.Contains(n.Mesh, a) && !podHas(c, a)
}

func (s source) node(i int) policy.Node {
	addr := func(format string) netip.Addr { return netip.MustParseAddr(fmt.Sprintf(format, i)) }
	prefix := func(format string) netip.Prefix { return netip.MustParsePrefix(fmt.Sprintf(format, i)) }
	return policy.Node{
		Name:      fmt.Sprintf("node%d", i),
		Labels:    s.labels("zone", "disk"),
		PodCIDRs:  []netip.Prefix{prefix("10.244.%d.0/24"), prefix("fd00:%d::/64")},
		Addresses: []netip.Addr{addr("172.18.0.%d"), addr("fc00::%d")},
		Mesh:      []netip.Addr{addr("10.244.%d.1"), addr("fd00:%d::1")},
	}
}

func (s source) pod(c policy.Cluster, i int) identity.Pod {
	p := identity.Pod{
		Namespace: pick(s, c.Namespaces).Name, Name: fmt.Sprintf("pod%d", i), UID: fmt.Sprint(i),
		Created: time.Unix(int64(1000+s.IntN(3)), 0), Labels: s.labels("app", "role"),
	}
	for range s.IntN(3) {
		p.Ports = append(p.Ports, identity.NamedPort{Name: pick(s, portNames()), Protocol: s.protocol(), Number: pick(s, numbers())})
	}
	// Two pods in sixteen meet at one address: an old one that ended and whose address was given out again.
	node, host := 1+s.IntN(len(c.Nodes)), 16+s.IntN(32)
	if s.IntN(8) > 0 || i == 0 { // somebody must have an address, or there are no flows
		p.Addresses = append(p.Addresses, netip.MustParseAddr(fmt.Sprintf("10.244.%d.%d", node, host)))
	}
	if s.IntN(3) > 0 {
		p.Addresses = append(p.Addresses, netip.MustParseAddr(fmt.Sprintf("fd00:%d::%x", node, host)))
	}
	return p
}

func (s source) address(c policy.Cluster) netip.Addr {
	switch s.IntN(12) {
	case 0:
		return pick(s, outside())
	case 1:
		return pick(s, pick(s, c.Nodes).Mesh)
	case 2:
		return pick(s, pick(s, c.Nodes).Addresses)
	case 3:
		if s.IntN(2) == 0 { // of pods that nobody knows
			return netip.MustParseAddr(fmt.Sprintf(pick(s, []string{"10.244.%d.%d", "fd00:%d::%x"}), 1+s.IntN(len(c.Nodes)), 56+s.IntN(8)))
		}
	}
	if p := pick(s, c.Pods); len(p.Addresses) > 0 {
		return pick(s, p.Addresses)
	}
	return pick(s, outside())
}

// names are what pods ask for: the domains of rules mean some of them.
func names() []policy.Domain {
	return []policy.Domain{"example.com", "a.example.com", "b.a.example.com", "example.org"}
}

func domains() []policy.Domain {
	return []policy.Domain{"example.com", "*.example.com", "a.example.com", "*.a.example.com", "*.org"}
}

func outside() []netip.Addr {
	return []netip.Addr{
		netip.MustParseAddr("203.0.113.7"), netip.MustParseAddr("203.0.113.130"), netip.MustParseAddr("10.9.8.7"),
		netip.MustParseAddr("2001:db8::7"), netip.MustParseAddr("2001:db8::8000:0"),
	}
}

func (s source) policy(c policy.Cluster, i int) policy.Policy {
	p := policy.Policy{Namespace: pick(s, c.Namespaces).Name, Name: fmt.Sprintf("policy%d", i), Subject: s.selector("app", "role")}
	if s.IntN(2) == 0 {
		p.Namespace, p.Namespaces = "", s.selector("team", "env", identity.NameLabel)
		p.Tier, p.Priority = pick(s, []policy.Tier{policy.Admin, policy.Baseline}), int32(s.IntN(3))
	}
	switch s.IntN(3) {
	case 0:
		p.Ingress = s.rules(p.Tier, policy.Ingress)
	case 1:
		p.Egress = s.rules(p.Tier, policy.Egress)
	case 2:
		p.Ingress, p.Egress = s.rules(p.Tier, policy.Ingress), s.rules(p.Tier, policy.Egress)
	}
	return p
}

func (s source) rules(t policy.Tier, d policy.Direction) *policy.Rules {
	var rules policy.Rules
	for range s.IntN(4) {
		r := policy.Rule{AllPeers: s.IntN(6) == 0, AllPorts: s.IntN(3) == 0}
		if t != policy.NetworkPolicy {
			r.Action = pick(s, []policy.Action{policy.Accept, policy.Deny, policy.Pass})
		}
		for range 1 + s.IntN(3) {
			r.Peers = append(r.Peers, s.peer(t))
		}
		if d == policy.Egress && r.Action == policy.Accept && t != policy.NetworkPolicy && s.IntN(2) == 0 {
			r.Peers = append(r.Peers, policy.Peer{Domains: []policy.Domain{pick(s, domains()), pick(s, domains())}})
		}
		for range 1 + s.IntN(3) {
			r.Ports = append(r.Ports, s.port())
		}
		s.lengthen(&r)
		if r.AllPeers {
			r.Peers = nil
		}
		if r.AllPorts {
			r.Ports = nil
		}
		if s.IntN(20) == 0 {
			r = policy.Rule{} // what is left of one that could not be translated
		}
		rules = append(rules, r)
	}
	return s.multiply(rules)
}

// peer is one that a policy of the tier can have: only ClusterNetworkPolicies select nodes.
func (s source) peer(t policy.Tier) policy.Peer {
	switch s.IntN(4) {
	case 0:
		if t != policy.NetworkPolicy {
			return policy.Peer{Nodes: s.selector("zone", "disk")}
		}
		return policy.Peer{OwnNamespace: true, Pods: s.selector("app", "role")}
	case 1:
		return policy.Peer{Namespaces: s.selector("team", "env"), Pods: labels.Everything()}
	case 2:
		return policy.Peer{Namespaces: s.selector("team", "env", identity.NameLabel), Pods: s.selector("app", "role")}
	}
	b := policy.Block{CIDR: netip.MustParsePrefix(pick(s, blocks()))}
	for range s.IntN(3) {
		if e := netip.MustParsePrefix(pick(s, blocks())); b.CIDR.Bits() < e.Bits() && b.CIDR.Contains(e.Addr()) {
			b.Except = append(b.Except, e)
		}
	}
	return policy.Peer{Block: &b}
}

func blocks() []string {
	return []string{
		"0.0.0.0/0", "10.244.0.0/16", "10.244.1.0/24", "10.244.2.16/28", "10.244.1.24/29", "172.18.0.0/16", "172.18.0.2/32",
		"203.0.113.0/24", "203.0.113.128/25", "::/0", "fd00::/16", "fd00:1::/64", "fd00:2::10/124", "2001:db8::/32", "fc00::1/128",
		"10.244.2.1/32",
	}
}

func (s source) port() policy.Port {
	p := policy.Port{Protocol: s.protocol()}
	switch s.IntN(5) {
	case 0:
		p.Last = 65535
	case 1:
		p.First = pick(s, numbers())
		p.Last = p.First + uint16(s.IntN(40))
	case 2:
		p.Name = pick(s, portNames())
	default:
		p.First = pick(s, numbers())
		p.Last = p.First
	}
	return p
}

func (s source) protocol() identity.Protocol {
	return pick(s, []identity.Protocol{identity.TCP, identity.TCP, identity.TCP, identity.UDP, identity.SCTP})
}

func (s source) labels(keys ...string) map[string]string {
	m := map[string]string{}
	for _, k := range keys {
		if v := s.IntN(4); v > 0 {
			m[k] = string(rune('a' + v))
		}
	}
	return m
}

// selector uses every operator.
func (s source) selector(keys ...string) labels.Selector {
	text := ""
	for _, k := range keys {
		v, w := string(rune('b'+s.IntN(3))), string(rune('b'+s.IntN(3)))
		if k == identity.NameLabel {
			v, w = fmt.Sprintf("ns%d", s.IntN(4)), fmt.Sprintf("ns%d", s.IntN(4))
		}
		term := [...]string{"", "", k + "=" + v, k + "!=" + v, k + " in (" + v + "," + w + ")", k + " notin (" + v + "," + w + ")", k, "!" + k}[s.IntN(8)]
		if text != "" && term != "" {
			text += ","
		}
		text += term
	}
	sel, err := labels.Parse(text)
	if err != nil {
		return labels.Nothing()
	}
	return sel
}

func numbers() []uint16 { return []uint16{53, 80, 81, 90, 8080, 8081} }

func portNames() []string { return []string{"http", "dns", "metrics"} }

func pick[T any](s source, from []T) T { return from[s.IntN(len(from))] }
