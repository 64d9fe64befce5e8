package ruleset

import (
	"net/netip"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
)

// attached is an attachment and what of it is in the ruleset.
type attached struct {
	Attachment
	ingress, egress way
	elements        []ElementChange
}

// way is the chains that decide one direction of a pod's traffic. Either may be nil.
type way struct {
	admin *chain
	rest  *chain // of NetworkPolicies, or else of the Baseline tier
}

func (w way) bound() bool { return w.admin != nil || w.rest != nil }

// baseline is the rest where that is the Baseline tier.
func (w way) baseline() *chain {
	if w.rest == nil || w.rest.tier != policy.Baseline {
		return nil
	}
	return w.rest
}

// repin says again who has these addresses. Of several attachments that claim one, the first by name has it.
func (c *Compiler) repin(addresses []netip.Addr) {
	for _, addr := range addresses {
		claims := c.claims[addr]
		if len(claims) == 0 {
			delete(c.claims, addr)
			c.table.Unpin(addr)
			continue
		}
		a := c.attachments[claims[0]]
		c.table.Pin(addr, identity.Pin{Pod: a.Pod, UID: a.UID})
		for _, name := range claims {
			c.dirty.attachments[name] = struct{}{}
		}
	}
}

// attach brings an attachment that was cleared up to date. Its pod and the pod's namespace must be known for it to be open.
func (c *Compiler) attach(a *attached) {
	var ingress, egress way
	subject := c.table.Match(a.Pod, a.UID)
	if subject != nil {
		ingress, egress = c.way(policy.Ingress, subject), c.way(policy.Egress, subject)
	}
	a.ingress, a.egress = ingress, egress
	if subject != nil {
		a.elements = c.attachmentElements(a)
	}
	for _, e := range a.elements {
		c.want.put(e.Set, e.Key, e.Value)
	}
}

// clear takes an attachment out of the ruleset.
func (c *Compiler) clear(a *attached) {
	for _, e := range a.elements {
		c.want.delete(e.Set, e.Key)
	}
	a.elements = nil
	for _, ch := range a.chains() {
		c.release(ch)
	}
	a.ingress, a.egress = way{}, way{}
}

// chains are those that decide the attachment's traffic. Each may be nil.
func (a *attached) chains() []*chain {
	return []*chain{a.ingress.admin, a.ingress.rest, a.egress.admin, a.egress.rest}
}

func (c *Compiler) way(d policy.Direction, subject *identity.Identity) way {
	w := way{c.acquire(policy.Admin, d, subject), c.acquire(policy.NetworkPolicy, d, subject)}
	if w.rest == nil {
		w.rest = c.acquire(policy.Baseline, d, subject)
	}
	return w
}

func (c *Compiler) attachmentElements(a *attached) []ElementChange {
	var own []netip.Addr
	for _, addr := range a.Addresses {
		if c.claims[addr][0] == a.Interface {
			own = append(own, addr)
		}
	}
	if len(own) == 0 {
		return nil
	}
	es := []ElementChange{{Set: SetOpened, Key: interfaceKey(a.Interface)}}
	for _, addr := range own {
		es = append(es, ElementChange{
			Set: byFamily(addr, SetPods4, SetPods6),
			Key: exactKey(interfacePart(a.Interface), macPart(a.MAC), addrPart(addr)),
		})
		if a.ingress.bound() || a.egress.bound() {
			es = append(es, subjectElements(a, addr)...)
		}
		for _, other := range own {
			if other.Is4() == addr.Is4() {
				es = append(es, ElementChange{
					Set: byFamily(addr, setSelf4, setSelf6), Key: exactKey(addrPart(addr), addrPart(other)),
				})
			}
		}
	}
	return es
}

// subjectElements sends a subject's connections to its chains.
func subjectElements(a *attached, addr netip.Addr) []ElementChange {
	key := exactKey(addrPart(addr))
	es := []ElementChange{{Set: byFamily(addr, setSubjects4, setSubjects6), Key: key}}
	for _, m := range []struct {
		four, six string
		chain     *chain
	}{
		{mapAdminEgress4, mapAdminEgress6, a.egress.admin},
		{mapEgress4, mapEgress6, a.egress.rest},
		{mapBaselineEgress4, mapBaselineEgress6, a.egress.baseline()},
		{mapAdminIngress4, mapAdminIngress6, a.ingress.admin},
		{mapIngress4, mapIngress6, a.ingress.rest},
	} {
		if m.chain != nil {
			es = append(es, ElementChange{byFamily(addr, m.four, m.six), key, jump(m.chain)})
		}
	}
	if a.egress.admin != nil || a.egress.baseline() != nil {
		es = append(es, ElementChange{Set: byFamily(addr, setBound4, setBound6), Key: key})
	}
	return es
}

func jump(ch *chain) Value { return Value{Verdict: Verdict{Kind: Jump, Chain: ch.name}} }
