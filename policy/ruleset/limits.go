package ruleset

import (
	"encoding/hex"
	"maps"
	"net/netip"
)

// The chain for the first packet of a connection. What belongs to a connection that the kernel has never comes there.
const makers = "makers"

// The beginnings of the names of chains that hold one limit each. Two that share a chain would share its budget.
const (
	limitPod     = "limit_"         // of a pod of this node, by its interface
	limitOpens   = "limit_opens_"   // of who opens, by the address
	limitAnswers = "limit_answers_" // of who answers
)

// limits are those that are wanted, and what of them is in the ruleset.
type limits struct {
	perPod uint32 // connections that a pod of this node may open in a second; 0: any number
	some   map[Limit]struct{}
	made   limitRules
}

// limitRules are chains with the rate of each, and the elements that send packets there.
type limitRules struct {
	chains   map[string]uint32
	elements map[string]map[Key]Value
}

// limitChains drop what is beyond a limit before anything else judges it. Who answers is asked only of what no pod opened:
// a pod pays for its own connections.
func limitChains() []Chain {
	unless := func(es ...Expr) Rule { return Rule{Exprs: append(es, Verdict{Kind: Return})} }
	return []Chain{{ChainSpec{makers, nil}, []Rule{
		decide(IPSource, mapOpens4), decide(IP6Source, mapOpens6),
		unless(isIn(setCluster4, IPSource), notIn(IPSource, setMeshes4)),
		unless(isIn(setCluster6, IP6Source), notIn(IP6Source, setMeshes6)),
		decide(IPDestination, mapAnswers4), decide(IP6Destination, mapAnswers6),
	}}}
}

// SetRate bounds how many connections each pod of this node may open in a second; 0: any number.
func (c *Compiler) SetRate(perPod uint32) {
	c.dirty.limits = c.dirty.limits || c.limits.perPod != perPod
	c.limits.perPod = perPod
}

// SetLimits makes the limits of single addresses exactly these.
func (c *Compiler) SetLimits(all []Limit) {
	some := make(map[Limit]struct{}, len(all))
	for _, l := range all {
		some[l] = struct{}{}
	}
	c.dirty.limits = c.dirty.limits || !maps.Equal(some, c.limits.some)
	c.limits.some = some
}

// settleLimits makes the chains and elements of limits those that are wanted.
func (c *Compiler) settleLimits() {
	pods := c.limits.perPod > 0 && len(c.dirty.attachments)+len(c.dirty.departed) > 0
	if !pods && !c.dirty.limits {
		return
	}
	want := c.wantedLimits()
	for name, rate := range want.chains {
		if c.limits.made.chains[name] != rate {
			c.want.putChain(Chain{ChainSpec{name, nil}, []Rule{drop(Beyond{PerSecond: rate, Burst: rate})}})
		}
	}
	for _, set := range []string{mapOpens4, mapOpens6, mapAnswers4, mapAnswers6} {
		for k := range c.limits.made.elements[set] {
			if _, still := want.elements[set][k]; !still {
				c.want.delete(set, k)
			}
		}
		for k, v := range want.elements[set] {
			c.want.put(set, k, v)
		}
	}
	for name := range c.limits.made.chains {
		if _, still := want.chains[name]; !still {
			c.want.deleteChain(name)
		}
	}
	c.limits.made = want
}

// wantedLimits are those of all pods, and over them those of single addresses.
func (c *Compiler) wantedLimits() limitRules {
	out := limitRules{map[string]uint32{}, map[string]map[Key]Value{}}
	if c.limits.perPod > 0 {
		for _, a := range c.attachments {
			for _, addr := range a.Addresses {
				if c.claims[addr][0] == a.Interface {
					out.put(byFamily(addr, mapOpens4, mapOpens6), addr, limitPod+a.Interface, c.limits.perPod)
				}
			}
		}
	}
	for l := range c.limits.some {
		name := hex.EncodeToString(l.Address.AsSlice())
		if l.Side == Answers {
			out.put(byFamily(l.Address, mapAnswers4, mapAnswers6), l.Address, limitAnswers+name, l.PerSecond)
			continue
		}
		rate := l.PerSecond
		if c.limits.perPod > 0 {
			rate = min(rate, c.limits.perPod)
		}
		out.put(byFamily(l.Address, mapOpens4, mapOpens6), l.Address, limitOpens+name, rate)
	}
	return out
}

func (r limitRules) put(set string, addr netip.Addr, chain string, rate uint32) {
	if r.elements[set] == nil {
		r.elements[set] = map[Key]Value{}
	}
	if before, twice := r.chains[chain]; twice {
		rate = min(rate, before)
	}
	r.chains[chain] = rate
	r.elements[set][exactKey(addrPart(addr))] = Value{Verdict: Verdict{Kind: Jump, Chain: chain}}
}
