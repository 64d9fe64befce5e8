package ruleset

import (
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
)

// TestProvedIsTheLast: whatever was proved before, the ruleset is that of what is proved now, and the same again is no change.
func TestProvedIsTheLast(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	addrs := addresses("172.18.0.3", "172.18.0.4", "2001:db8::3", "2001:db8::4")
	c := CompilerOf(coffee())
	have := c.Ruleset()
	c.Commit()
	for range 200 {
		var all []Proof
		for range random.IntN(5) {
			all = append(all, Proof{addrs[random.IntN(len(addrs))], []uint16{1280, 1400, 1500}[random.IntN(3)]})
		}
		c.SetProved(all)
		tx := c.Commit()
		fresh := CompilerOf(coffee())
		fresh.SetProved(all)
		want := fresh.Ruleset()
		if got := Diff(c.Ruleset(), want); !got.Empty() {
			t.Fatalf("%v proved: not as if it were the first:\n%s", all, got)
		}
		if tx.Empty() != Diff(have, want).Empty() {
			t.Fatalf("%v proved: a write of\n%s", all, tx)
		}
		have = want
		c.SetProved(all)
		if again := c.Commit(); !again.Empty() {
			t.Fatalf("%v proved twice:\n%s", all, again)
		}
	}
}

// TestSmallerProofCounts: of two nodes that are behind one address, the worse way.
func TestSmallerProofCounts(t *testing.T) {
	shared := netip.MustParseAddr("172.18.0.3")
	for _, all := range [][]Proof{{{shared, 1500}, {shared, 1400}}, {{shared, 1400}, {shared, 1500}}} {
		c := CompilerOf(coffee())
		c.SetProved(all)
		text := c.Ruleset().String()
		if !strings.Contains(text, "0xac120003 : jump proved4_1400") || strings.Contains(text, "1500") {
			t.Errorf("%v:\n%s", all, text)
		}
	}
}
