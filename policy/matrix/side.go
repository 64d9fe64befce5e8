package matrix

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
)

// side is an address as policies see it. Sides of one kind differ only in the node they belong to.
type side struct {
	pod      *identity.Pod // nil: not a pod
	ofNode   bool          // the address is a node's
	kind     int
	node     int   // the index of the node on which the pod runs, or -1
	policies []int // the indexes of those that select the pod
}

func (s *side) name() string {
	if s.pod == nil {
		return ""
	}
	return s.pod.Name
}

// side finds out about an address, once.
func (m *Matrix) side(a netip.Addr) *side {
	if s := m.sides[a]; s != nil {
		return s
	}
	s := &side{ofNode: m.ofNodes[a], node: m.nodeOf(a)}
	m.sides[a] = s
	p := m.owner[a]
	if p == nil {
		s.kind = m.kind("address " + a.String())
		return s
	}
	ns, known := m.spaces[p.Namespace]
	if !known {
		s.kind = m.kind("address " + a.String())
		return s
	}
	id := identity.New(ns, *p)
	key := id.Key()
	s.pod, s.policies = p, m.selectingPolicies(id)
	s.kind = m.kind("pod " + string(key[:]) + m.inBlocks(a))
	return s
}

// kind numbers the kinds.
func (m *Matrix) kind(name string) int {
	n, known := m.kinds[name]
	if !known {
		n = len(m.kinds)
		m.kinds[name] = n
	}
	return n
}

func (m *Matrix) selectingPolicies(id *identity.Identity) []int {
	found, known := m.selecting[id.Key()]
	if known {
		return found
	}
	for i, p := range m.cluster.Policies {
		if p.Selects(id.Namespace(), id.NamespaceLabels(), id.Labels()) {
			found = append(found, i)
		}
	}
	m.selecting[id.Key()] = found
	return found
}

// inBlocks says which blocks contain an address.
func (m *Matrix) inBlocks(a netip.Addr) string {
	var in []byte
	for i, b := range m.blocks {
		if b.Contains(a) {
			in = binary.AppendUvarint(in, uint64(i))
		}
	}
	return string(in)
}

// blocks are the different ones of all policies.
func blocks(policies []policy.Policy) []policy.Block {
	var out []policy.Block
	seen := map[string]bool{}
	for _, r := range rules(policies) {
		for _, peer := range r.Peers {
			if peer.Block == nil {
				continue
			}
			if name := blockName(*peer.Block); !seen[name] {
				seen[name] = true
				out = append(out, *peer.Block)
			}
		}
	}
	return out
}

// rules are those of both directions of all policies.
func rules(policies []policy.Policy) []policy.Rule {
	var out []policy.Rule
	for _, p := range policies {
		for _, in := range []*policy.Rules{p.Ingress, p.Egress} {
			if in != nil {
				out = append(out, *in...)
			}
		}
	}
	return out
}

func blockName(b policy.Block) string {
	name := b.CIDR.String()
	for _, e := range b.Except {
		name += " " + e.String()
	}
	return name
}

func (m *Matrix) nodeOf(a netip.Addr) int {
	return slices.IndexFunc(m.cluster.Nodes, func(n policy.Node) bool {
		return slices.ContainsFunc(n.PodCIDRs, func(p netip.Prefix) bool { return p.Contains(a) })
	})
}
