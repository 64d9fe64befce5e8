package ruleset

import (
	"net/netip"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
)

// attached is an attachment and what of it is in the ruleset.
type attached struct {
	Attachment
	ingress, egress *chain
	elements        []ElementChange
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

// attach brings an attachment up to date. Its pod and the pod's namespace must be known for it to be open.
func (c *Compiler) attach(a *attached) {
	var ingress, egress *chain
	subject := c.table.Match(a.Pod, a.UID)
	if subject != nil {
		ingress, egress = c.acquire(policy.Ingress, subject), c.acquire(policy.Egress, subject)
	}
	c.clear(a)
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
	c.release(a.ingress)
	c.release(a.egress)
	a.ingress, a.egress = nil, nil
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
		if a.ingress == nil && a.egress == nil {
			continue
		}
		es = append(es, subjectElements(a, addr)...)
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
	if a.egress != nil {
		es = append(es, ElementChange{byFamily(addr, mapEgress4, mapEgress6), key, jump(a.egress)})
	}
	if a.ingress != nil {
		es = append(es, ElementChange{byFamily(addr, mapIngress4, mapIngress6), key, jump(a.ingress)})
	}
	return es
}

func jump(ch *chain) Value { return Value{Verdict: Verdict{Kind: Jump, Chain: ch.name}} }
