package ruleset

import (
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
	slices.SortFunc(ps, func(a, b portRange) int {
		if a.protocol != b.protocol {
			return int(a.protocol) - int(b.protocol)
		}
		return int(a.first) - int(b.first)
	})
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

// singles takes the ports out that stand alone: a hash set finds them faster than an interval set.
func singles(ps []portRange) (single, wide []portRange) {
	for _, p := range ps {
		if p.first != p.last {
			wide = append(wide, p)
		}
	}
	wide = mergePorts(wide)
	for _, p := range ps {
		covered := slices.ContainsFunc(wide, func(w portRange) bool {
			return w.protocol == p.protocol && w.first <= p.first && p.last <= w.last
		})
		if !covered {
			single = append(single, p)
		}
	}
	return single, wide
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

// in is the ports that a rule opens towards a destination with this identity.
func (p ports) in(destination *identity.Identity) []portRange {
	out := slices.Clone(p.ranges)
	for _, n := range p.names {
		for _, number := range destination.PortNumbers(n.protocol, n.name) {
			out = append(out, portRange{uint8(n.protocol), number, number})
		}
	}
	return out
}
