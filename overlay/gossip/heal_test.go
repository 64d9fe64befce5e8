package gossip

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"
)

// healing says how many members a test has, and whether its limits in time are to be kept: the environment variable
// KITH_MEMBERS gives the number, and a machine of its own.
func healing(t *testing.T, few int) (members int, strict bool) {
	t.Helper()
	text := os.Getenv("KITH_MEMBERS")
	if text == "" {
		return few, false
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 4 || n > 250 {
		t.Fatalf("KITH_MEMBERS=%s: want a number from 4 to 250", text)
	}
	return n, true
}

// startAll starts members at their pace, zero being the real one. Each knows all addresses and keys, as from the list of
// Nodes.
func (c *clique) startAll(count int, pace Intervals) {
	c.t.Helper()
	seeds := map[string][]netip.AddrPort{}
	var names []string
	for n := range count {
		names = append(names, fmt.Sprintf("m%03d", n))
		seeds[names[n]] = []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr(c.addr(n+1)), testPort)}
	}
	var configs []Config
	for n, name := range names {
		config := c.config(name, n+1)
		config.Intervals, config.Judge = pace, newBench(names...)
		configs = append(configs, config)
	}
	for _, config := range configs {
		c.startWith(config).SetSeeds(seeds)
	}
}

// whole waits until every member sees all others alive, and says how long that took.
func (c *clique) whole() time.Duration {
	c.t.Helper()
	begin := time.Now()
	for end := begin.Add(2 * patience); ; time.Sleep(20 * time.Millisecond) {
		missing := 0
		for _, m := range c.members {
			missing += len(c.members) - m.roster.alive()
		}
		if missing == 0 {
			return time.Since(begin)
		}
		if time.Now().After(end) {
			c.t.Fatalf("after %s %d views of %d×%d are missing", time.Since(begin), missing, len(c.members), len(c.members))
		}
	}
}

func within(t *testing.T, what string, took, limit time.Duration, strict bool) {
	t.Helper()
	t.Logf("%s: %s", what, took.Round(10*time.Millisecond))
	if strict && took > limit {
		t.Errorf("%s took %s, more than %s", what, took, limit)
	}
}

// TestMassJoin starts all members at once on a network that loses packets.
func TestMassJoin(t *testing.T) { massJoin(t, 20) }

func massJoin(t *testing.T, few int) {
	t.Helper()
	count, strict := healing(t, few)
	c := newClique(t, 60)
	c.network.lose(0.05)
	c.startAll(count, Intervals{})
	within(t, fmt.Sprintf("full view of %d members", count), c.whole(), 5*time.Second, strict)
}

// TestMemberMovesWhileItLives has a member crash and come back under another address before anybody has missed it. Its
// new claim counts at once, so its tunnel moves; gossip itself takes it for dead first, and then for alive again.
func TestMemberMovesWhileItLives(t *testing.T) {
	t.Parallel()
	c := newClique(t, 62)
	a := c.start("a", 1)
	b := c.start("b", 2)
	c.allSee("ab")
	b.stop()
	moved := c.config("b", 3)
	moved.Record = newPerson("b").record(2, c.addr(3))
	c.startWith(moved)
	becomes(t, "a knows b's new claim", func() bool { return a.epoch("b") == 2 })
	becomes(t, "a sees b alive at its new address", func() bool {
		for _, m := range a.Members() {
			if m.Name == "b" {
				return m.Alive && m.Address.Addr().String() == c.addr(3)
			}
		}
		return false
	})
}
