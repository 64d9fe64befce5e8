package random

import (
	"net/netip"

	"github.com/kithnet/kith/policy"
)

// oneIn is how seldom a rule becomes long in each of the ways in which it may.
const oneIn = 20

// lengthen makes some rules long: many ports, many networks, many holes in one. What else they name stays among it.
func (s source) lengthen(r *policy.Rule) {
	if s.IntN(oneIn) == 0 {
		for i := range uint16(1 + s.IntN(30)) {
			first := 60 + 3*i
			r.Ports = append(r.Ports, policy.Port{Protocol: s.protocol(), First: first, Last: first + uint16(s.IntN(3))})
		}
	}
	if s.IntN(oneIn) == 0 {
		for _, p := range s.networks() {
			r.Peers = append(r.Peers, policy.Peer{Block: &policy.Block{CIDR: p}})
		}
	}
	if s.IntN(oneIn) == 0 {
		b := policy.Block{CIDR: netip.MustParsePrefix(pick(s, []string{"0.0.0.0/0", "::/0"}))}
		for _, p := range s.networks() {
			if p.Addr().Is4() == b.CIDR.Addr().Is4() {
				b.Except = append(b.Except, p)
			}
		}
		r.Peers = append(r.Peers, policy.Peer{Block: &b})
	}
}

// multiply adds, now and then, rules like those that are there, each with ports of its own.
func (s source) multiply(rules policy.Rules) *policy.Rules {
	if len(rules) > 0 && s.IntN(oneIn) == 0 {
		for range 3 + s.IntN(12) {
			r := pick(s, rules)
			if r.Ports = nil; len(r.Peers) == 0 || r.AllPorts {
				continue
			}
			for range 5 + s.IntN(5) {
				first := 50 + uint16(s.IntN(50))
				r.Ports = append(r.Ports, policy.Port{Protocol: s.protocol(), First: first, Last: first + uint16(s.IntN(3))})
			}
			rules = append(rules, r)
		}
	}
	return &rules
}

// networks are many small ones among the pods' addresses and the nodes', now and then more than are entered with each port.
func (s source) networks() []netip.Prefix {
	var out []netip.Prefix
	n := 4 + s.IntN(40)
	if s.IntN(8) == 0 {
		n = 600
	}
	for i := range n {
		base := pick(s, []netip.Addr{
			netip.AddrFrom4([4]byte{10, 244, byte(1 + s.IntN(3)), byte(s.IntN(64))}), netip.AddrFrom4([4]byte{172, 18, 0, byte(s.IntN(4))}),
			netip.AddrFrom4([4]byte{198, 18 + byte(i>>8), byte(i), byte(s.IntN(256))}), netip.AddrFrom16([16]byte{0xfd, 0, 0, byte(1 + s.IntN(3)), 15: byte(s.IntN(64))}),
		})
		out = append(out, netip.PrefixFrom(base, base.BitLen()-s.IntN(3)).Masked())
	}
	return out
}
