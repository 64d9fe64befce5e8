package gossip

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
)

// seed is where one member may be found.
func seed(name string, addr netip.AddrPort) map[string][]netip.AddrPort {
	return map[string][]netip.AddrPort{name: {addr}}
}

// TestManyAddressesAreNoMoreTries: a node of which many addresses are told is looked for as often as the others, and one
// that lives is not looked for.
func TestManyAddressesAreNoMoreTries(t *testing.T) {
	at := func(host int) netip.AddrPort {
		return netip.AddrPortFrom(netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", host)), testPort)
	}
	r := &roster{
		known: map[string]entry{"alive": {at(1), true}, "dead": {at(2), false}},
		seeds: map[string][]netip.AddrPort{"liar": {at(1)}, "lost": {at(3)}, "alive": nil},
	}
	for host := 10; host < 250; host++ {
		r.seeds["liar"] = append(r.seeds["liar"], at(host))
		r.seeds["alive"] = append(r.seeds["alive"], at(host))
	}
	for range 100 {
		got := draw(r.lost())
		if len(got) != 3 || !slices.Contains(got, at(2)) || !slices.Contains(got, at(3)) || slices.Contains(got, at(1)) {
			t.Fatalf("tries %v, want %s, %s and one of the liar's", got, at(2), at(3))
		}
	}
}
