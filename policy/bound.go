package policy

import "slices"

// MaxElements is how many elements a policy may come to where nothing else is configured.
const MaxElements = 1 << 16

// perSelector is what a selector counts for: nobody can say how many it will select, and each has to be tried on every
// pod's labels.
const perSelector = 64

// Elements is about what a rule comes to in the kernel and in the agent. A network counts one, and one for each hole; a port
// counts one; what selects pods or nodes, or names domains, counts 64.
func (r Rule) Elements() int {
	n := len(r.Ports)
	for _, p := range r.Peers {
		if p.Block != nil {
			n += 1 + len(p.Block.Except)
			continue
		}
		n += perSelector * max(1, len(p.Domains))
	}
	return n
}

// Closed is what stands for a rule that cannot be enforced as it is: one that accepts matches nothing, the others deny all.
func (r Rule) Closed() Rule {
	if r.Action == Accept {
		return Rule{Name: r.Name}
	}
	return Rule{Name: r.Name, Action: Deny, AllPeers: true, AllPorts: true}
}

// Place is where a rule stands in its policy.
type Place struct {
	Direction Direction
	Rule      int
}

// Bounded closes the rules with which the policy would come to more elements than the limit, those of ingress first. What
// one costs that is closed, the ones behind it have. The policy that it is given stays as it is.
func (p Policy) Bounded(limit int) (bounded Policy, closed []Place) {
	sum := 0
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
			if n := r.Elements(); sum+n > limit {
				rules[i] = r.Closed()
				closed = append(closed, Place{d.direction, i})
			} else {
				sum += n
			}
		}
	}
	return p, closed
}
