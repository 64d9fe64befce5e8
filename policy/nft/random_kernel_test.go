//go:build kernel

package nft

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
	"k8s.io/apimachinery/pkg/labels"
)

// chance makes small clusters at random.
type chance struct{ *rand.Rand }

func (r chance) one(percent int) bool { return r.IntN(100) < percent }

func pick[T any](r chance, from ...T) T { return from[r.IntN(len(from))] }

// cluster gives the lab's pods labels and named ports, and policies. Of some remote pods nobody has heard yet.
func (r chance) cluster(l *lab) policy.Cluster {
	c := l.cluster()
	c.Pods = slices.DeleteFunc(c.Pods, func(p identity.Pod) bool { return !l.local(p.Addresses[0]) && r.one(20) })
	for i := range c.Pods {
		p := &c.Pods[i]
		p.Labels = map[string]string{"app": pick(r, "a", "b", "c")}
		if r.one(50) {
			p.Labels["role"] = pick(r, "x", "y")
		}
		for _, name := range []string{"web", "api"} {
			p.Ports = append(p.Ports, identity.NamedPort{Name: name, Protocol: r.protocol(), Number: pick(r, ports...)})
		}
	}
	for i := range 1 + r.IntN(7) {
		c.Policies = append(c.Policies, r.policy(fmt.Sprintf("policy%d", i)))
	}
	for range r.IntN(30) {
		e := pick(r, l.ends()...)
		c.Answers = append(c.Answers, policy.Answer{Pod: pick(r, c.Pods...).Key(), Name: pick[policy.Domain](r, "a.example", "b.a.example"), Address: pick(r, e.addresses...)})
	}
	return c
}

func (r chance) protocol() identity.Protocol {
	return pick(r, identity.TCP, identity.TCP, identity.UDP, identity.SCTP)
}

func (r chance) policy(name string) policy.Policy {
	p := policy.Policy{Namespace: pick(r, "even", "odd"), Name: name, Subject: r.selector("app", "a", "b", "c")}
	if r.one(60) {
		p.Namespace, p.Namespaces = "", r.selector("team", "even", "odd")
		p.Tier, p.Priority = pick(r, policy.Admin, policy.Baseline), int32(r.IntN(3))
	}
	if r.one(70) {
		p.Ingress = r.rules(p.Tier, policy.Ingress)
	}
	if p.Ingress == nil || r.one(40) {
		p.Egress = r.rules(p.Tier, policy.Egress)
	}
	return p
}

func (r chance) rules(t policy.Tier, d policy.Direction) *policy.Rules {
	var rules policy.Rules
	for range r.IntN(4) {
		rule := policy.Rule{AllPeers: r.one(20), AllPorts: r.one(35)}
		if t != policy.NetworkPolicy {
			rule.Action = pick(r, policy.Accept, policy.Deny, policy.Pass)
		}
		for range 1 + r.IntN(2) {
			rule.Peers = append(rule.Peers, r.peer(t))
			rule.Ports = append(rule.Ports, r.port())
		}
		if rule.Action == policy.Accept && d == policy.Egress && t != policy.NetworkPolicy && r.one(50) {
			rule.Peers = append(rule.Peers, policy.Peer{Domains: []policy.Domain{pick[policy.Domain](r, "a.example", "*.a.example", "*.example")}})
		}
		r.lengthen(&rule)
		rules = append(rules, rule)
	}
	if len(rules) > 0 && r.one(10) {
		for range 8 {
			rule := pick(r, rules...)
			rule.AllPorts, rule.Ports = false, nil
			for range 6 {
				first := pick(r, ports...) + uint16(r.IntN(6))
				rule.Ports = append(rule.Ports, policy.Port{Protocol: r.protocol(), First: first, Last: first + uint16(r.IntN(2))})
			}
			rules = append(rules, rule)
		}
	}
	return &rules
}

// lengthen makes some rules long: of ports, networks and holes more than are entered with each other.
func (r chance) lengthen(rule *policy.Rule) {
	if r.one(10) {
		for i := range uint16(10) {
			first := pick(r, ports...) + 2*i
			rule.Ports = append(rule.Ports, policy.Port{Protocol: r.protocol(), First: first, Last: first + uint16(r.IntN(2))})
		}
	}
	if r.one(10) {
		for range pick(r, 50, 700) {
			a := netip.AddrFrom4(pick(r, [4]byte{10, 244, byte(1 + r.IntN(2)), byte(r.IntN(16))}, [4]byte{192, 0, 2, byte(r.IntN(8))}, [4]byte{198, 18, byte(r.IntN(256)), byte(r.IntN(256))}))
			rule.Peers = append(rule.Peers, policy.Peer{Block: &policy.Block{CIDR: netip.PrefixFrom(a, 32)}})
		}
	}
	if r.one(10) {
		b := &policy.Block{CIDR: netip.MustParsePrefix("0.0.0.0/0")}
		for range 50 {
			b.Except = append(b.Except, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(1 + r.IntN(2)), byte(r.IntN(16))}), 32))
		}
		rule.Peers = append(rule.Peers, policy.Peer{Block: b})
	}
}

func (r chance) selector(key string, values ...string) labels.Selector {
	switch r.IntN(4) {
	case 0:
		return labels.Everything()
	case 1:
		return parse(fmt.Sprintf("%s notin (%s)", key, pick(r, values...)))
	}
	return parse(key + "=" + pick(r, values...))
}

func parse(s string) labels.Selector {
	selector, err := labels.Parse(s)
	if err != nil {
		panic(err)
	}
	return selector
}

func (r chance) peer(t policy.Tier) policy.Peer {
	switch r.IntN(5) {
	case 0:
		if t != policy.NetworkPolicy {
			return policy.Peer{Nodes: r.selector("node", "own", "remote")}
		}
		return policy.Peer{OwnNamespace: true, Pods: r.selector("role", "x", "y")}
	case 1:
		return policy.Peer{Namespaces: r.selector("team", "even", "odd"), Pods: labels.Everything()}
	case 2:
		return policy.Peer{Namespaces: r.selector("team", "even", "odd"), Pods: r.selector("app", "a", "b", "c")}
	}
	return policy.Peer{Block: r.block()}
}

func (r chance) block() *policy.Block {
	b := &policy.Block{CIDR: netip.MustParsePrefix(pick(r, "0.0.0.0/0", "10.244.0.0/16", "10.244.2.0/24", "10.244.1.8/29", "192.0.2.0/24", "::/0", "fd00::/16", "fd00:2::/64", "2001:db8::/32"))}
	for range r.IntN(3) {
		except := netip.MustParsePrefix(pick(r, "10.244.1.8/30", "10.244.2.11/32", "192.0.2.128/25", "192.0.2.2/32", "10.244.2.1/32", "fd00:1::/112", "fd00:2::10/128", "2001:db8::/64"))
		if except.Addr().Is4() == b.CIDR.Addr().Is4() && b.CIDR.Contains(except.Addr()) && except.Bits() > b.CIDR.Bits() {
			b.Except = append(b.Except, except)
		}
	}
	return b
}

func (r chance) port() policy.Port {
	protocol := r.protocol()
	switch r.IntN(4) {
	case 0:
		return policy.Port{Protocol: protocol, Name: pick(r, "web", "api")}
	case 1:
		return policy.Port{Protocol: protocol, First: 0, Last: 65535}
	case 2:
		first := pick(r, ports...)
		return policy.Port{Protocol: protocol, First: first, Last: first + uint16(r.IntN(3000))}
	}
	n := pick(r, ports...)
	return policy.Port{Protocol: protocol, First: n, Last: n}
}

// flows are connections between ends of which one at least is a pod of this node.
func (r chance) flows(l *lab, count int) []flow {
	ends := l.ends()
	var out []flow
	for len(out) < count {
		from, to := pick(r, ends...), pick(r, ends...)
		family := r.IntN(2)
		f := flow{from: from, to: to, Flow: policy.Flow{
			Source: r.address(from, family), Destination: r.address(to, family),
			Protocol: pick(r, identity.TCP, identity.TCP, identity.UDP, identity.UDP, identity.SCTP, icmp), Port: pick(r, ports...),
		}}
		if f.Protocol == icmp && family == 1 {
			f.Protocol = icmp6
		}
		if f.Protocol == icmp || f.Protocol == icmp6 {
			f.Port = 0
		}
		if from.ns == l.outside.ns && l.local(f.Destination) {
			// Pods have no addresses outside: what comes from there comes to a port of the node.
			f.Protocol, f.Port = pick(r, identity.TCP, identity.UDP), pick(r, ports...)
			f.by = l.nodePort(f.Destination, f.Port)
		}
		if from.ns != to.ns && (l.local(f.Source) || l.local(f.Destination)) {
			out = append(out, f)
		}
	}
	return out
}

// address is one of an end's addresses of a family; they alternate.
func (r chance) address(e end, family int) netip.Addr {
	return e.addresses[2*r.IntN(len(e.addresses)/2)+family]
}
