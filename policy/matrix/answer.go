package matrix

import (
	"net/netip"
	"slices"

	"github.com/kithnet/kith/policy"
)

// question is a flow but for what no policy can see of it.
type question struct {
	from, to         int // kinds
	fromNode, toNode int
	itself, hairpin  bool
	port             Port
}

// maxAnswers bounds what is remembered, about 100 MB: there are as many questions as pairs of kinds and ports. Cells come
// row by row, so that the newest answers are those that are asked for again.
const maxAnswers = 200_000

// Answers are given about pods of these names, which no pod can have; a cell puts the real ones in.
const (
	sourceName      = "\x01"
	destinationName = "\x02"
)

// plain: where a pod has a node's address, Decide is asked about the whole cluster.
func (m *Matrix) plain(src, dst *side) bool { return m.ambiguous && (src.ofNode || dst.ofNode) }

func (m *Matrix) answer(src, dst *side, f policy.Flow) *policy.Verdict {
	if m.plain(src, dst) {
		v := policy.Decide(m.cluster, f)
		return &v
	}
	q := question{from: src.kind, to: dst.kind, fromNode: -1, toNode: -1, port: Port{f.Protocol, f.Port}}
	q.itself, q.hairpin = src.pod != nil && src.pod == dst.pod, f.Hairpin
	// Between two pods nodes do not matter: a pod's own node is no pod.
	betweenPods := src.pod != nil && dst.pod != nil
	if !betweenPods {
		q.fromNode, q.toNode = src.node, dst.node
	}
	if v := m.answers[q]; v != nil {
		return v
	}
	c := m.part(src, dst, f)
	if !betweenPods {
		c.Nodes = m.nodes(f)
	}
	v := policy.Decide(c, f)
	if len(m.answers) >= m.most {
		clear(m.answers)
	}
	m.answers[q] = &v
	return &v
}

// part is what of the cluster two ends have to do with.
func (m *Matrix) part(src, dst *side, f policy.Flow) policy.Cluster {
	var c policy.Cluster
	add := func(s *side, name string, addresses ...netip.Addr) {
		if s.pod == nil {
			return
		}
		p := *s.pod
		p.Name, p.Addresses = name, addresses
		c.Pods = append(c.Pods, p)
		c.Namespaces = append(c.Namespaces, m.spaces[p.Namespace])
	}
	if src.pod != nil && src.pod == dst.pod {
		add(src, sourceName, f.Source, f.Destination)
	} else {
		add(src, sourceName, f.Source)
		add(dst, destinationName, f.Destination)
	}
	which := slices.Concat(src.policies, dst.policies)
	slices.Sort(which)
	for _, i := range slices.Compact(which) {
		c.Policies = append(c.Policies, m.cluster.Policies[i])
	}
	return c
}

// nodes are those that a flow has to do with: one end is theirs or on them, or one of them shows itself by an address
// of theirs.
func (m *Matrix) nodes(f policy.Flow) []policy.Node {
	near := map[netip.Addr]bool{f.Source: true, f.Destination: true}
	has := func(n policy.Node) bool {
		return slices.ContainsFunc(slices.Concat(n.Addresses, n.Mesh), func(a netip.Addr) bool { return near[a] })
	}
	for _, n := range m.cluster.Nodes {
		if slices.Contains(n.Addresses, f.Source) {
			for _, a := range n.Mesh {
				near[a] = true
			}
		}
	}
	from, to := m.nodeOf(f.Source), m.nodeOf(f.Destination)
	var out []policy.Node
	for i, n := range m.cluster.Nodes {
		if i == from || i == to || has(n) {
			out = append(out, n)
		}
	}
	return out
}
