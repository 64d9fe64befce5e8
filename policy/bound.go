package policy

import (
	"fmt"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// MaxElements is how many elements a policy may come to where nothing else is configured.
const MaxElements = 1 << 16

// MaxRules is how many rules a direction of a policy may have: one takes three bytes to write, and a hundred to keep.
const MaxRules = 1 << 16

// What a peer counts for that selects: nobody can say how many it will select, and each of them is an element. One that
// demands no label's value selects, more or less, all the cluster.
const (
	perSelector = 64
	perBroad    = 2048
)

// count is about what rules come to in the kernel and in the agent. A network counts one, and one for each hole; a port
// counts one; a domain name and what selects nodes or pods 64, or 2,048 where it demands no value of a label. What is
// selected in the same words again counts nothing, but a rule counts one at least.
type count struct {
	sum  int
	seen map[string]bool
}

// add adds a rule unless the sum would be above the limit. It returns what the rule counts.
func (c *count) add(r Rule, limit int) (n int, ok bool) {
	n = len(r.Ports)
	fresh := map[string]bool{}
	for _, p := range r.Peers {
		switch {
		case p.Block != nil:
			n += 1 + len(p.Block.Except)
		case len(p.Domains) > 0:
			n += perSelector * len(p.Domains)
		default:
			if words := p.words(); !c.seen[words] && !fresh[words] {
				fresh[words] = true
				n += p.weight()
			}
		}
	}
	n = max(n, 1)
	if c.sum+n > limit {
		return n, false
	}
	c.sum += n
	maps.Copy(c.seen, fresh)
	return n, true
}

func (p Peer) words() string {
	return fmt.Sprintf("%t %v / %v / %v", p.OwnNamespace, p.Namespaces, p.Pods, p.Nodes)
}

func (p Peer) weight() int {
	if p.Nodes != nil || p.OwnNamespace || demands(p.Namespaces) || demands(p.Pods) {
		return perSelector
	}
	return perBroad
}

// demands says that what a selector selects has one of a few values of a label.
func demands(s labels.Selector) bool {
	if s == nil {
		return true // and selects nothing
	}
	requirements, _ := s.Requirements()
	return slices.ContainsFunc(requirements, func(r labels.Requirement) bool {
		switch r.Operator() {
		case selection.In, selection.Equals, selection.DoubleEquals:
			return true
		}
		return false
	})
}

// Closed is what stands for a rule that cannot be enforced as it is: one that accepts matches nothing, the others deny all.
func (r Rule) Closed() Rule {
	if r.Action == Accept {
		return Rule{Name: r.Name}
	}
	return Rule{Name: r.Name, Action: Deny, AllPeers: true, AllPorts: true}
}

// Place is where a rule stands in its policy, and what it counts.
type Place struct {
	Direction Direction
	Rule      int
	Elements  int
}

// Bounded closes the rules with which the policy would come to more elements than the limit, those of ingress first. What
// one costs that is closed, the ones behind it have. The policy that it is given stays as it is.
func (p Policy) Bounded(limit int) (bounded Policy, closed []Place) {
	c := count{seen: map[string]bool{}}
	for _, d := range []struct {
		direction Direction
		rules     **Rules
	}{{Ingress, &p.Ingress}, {Egress, &p.Egress}} {
		if *d.rules == nil {
			continue
		}
		rules := slices.Clone(**d.rules)
		*d.rules = &rules
		for i, r := range rules {
			if n, ok := c.add(r, limit); !ok {
				rules[i] = r.Closed()
				closed = append(closed, Place{d.direction, i, n})
			}
		}
	}
	return p, closed
}
