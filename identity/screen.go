package identity

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
)

// Screen decides which of the addresses that pods' statuses name count: those inside the pod CIDRs that the pod's own node
// was granted. A kubelet may make a pod in any namespace with any labels, on its own node, and write any address into its
// status. What was believed stays believed when the node goes: its pods outlive it by a while. It is not safe for
// concurrent use.
type Screen struct {
	homes   map[string][]netip.Prefix // by node
	doubted map[PodKey]Pod            // as they came, those with an address that does not count
}

// NewScreen knows no node, and so believes nobody.
func NewScreen() *Screen { return &Screen{doubted: map[PodKey]Pod{}} }

// Pod returns the pod with the addresses that count.
func (s *Screen) Pod(p Pod) Pod {
	believed := slices.DeleteFunc(slices.Clone(p.Addresses), func(a netip.Addr) bool {
		return !slices.ContainsFunc(s.homes[p.Node], func(home netip.Prefix) bool { return home.Contains(a) })
	})
	if len(believed) == len(p.Addresses) {
		delete(s.doubted, p.Key())
		return p
	}
	s.doubted[p.Key()] = p
	p.Addresses = believed
	return p
}

// Pods returns all pods there are, with the addresses that count.
func (s *Screen) Pods(all []Pod) []Pod {
	clear(s.doubted)
	out := make([]Pod, len(all))
	for i, p := range all {
		out[i] = s.Pod(p)
	}
	return out
}

// Forget forgets a pod.
func (s *Screen) Forget(k PodKey) { delete(s.doubted, k) }

// SetHomes takes the pod CIDRs of all nodes, and returns the pods of which other addresses may count now.
func (s *Screen) SetHomes(homes map[string][]netip.Prefix) []Pod {
	if maps.EqualFunc(s.homes, homes, slices.Equal) {
		return nil
	}
	s.homes = homes
	var out []Pod
	for _, p := range slices.Collect(maps.Values(s.doubted)) {
		out = append(out, s.Pod(p))
	}
	return out
}

// Doubted are the pods on known nodes of which an address does not count, as their statuses name them, by name.
func (s *Screen) Doubted() []Pod {
	var out []Pod
	for _, p := range s.doubted {
		if p.Node == "" || len(s.homes[p.Node]) > 0 {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b Pod) int { return cmp.Compare(a.Key().String(), b.Key().String()) })
	return out
}
