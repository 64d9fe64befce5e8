//go:build kernel

package gossip

import (
	"fmt"
	"testing"
	"time"
)

// TestMassJoinOfAHundred is TestMassJoin with as many members as its limit is for.
func TestMassJoinOfAHundred(t *testing.T) { massJoin(t, 100) }

// TestPartitionsOfAnyShapeHeal parts members in several ways for so long that all across are given up.
func TestPartitionsOfAnyShapeHeal(t *testing.T) {
	count, strict := healing(t, 6)
	c := newClique(t, 61)
	c.network.lose(0.02)
	pace := c.config("a", 1).Intervals
	if strict {
		pace = Intervals{}
	}
	c.startAll(count, pace)
	c.whole()
	for shape, side := range map[string]func(n int) int{
		"halves":     func(n int) int { return n % 2 },
		"one alone":  func(n int) int { return min(n, 1) },
		"each alone": func(n int) int { return n },
		"three":      func(n int) int { return n % 3 },
	} {
		for n := range count {
			c.network.part(side(n), c.addr(n+1))
		}
		c.parted(side)
		for n := range count {
			c.network.part(0, c.addr(n+1))
		}
		within(t, shape+": one view after the partition", c.whole(), 30*time.Second, strict)
	}
}

// parted waits until every member has given up all across, or for some minutes: who is alone with many to give up takes
// its time.
func (c *clique) parted(side func(int) int) {
	c.t.Helper()
	sizes := map[int]int{}
	for n := range len(c.members) {
		sizes[side(n)]++
	}
	for end := time.Now().Add(2 * patience); ; time.Sleep(50 * time.Millisecond) {
		left := 0
		for n := range len(c.members) {
			left += c.members[fmt.Sprintf("m%03d", n)].roster.alive() - sizes[side(n)]
		}
		if left == 0 {
			return
		}
		if time.Now().After(end) {
			c.t.Logf("%d views across the partition are left", left)
			return
		}
	}
}
