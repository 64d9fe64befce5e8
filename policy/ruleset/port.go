package ruleset

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
)

// portRange is ports of a protocol, both ends included.
type portRange struct {
	protocol    uint8
	first, last uint16
}

// portName is a named port before it is known whose.
type portName struct {
	protocol identity.Protocol
	name     string
}

// ports is what a rule says about ports.
type ports struct {
	all    bool
	ranges []portRange
	names  []portName // to be looked up in each destination
}

// mergePorts sorts, and joins what overlaps or touches.
func mergePorts(ps []portRange) []portRange {
	slices.SortFunc(ps, comparePorts)
	var out []portRange
	for _, p := range ps {
		if n := len(out); n > 0 && out[n-1].protocol == p.protocol && int(p.first) <= int(out[n-1].last)+1 {
			out[n-1].last = max(out[n-1].last, p.last)
			continue
		}
		out = append(out, p)
	}
	return out
}

// comparePorts orders ports by where they begin.
func comparePorts(a, b portRange) int {
	return cmp.Or(cmp.Compare(a.protocol, b.protocol), cmp.Compare(a.first, b.first))
}

// singles takes the ports out that stand alone, each once: a hash set finds them faster than an interval set.
func singles(ps []portRange) (single, wide []portRange) {
	for _, p := range ps {
		if p.first != p.last {
			wide = append(wide, p)
		}
	}
	wide = mergePorts(wide)
	for _, p := range ps {
		// The one range that may cover p is the last that begins before it.
		i, begins := slices.BinarySearchFunc(wide, p, comparePorts)
		if i--; begins || i >= 0 && wide[i].protocol == p.protocol && p.last <= wide[i].last {
			continue
		}
		if p.first == p.last {
			single = append(single, p)
		}
	}
	slices.SortFunc(single, comparePorts)
	return slices.Compact(single), wide
}

// resolution is what the named ports of some policies mean in one pod.
type resolution map[portName][]uint16

// resolve looks up every port name that rules for incoming connections use.
func resolve(subject *identity.Identity, isolating []policy.Policy) resolution {
	var r resolution
	for _, p := range isolating {
		for _, rule := range *p.Ingress {
			for _, port := range rule.Ports {
				if port.Name != "" {
					if r == nil {
						r = resolution{}
					}
					n := portName{port.Protocol, port.Name}
					r[n] = subject.PortNumbers(n.protocol, n.name)
				}
			}
		}
	}
	return r
}

// String is the resolution in a fixed order. It is part of what a chain's name is a hash of.
func (r resolution) String() string {
	var s []string
	for n, numbers := range r {
		s = append(s, fmt.Sprintf("%d/%s=%d", n.protocol, n.name, numbers))
	}
	slices.Sort(s)
	return strings.Join(s, " ")
}

// rulePorts splits a rule's ports into those known now and the names that each destination resolves itself. A nil
// resolution, as for outgoing connections, resolves nothing.
func rulePorts(r policy.Rule, known resolution) ports {
	out := ports{all: r.AllPorts}
	for _, p := range r.Ports {
		name := portName{p.Protocol, p.Name}
		numbers, resolved := known[name]
		switch {
		case p.Name == "":
			if p.First <= p.Last {
				out.ranges = append(out.ranges, portRange{uint8(p.Protocol), p.First, p.Last})
			}
		case resolved:
			for _, n := range numbers {
				out.ranges = append(out.ranges, portRange{uint8(p.Protocol), n, n})
			}
		default:
			out.names = append(out.names, name)
		}
	}
	return out
}

// nameSet is port names.
type nameSet map[portName]struct{}

func makeNames(names []portName) nameSet {
	if len(names) == 0 {
		return nil
	}
	s := make(nameSet, len(names))
	for _, n := range names {
		s[n] = struct{}{}
	}
	return s
}

// allOf is every port of the protocols of names.
func allOf(names nameSet) []portRange {
	var out []portRange
	for n := range names {
		out = append(out, portRange{uint8(n.protocol), 0, 65535})
	}
	return out
}

// in is the ports that the names stand for in a pod with this identity.
func (s nameSet) in(destination *identity.Identity) []portRange {
	if len(s) == 0 {
		return nil
	}
	var out []portRange
	for _, p := range destination.NamedPorts() {
		if _, ok := s[portName{p.Protocol, p.Name}]; ok {
			out = append(out, portRange{uint8(p.Protocol), p.Number, p.Number})
		}
	}
	return out
}
