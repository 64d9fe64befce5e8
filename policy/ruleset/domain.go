package ruleset

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/kithnet/kith/policy"
)

// The sets of a domain, by the beginning of their name: the domain itself follows, without the asterisk of a wildcard.
// Their keys are a pod's address and one that it was told. What they hold comes and goes without the compiler: it is no
// part of a ruleset as a value.
const (
	setTold4 = "told4_" // what answers say, as long as they are good
	setTold6 = "told6_"
	setHeld4 = "held4_" // where connections are open; HeldFor counts from their last packet
	setHeld6 = "held6_"
)

// What sets of domains hold at most, and for how long.
const (
	LearnedSize = 65535
	HeldFor     = "1h"
)

func domainSets() []string { return []string{setTold4, setTold6, setHeld4, setHeld6} }

func domainSet(kind string, d policy.Domain) string { return kind + strings.TrimPrefix(string(d), "*") }

// learnedSpec is the specification of a domain's set by its name.
func learnedSpec(name string) (SetSpec, bool) {
	for i, kind := range domainSets() {
		if strings.HasPrefix(name, kind) {
			t := [...]Type{TypeIPv4Addr, TypeIPv6Addr}[i%2]
			return SetSpec{Name: name, Key: []Type{t, t}, Learned: true}, true
		}
	}
	return SetSpec{}, false
}

// Told is the element for what a pod was told: that the domain has an address. Both addresses are of one family.
func Told(d policy.Domain, pod, address netip.Addr) ElementChange {
	return ElementChange{Set: domainSet(byFamily(address, setTold4, setTold6), d), Key: exactKey(addrPart(pod), addrPart(address))}
}

// Lessons are the elements for answers, in the sets of those who listen.
func (c *Compiler) Lessons(answers []policy.Answer) []ElementChange {
	var out []ElementChange
	listeners := c.Listeners()
	for _, a := range c.attachments {
		for _, answer := range answers {
			if answer.Pod == a.Pod && len(a.Addresses) > 0 {
				out = append(out, listeners[a.Addresses[0]].Lessons(answer.Name, answer.Address)...)
			}
		}
	}
	return out
}

// Listener is a pod of this node whose policies name domains.
type Listener struct {
	Interface string // tells a pod from the next one at its address
	Addresses []netip.Addr
	Domains   []policy.Domain // sorted
}

// Lessons are the elements for what a listener was told by an answer, for all its addresses that could use it.
func (l Listener) Lessons(name policy.Domain, address netip.Addr) []ElementChange {
	var out []ElementChange
	for _, d := range l.Domains {
		for _, own := range l.Addresses {
			if d.Matches(name) && own.Is4() == address.Is4() {
				out = append(out, Told(d, own, address))
			}
		}
	}
	return out
}

// Listeners are the pods whose name servers' answers matter, by each of their addresses.
func (c *Compiler) Listeners() map[netip.Addr]Listener {
	c.settle()
	out := map[netip.Addr]Listener{}
	if len(c.domains) == 0 {
		return out
	}
	for _, a := range c.attachments {
		l := Listener{Interface: a.Interface, Addresses: a.Addresses, Domains: slices.Compact(slices.Sorted(slices.Values(append(a.egress.admin.domains(), a.egress.rest.domains()...))))}
		if len(l.Domains) == 0 {
			continue
		}
		for _, address := range a.Addresses {
			if c.claims[address][0] == a.Interface {
				out[address] = l
			}
		}
	}
	return out
}

// domains are all that the chain's policies name.
func (ch *chain) domains() (out []policy.Domain) {
	if ch == nil {
		return nil
	}
	for _, x := range ch.contents {
		out = slices.AppendSeq(out, maps.Keys(x.domains()))
	}
	return out
}

// domainRule matches some ports of what domains stand for.
type domainRule struct {
	domains []policy.Domain
	ports   string // the list of ports; empty: all
}

// ruleDomains takes the peers of a rule that are domain names.
func (b *builder) ruleDomains(peers []policy.Peer, ports ports) {
	var r domainRule
	for _, p := range peers {
		r.domains = append(r.domains, p.Domains...)
	}
	if len(r.domains) == 0 || !ports.all && len(ports.ranges) == 0 {
		return
	}
	if !ports.all {
		r.ports = b.ports(ports.ranges)
	}
	b.byName = append(b.byName, r)
}

// domains are those that the content's rules name.
func (x *content) domains() map[policy.Domain]struct{} {
	out := map[policy.Domain]struct{}{}
	for _, r := range x.byName {
		for _, d := range r.domains {
			out[d] = struct{}{}
		}
	}
	return out
}

// learn makes the sets of the domains that a content is the first to name.
func (c *Compiler) learn(x *content) {
	for d := range x.domains() {
		if c.domains[d]++; c.domains[d] > 1 {
			continue
		}
		for _, kind := range domainSets() {
			spec, _ := learnedSpec(domainSet(kind, d))
			c.want.putSet(spec)
		}
	}
}

// forget deletes the sets of the domains that a content is the last to name.
func (c *Compiler) forget(x *content) {
	for d := range x.domains() {
		if c.domains[d]--; c.domains[d] > 0 {
			continue
		}
		delete(c.domains, d)
		for _, kind := range domainSets() {
			c.want.deleteSet(domainSet(kind, d))
		}
	}
}

// rules accepts what the subject was told, and goes on accepting what is open: "When the TTL for a DNS record expires, the
// implementor should stop allowing new connections to that IP. Existing connection will still be allowed."
//
// A rule ends where its Update finds the set full, so what the subject was told is remembered by a rule of its own: a full
// set costs connections what comes after the TTL, and denies nothing before. To refresh what is held needs no room.
func (r domainRule) rules(x *content) []Rule {
	ports := [][]Expr{nil}
	if r.ports != "" {
		ports = [][]Expr{
			{Direction{Original}, isIn(r.ports, DestinationPort, L4Proto)},
			{Direction{Reply}, isIn(r.ports, SourcePort, L4Proto)},
		}
	}
	var rs []Rule
	for _, d := range r.domains {
		for _, f := range []struct {
			told, held string
			pair       []Field
		}{{setTold4, setHeld4, []Field{OriginalSource, ReplySource}}, {setTold6, setHeld6, []Field{OriginalSource6, ReplySource6}}} {
			told, held := isIn(domainSet(f.told, d), f.pair...), isIn(domainSet(f.held, d), f.pair...)
			again := Update{f.pair, held.Set}
			for _, p := range ports {
				rs = append(rs,
					x.act(slices.Concat([]Expr{State{StateEstablished}, held}, p, []Expr{again})...),
					rule(slices.Concat([]Expr{told}, p, []Expr{again})...),
					x.act(slices.Concat([]Expr{told}, p)...))
			}
		}
	}
	return rs
}
