package matrix

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/kithnet/kith/identity"
)

// Group is ends of one namespace and with the same labels that no policy can tell apart.
type Group struct {
	Name string // of its only member, or what the names begin with and a *
	Ends []End
}

// Groups puts ends together. others are the ends at the other side: where all of them are pods, the nodes do not
// matter.
func (m *Matrix) Groups(ends, others []End) []Group {
	withNodes := slices.ContainsFunc(others, func(e End) bool {
		return slices.ContainsFunc(e.Addresses, func(a netip.Addr) bool { return m.side(a).pod == nil })
	})
	index := map[string]int{}
	var out []Group
	for _, e := range ends {
		key := e.Namespace + " " + identity.MakeLabels(e.Labels).String()
		for _, a := range e.Addresses {
			s := m.side(a)
			key += " " + family(a) + strconv.Itoa(s.kind)
			if withNodes {
				key += "@" + strconv.Itoa(s.node)
			}
		}
		i, known := index[key]
		if !known {
			i = len(out)
			index[key] = i
			out = append(out, Group{})
		}
		out[i].Ends = append(out[i].Ends, e)
	}
	for i := range out {
		out[i].Name = groupName(out[i].Ends)
	}
	return out
}

func groupName(ends []End) string {
	name := ends[0].Name
	if len(ends) == 1 {
		return name
	}
	for _, e := range ends[1:] {
		for !strings.HasPrefix(e.Name, name) {
			name = name[:len(name)-1]
		}
	}
	return name + "*"
}
