package main

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
	"github.com/kithnet/kith/policy/matrix"
	"github.com/kithnet/kith/policy/random"
)

// TestGridIsTheList: whatever sources and destinations are chosen, a mark of the table is what the list says of every
// two pods of its row and column; of a pod and itself only where there are no two.
func TestGridIsTheList(t *testing.T) {
	port := matrix.Port{Protocol: identity.TCP, Number: 80}
	onlyFrom, onlyTo := 0, 0
	for seed := range uint64(150) {
		r := random.New(seed)
		m, all := whole(random.Replicated(r))
		q := question{matrix: m, from: some(r, all), to: some(r, all), ports: []matrix.Port{port}}
		g := newGrid(q, defaultWidth)
		body := g.body(port, newReasons())
		listed := map[[2]string][]matrix.Cell{}
		for c := range q.cells() {
			pair := [2]string{c.From.Name, c.To.Name}
			listed[pair] = append(listed[pair], c)
		}
		for i, row := range g.from {
			for j, column := range g.to {
				if row.Ends[0].Name == column.Ends[0].Name && len(row.Ends)+len(column.Ends) == 3 {
					onlyFrom, onlyTo = onlyFrom+len(row.Ends)-1, onlyTo+len(column.Ends)-1
				}
				for _, pair := range memberPairs(row, column) {
					if want := mark(listed[pair]); body[i][j] != want {
						t.Fatalf("seed %d: %s to %s is %s, but %s to %s is %s", seed, row.Name, column.Name, body[i][j], pair[0], pair[1], want)
					}
				}
			}
		}
	}
	if onlyFrom == 0 || onlyTo == 0 {
		t.Errorf("a pod met its own group %d times as a source, %d times as a destination: too few", onlyTo, onlyFrom)
	}
}

// whole is a cluster's matrix, and its ends: the pods that have their addresses alone, and one outside.
func whole(c policy.Cluster) (*matrix.Matrix, []matrix.End) {
	m := matrix.New(c)
	var all []matrix.End
	for _, p := range c.Pods {
		own := func(a netip.Addr) bool { key, _ := m.Owner(a); return key == p.Key() }
		if !slices.ContainsFunc(p.Addresses, func(a netip.Addr) bool { return !own(a) }) {
			all = append(all, matrix.End{Name: p.Key().String(), Namespace: p.Namespace, Labels: p.Labels, Addresses: p.Addresses})
		}
	}
	return m, append(all, matrix.End{Name: "203.0.113.7", Addresses: []netip.Addr{netip.MustParseAddr("203.0.113.7")}})
}

// some are about half of the ends, in any order.
func some(r *rand.Rand, all []matrix.End) []matrix.End {
	all = slices.Clone(all)
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:1+r.IntN(len(all))]
}

// memberPairs are all of two groups' members: of a pod with itself only where there are no others.
func memberPairs(from, to matrix.Group) [][2]string {
	var two, one [][2]string
	for _, a := range from.Ends {
		for _, b := range to.Ends {
			if a.Name == b.Name {
				one = append(one, [2]string{a.Name, b.Name})
			} else {
				two = append(two, [2]string{a.Name, b.Name})
			}
		}
	}
	if len(two) > 0 {
		return two
	}
	return one
}
