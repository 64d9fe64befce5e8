package manifest

import (
	"fmt"
	"hash/maphash"
	"net/netip"
	"slices"

	"go.yaml.in/yaml/v3"
	networkingv1 "k8s.io/api/networking/v1"
)

// strict refuses what the API server does not take, though an agent that finds it would: older API servers did.
func (r *reader) strict(at place, o *networkingv1.NetworkPolicy) {
	s := o.Spec
	if n := len(s.PolicyTypes); n > 2 {
		r.fail(at, "spec.policyTypes", fmt.Sprintf("has %d entries, at most 2", n))
	}
	for _, d := range []struct {
		direction networkingv1.PolicyType
		rules     int
	}{{networkingv1.PolicyTypeIngress, len(s.Ingress)}, {networkingv1.PolicyTypeEgress, len(s.Egress)}} {
		if d.rules > 0 && len(s.PolicyTypes) > 0 && !slices.Contains(s.PolicyTypes, d.direction) {
			r.idleRules = append(r.idleRules, fmt.Sprintf("%s of %s/%s", d.direction, o.Namespace, o.Name))
		}
	}
	for i, rule := range s.Ingress {
		r.strictPeers(at, fmt.Sprintf("spec.ingress[%d].from", i), rule.From)
	}
	for i, rule := range s.Egress {
		r.strictPeers(at, fmt.Sprintf("spec.egress[%d].to", i), rule.To)
	}
}

func (r *reader) strictPeers(at place, field string, peers []networkingv1.NetworkPolicyPeer) {
	for i, p := range peers {
		if p.IPBlock == nil {
			continue
		}
		field := fmt.Sprintf("%s[%d].ipBlock", field, i)
		whole := r.strictPrefix(at, field+".cidr", p.IPBlock.CIDR)
		for j, e := range p.IPBlock.Except {
			field := fmt.Sprintf("%s.except[%d]", field, j)
			if except := r.strictPrefix(at, field, e); except.IsValid() && except == whole {
				r.fail(at, field, fmt.Sprintf("%s is the whole of cidr: name a part of it, or leave the ipBlock out", e))
			}
		}
	}
}

// strictPrefix is a range of addresses, refused if it has bits behind its length. What is no range the translation refuses.
func (r *reader) strictPrefix(at place, field, s string) netip.Prefix {
	p, err := netip.ParsePrefix(s)
	if err == nil && p != p.Masked() {
		r.fail(at, field, fmt.Sprintf("%s would be all of %s: write that, or %s for the one address", s, p.Masked(), netip.PrefixFrom(p.Addr(), p.Addr().BitLen())))
	}
	return p.Masked()
}

// seenObject is where an object stands, and what is in it.
type seenObject struct {
	where  string
	digest uint64
}

// digest is that of an object as it is written, whatever its order and its layout. Aliases are not followed: a small text
// can stand for a very large one.
func digest(seed maphash.Seed, node *yaml.Node) uint64 {
	sum := maphash.Comparable(seed, [2]string{node.Tag, node.Value})
	if node.Kind != yaml.MappingNode {
		for _, n := range node.Content {
			sum = maphash.Comparable(seed, [2]uint64{sum, digest(seed, n)})
		}
		return sum
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		sum += maphash.Comparable(seed, [2]uint64{digest(seed, node.Content[i]), digest(seed, node.Content[i+1])})
	}
	return sum
}
