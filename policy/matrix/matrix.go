// Package matrix decides many flows of one cluster: who reaches whom.
//
// Input: a policy.Cluster, ends and ports. Output: a Cell for every pair of ends and every port, with the verdict that
// policy.Decide gives. Invariant: each verdict is, word for word, that of Decide for the same flow. It is asked once
// for all pods that no policy can tell apart, with only those policies, namespaces and nodes that the two ends have to
// do with; so ten thousand pods cost little more than their few hundred kinds.
//
// Out of scope: what a policy means (policy), how a matrix is shown, and what pods were told of domain names: the cluster's
// Answers are not looked at, so that rules that name domains match nothing.
package matrix

import (
	"iter"
	"net/netip"
	"slices"
	"strings"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
)

// End is what can send and receive: a pod, or an address that is no pod's.
type End struct {
	Name      string            // a pod's namespace/name, or the address
	Namespace string            // a pod's
	Labels    map[string]string // a pod's
	Addresses []netip.Addr
	// Twin are the addresses of a second pod like this, where the end stands for several: to itself, the end is asked
	// about with it.
	Twin []netip.Addr
}

// Cell is one question of a matrix and its answer.
type Cell struct {
	From, To *End
	Flow     policy.Flow
	// Family is set where the ends have addresses of both families and the answers differ.
	Family  string
	Allowed bool

	answer   *policy.Verdict
	src, dst string // the names of the pods, without their namespace
}

// Verdict is what policy.Decide says about the flow.
func (c Cell) Verdict() policy.Verdict { return c.VerdictAs(c.src, c.dst) }

// VerdictAs is the same with other names of the two pods in its reasons: those of the groups that they are in.
func (c Cell) VerdictAs(from, to string) policy.Verdict {
	v := *c.answer
	names := strings.NewReplacer(sourceName, from, destinationName, to)
	v.Egress.Reason, v.Ingress.Reason = names.Replace(v.Egress.Reason), names.Replace(v.Ingress.Reason)
	return v
}

// Matrix answers questions about one cluster, which must not change.
type Matrix struct {
	cluster   policy.Cluster
	spaces    map[string]identity.Namespace
	owner     map[netip.Addr]*identity.Pod
	ofNodes   map[netip.Addr]bool // what nodes send from
	ambiguous bool                // a pod has such an address
	blocks    []policy.Block
	kinds     map[string]int
	selecting map[identity.Key][]int // the policies that select an identity
	sides     map[netip.Addr]*side
	answers   map[question]*policy.Verdict
	most      int // answers
}

// New prepares a matrix of a cluster.
func New(c policy.Cluster) *Matrix {
	m := &Matrix{
		cluster: c, spaces: map[string]identity.Namespace{}, owner: map[netip.Addr]*identity.Pod{},
		ofNodes: map[netip.Addr]bool{}, blocks: blocks(c.Policies), kinds: map[string]int{},
		selecting: map[identity.Key][]int{}, sides: map[netip.Addr]*side{}, answers: map[question]*policy.Verdict{}, most: maxAnswers,
	}
	for _, ns := range slices.Backward(c.Namespaces) {
		m.spaces[ns.Name] = ns
	}
	for _, n := range c.Nodes {
		for _, a := range slices.Concat(n.Addresses, n.Mesh) {
			m.ofNodes[a] = true
		}
	}
	for i, p := range c.Pods {
		for _, a := range p.Addresses {
			m.ambiguous = m.ambiguous || m.ofNodes[a]
			if m.owner[a] == nil || p.Newer(*m.owner[a]) {
				m.owner[a] = &c.Pods[i]
			}
		}
	}
	return m
}

// Owner is the pod that an address belongs to, or false.
func (m *Matrix) Owner(a netip.Addr) (identity.PodKey, bool) {
	p := m.owner[a]
	if p == nil {
		return identity.PodKey{}, false
	}
	return p.Key(), true
}

// Cells are the answers for every pair and every port, in the order given. A pair without a common address family has
// none.
func (m *Matrix) Cells(from, to []End, ports []Port) iter.Seq[Cell] {
	return func(yield func(Cell) bool) {
		for i := range from {
			for j := range to {
				for _, p := range ports {
					for _, cell := range m.Between(&from[i], &to[j], p) {
						if !yield(cell) {
							return
						}
					}
				}
			}
		}
	}
}

// Between is the answer for a pair and a port: one cell, two where the address families differ in it, none without a
// common family.
func (m *Matrix) Between(from, to *End, p Port) []Cell {
	var cells []Cell
	for i, src := range from.Addresses {
		if slices.ContainsFunc(from.Addresses[:i], func(a netip.Addr) bool { return a.Is4() == src.Is4() }) {
			continue
		}
		dst, ok := ofFamily(to.Addresses, src)
		if !ok {
			continue
		}
		if src == dst {
			src, dst = apart(from, to, src)
		}
		cells = append(cells, m.cell(from, to, policy.Flow{Source: src, Destination: dst, Protocol: p.Protocol, Port: p.Number}))
	}
	if len(cells) < 2 || cells[0].Allowed == cells[1].Allowed {
		return cells[:min(1, len(cells))]
	}
	for i := range cells {
		cells[i].Family = family(cells[i].Flow.Source)
	}
	return cells
}

// apart are two pods of an end, of which one has an address; without a twin that is both.
func apart(from, to *End, a netip.Addr) (src, dst netip.Addr) {
	if twin, ok := ofFamily(to.Twin, a); ok {
		return a, twin
	}
	if twin, ok := ofFamily(from.Twin, a); ok {
		return twin, a
	}
	return a, a
}

// Hairpin is the cell of a pod that reaches itself by a Service, where the pod's cell to its own address is given and
// its answer differs.
func (m *Matrix) Hairpin(c Cell) (other Cell, ok bool) {
	src, dst := m.side(c.Flow.Source), m.side(c.Flow.Destination)
	if src.pod == nil || src.pod != dst.pod || c.Flow.Hairpin {
		return Cell{}, false
	}
	f := c.Flow
	f.Hairpin = true
	other = m.cell(c.From, c.To, f)
	other.Family = c.Family
	return other, other.Allowed != c.Allowed
}

// ofFamily is the first address of the family that another has.
func ofFamily(all []netip.Addr, other netip.Addr) (netip.Addr, bool) {
	i := slices.IndexFunc(all, func(a netip.Addr) bool { return a.Is4() == other.Is4() })
	if i < 0 {
		return netip.Addr{}, false
	}
	return all[i], true
}

func family(a netip.Addr) string {
	if a.Is4() {
		return "IPv4"
	}
	return "IPv6"
}

func (m *Matrix) cell(from, to *End, f policy.Flow) Cell {
	src, dst := m.side(f.Source), m.side(f.Destination)
	v := m.answer(src, dst, f)
	return Cell{From: from, To: to, Flow: f, Allowed: v.Allowed, answer: v, src: src.name(), dst: dst.name()}
}
