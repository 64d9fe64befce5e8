package gossip

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/kithnet/kith/overlay"
)

const (
	testPort = 17946
	patience = 90 * time.Second
)

// member is one node's gossip on a loopback address of its own.
type member struct {
	*Gossip
	*bench
	addr string
	stop func()
}

// clique is a cluster in one process.
type clique struct {
	t       *testing.T
	network *network
	block   int
	members map[string]*member
}

// newClique takes the loopback addresses 127.BLOCK.0.x.
func newClique(t *testing.T, block int) *clique {
	return &clique{t: t, network: &network{side: make(map[string]int)}, block: block, members: make(map[string]*member)}
}

func (c *clique) addr(number int) string { return fmt.Sprintf("127.%d.0.%d", c.block, number) }

func secret(letter byte) []byte { return bytes.Repeat([]byte{letter}, keyLength) }

func (c *clique) config(name string, number int) Config {
	return Config{
		Name:      name,
		Bind:      netip.AddrPortFrom(netip.MustParseAddr(c.addr(number)), testPort),
		Keys:      [][]byte{secret('s')},
		Record:    newPerson(name).record(1, c.addr(number)),
		Judge:     newBench("a", "b", "c", "d", "e", "f", "g", "h", name),
		Intervals: Intervals{Probe: 200 * time.Millisecond, Gossip: 20 * time.Millisecond, Rejoin: 200 * time.Millisecond},
		Log:       slog.New(slog.DiscardHandler),
	}
}

// start adds a member that knows the address of member 1 alone.
func (c *clique) start(name string, number int) *member {
	c.t.Helper()
	return c.startWith(c.config(name, number))
}

func (c *clique) startWith(config Config) *member {
	c.t.Helper()
	addr := config.Bind.Addr().String()
	config.wrap = func(t memberlist.NodeAwareTransport) memberlist.NodeAwareTransport {
		return &lossy{NodeAwareTransport: t, network: c.network, own: addr}
	}
	g, err := Start(config)
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := g.Run(ctx); err != nil {
			c.t.Errorf("run %s: %v", config.Name, err)
		}
	}()
	m := &member{Gossip: g, bench: config.Judge.(*bench), addr: addr, stop: func() {
		cancel()
		<-done
	}}
	c.t.Cleanup(m.stop)
	g.SetSeeds(seed("first", netip.AddrPortFrom(netip.MustParseAddr(c.addr(1)), testPort)))
	c.members[config.Name] = m
	return m
}

// sees waits until the member's list reads as wanted: names, the dead in brackets.
func (c *clique) sees(m *member, want string) {
	c.t.Helper()
	var got string
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if got = text(m.Members()); got == want {
			return
		}
	}
	c.t.Fatalf("%s sees %q, want %q", m.addr, got, want)
}

func (c *clique) allSee(want string) {
	c.t.Helper()
	for _, m := range c.members {
		c.sees(m, want)
	}
}

func text(members []overlay.Member) string {
	var out []byte
	for _, m := range members {
		if m.Alive {
			out = append(out, m.Name...)
		} else {
			out = append(out, "("+m.Name+")"...)
		}
	}
	return string(out)
}

func TestMembersFindEachOther(t *testing.T) {
	t.Parallel()
	c := newClique(t, 10)
	a := c.start("a", 1)
	c.start("b", 2)
	c.start("c", 3)
	c.allSee("abc")
	for _, m := range a.Members() {
		if want := c.members[m.Name].Addr(); m.Address != want || !want.IsValid() {
			t.Errorf("a knows %s as %+v", m.Name, m)
		}
	}
	select {
	case <-a.Changed():
	default:
		t.Error("members came and nothing changed")
	}
}

func TestMembersFindEachOtherOverALossyNetwork(t *testing.T) {
	t.Parallel()
	c := newClique(t, 11)
	c.network.lose(0.2)
	for i, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		c.start(name, i+1)
	}
	c.allSee("abcdefgh")
}

func TestDeadMemberStaysUntilForgotten(t *testing.T) {
	t.Parallel()
	c := newClique(t, 12)
	a := c.start("a", 1)
	b := c.start("b", 2)
	c.sees(a, "ab")
	a.Forget("b")
	c.sees(a, "ab")
	b.stop()
	delete(c.members, "b")
	c.sees(a, "a(b)")
	a.Forget("b")
	c.sees(a, "a")
}

func TestRestartIsNoLeave(t *testing.T) {
	t.Parallel()
	c := newClique(t, 13)
	a := c.start("a", 1)
	b := c.start("b", 2)
	c.allSee("ab")
	b.stop()
	b = c.start("b", 2)
	c.allSee("ab")
	if got := a.Members(); len(got) != 2 {
		t.Errorf("a sees %v", got)
	}
	b.stop()
	c.sees(a, "a(b)")
	moved := c.config("b", 3)
	moved.Record = newPerson("b").record(2, c.addr(3))
	c.startWith(moved)
	c.allSee("ab")
	if m := a.Members()[1]; m.Address.Addr().String() != c.addr(3) || a.epoch("b") != 2 {
		t.Errorf("a did not learn the new record: %+v", m)
	}
}

func TestRecordSpreads(t *testing.T) {
	t.Parallel()
	c := newClique(t, 14)
	a := c.start("a", 1)
	b := c.start("b", 2)
	c.allSee("ab")
	if err := b.SetRecord(context.Background(), newPerson("b").record(2, b.addr)); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(patience); a.epoch("b") != 2; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("a does not hear of the new record")
		}
	}
	for _, record := range [][]byte{nil, make([]byte, memberlist.MetaMaxSize+1)} {
		if err := b.SetRecord(context.Background(), record); err == nil {
			t.Errorf("a record of %d bytes is no error", len(record))
		}
	}
}

func TestPartitionHeals(t *testing.T) {
	t.Parallel()
	c := newClique(t, 15)
	names := []string{"a", "b", "c", "d"}
	for i, name := range names {
		c.start(name, i+1)
	}
	c.allSee("abcd")
	c.network.part(1, c.addr(3), c.addr(4))
	c.sees(c.members["a"], "ab(c)(d)")
	c.sees(c.members["d"], "(a)(b)cd")
	// memberlist forgets the dead; only what is remembered here finds them again.
	for _, name := range names {
		c.members[name].SetSeeds(nil)
	}
	c.network.part(0, c.addr(3), c.addr(4))
	start := time.Now()
	c.allSee("abcd")
	t.Logf("one view %s after the partition", time.Since(start).Round(time.Millisecond))
}
