package matrix

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
)

// Port is a destination's port.
type Port struct {
	Protocol identity.Protocol
	Number   uint16
}

// Compare orders ports by protocol, then number.
func (p Port) Compare(q Port) int {
	return cmp.Or(cmp.Compare(p.Protocol, q.Protocol), cmp.Compare(p.Number, q.Number))
}

// String is the port as people write it: 80/TCP.
func (p Port) String() string { return fmt.Sprintf("%d/%s", p.Number, p.Protocol) }

// ParsePort reads 80/TCP; without a protocol it is TCP.
func ParsePort(s string) (Port, error) {
	number, protocol, given := strings.Cut(strings.TrimSpace(s), "/")
	p := Port{Protocol: identity.TCP}
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil || n == 0 {
		return Port{}, fmt.Errorf("read port %q: write a number from 1 to 65535 and a protocol, like 80/TCP", s)
	}
	p.Number = uint16(n)
	if !given {
		return p, nil
	}
	for _, known := range []identity.Protocol{identity.TCP, identity.UDP, identity.SCTP} {
		if strings.EqualFold(protocol, known.String()) {
			p.Protocol = known
			return p, nil
		}
	}
	return Port{}, fmt.Errorf("read port %q: its protocol is TCP, UDP or SCTP", s)
}

// Ports are those that the cluster's policies name, in order: of a range the first, for a name the numbers that pods
// give it.
func Ports(c policy.Cluster) []Port {
	found := map[Port]bool{}
	for _, r := range rules(c.Policies) {
		for _, port := range r.Ports {
			for _, n := range numbers(c, port) {
				found[Port{port.Protocol, n}] = true
			}
		}
	}
	return slices.SortedFunc(maps.Keys(found), Port.Compare)
}

func numbers(c policy.Cluster, p policy.Port) []uint16 {
	switch {
	case p.Name == "" && p.First == 0:
		return nil // all of the protocol
	case p.Name == "":
		return []uint16{p.First}
	}
	var out []uint16
	for _, pod := range c.Pods {
		out = append(out, identity.PortNumbers(pod.Ports, p.Protocol, p.Name)...)
	}
	return out
}
