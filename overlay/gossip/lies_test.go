package gossip

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/kithnet/kith/overlay"
)

func TestStrangersStayOut(t *testing.T) {
	t.Parallel()
	c := newClique(t, 16)
	a := c.start("a", 1)
	stranger := c.config("b", 2)
	stranger.Keys = [][]byte{secret('x')}
	x := c.startWith(stranger)
	becomes(t, "the stranger is counted, or comes in", func() bool { return a.Strangers() > 0 || len(a.Members()) > 1 })
	if inside, outside := text(a.Members()), text(x.Members()); inside != "a" || outside != "b" {
		t.Errorf("the member sees %q, the stranger %q", inside, outside)
	}
	for _, keys := range [][][]byte{nil, {secret('y')[:16]}, {secret('y'), nil}} {
		short := c.config("c", 3)
		short.Keys = keys
		if _, err := Start(short); err == nil {
			t.Errorf("keys %q are no error", keys)
		}
		if err := a.SetKeys(keys); err == nil {
			t.Errorf("keys %q are taken", keys)
		}
	}
}

// TestNothingIsSaidInClear holds that whoever a member calls hears nothing that is not encrypted.
func TestNothingIsSaidInClear(t *testing.T) {
	t.Parallel()
	c := newClique(t, 44)
	a := c.start("a", 1)
	ear, err := net.Listen("tcp", netip.AddrPortFrom(netip.MustParseAddr(c.addr(2)), testPort).String())
	if err != nil {
		t.Fatal(err)
	}
	defer ear.Close()
	a.SetSeeds(seed("ear", netip.MustParseAddrPort(ear.Addr().String())))
	conn, err := ear.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	said := make([]byte, 4096)
	n, err := io.ReadAtLeast(conn, said, streamHead+sealOverhead)
	if err != nil {
		t.Fatal(err)
	}
	if said[0] != sealedStream || bytes.Contains(said[:n], newPerson("a").record(1, a.addr)[:17]) {
		t.Errorf("said in clear: %q", said[:n])
	}
}

// TestKeysAreRolledWithoutLoss holds that a new key comes in, takes over, and the old one goes, and no member is lost.
func TestKeysAreRolledWithoutLoss(t *testing.T) {
	t.Parallel()
	c := newClique(t, 18)
	names := []string{"a", "b", "c"}
	for i, name := range names {
		c.start(name, i+1)
	}
	c.allSee("abc")
	for step, keys := range [][][]byte{{secret('s'), secret('n')}, {secret('n'), secret('s')}, {secret('n')}} {
		for _, name := range names {
			if err := c.members[name].SetKeys(keys); err != nil {
				t.Fatal(err)
			}
			// Some have the new keys, some do not: everybody still hears everybody.
			epoch := uint64(10*step) + uint64(name[0]-'a') + 2
			for _, other := range names {
				speaker := c.members[other]
				if err := speaker.SetRecord(t.Context(), newPerson(other).record(epoch, speaker.addr)); err != nil {
					t.Fatal(err)
				}
			}
			for _, from := range names {
				for _, to := range names {
					becomes(t, from+" hears "+to, func() bool { return from == to || c.members[from].epoch(to) == epoch })
				}
			}
			c.allSee("abc")
		}
	}
	a := c.members["a"]
	before := a.Strangers()
	late := c.config("d", 4)
	c.startWith(late)
	becomes(t, "the old key is refused, or comes in", func() bool { return a.Strangers() > before || len(a.Members()) != len(names) })
	c.sees(a, "abc")
}

// liar is a member with the cluster's key that says what it likes.
type liar struct {
	*memberlist.Memberlist
	record *announcement
}

func (c *clique) liar(name string, number int, record []byte) *liar {
	c.t.Helper()
	l := &liar{record: &announcement{meta: record}}
	config := memberlist.DefaultLANConfig()
	config.Name, config.BindAddr, config.BindPort, config.AdvertisePort = name, c.addr(number), testPort, testPort
	config.SecretKey = secret('s')
	config.GossipInterval, config.EnableCompression = 20*time.Millisecond, false
	config.LogOutput = discard{}
	config.Delegate = l.record
	var err error
	if l.Memberlist, err = memberlist.Create(config); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { l.Shutdown() })
	return l
}

// TestNoMemberCanLie holds that a member with valid credentials of its own moves nothing of another, and each lie is
// counted.
func TestNoMemberCanLie(t *testing.T) {
	t.Parallel()
	for i, test := range []struct {
		name, as string
		record   func(c *clique, victim, own person) []byte
		cause    overlay.Cause
	}{
		{"another's name", "v", func(c *clique, _, own person) []byte { return own.record(9, c.addr(3)) }, overlay.BadSignature},
		{"another's claim", "l", func(c *clique, v, _ person) []byte { return v.record(9, c.addr(3)) }, overlay.BadSignature},
		{"another's name and claim", "v", func(c *clique, v, _ person) []byte { return v.record(5, c.addr(2)) }, overlay.WrongAddress},
		{"another's key", "l", func(c *clique, v, own person) []byte {
			stolen := own.claim(9, c.addr(3))
			stolen.Keys[0] = v.claim(1, c.addr(2)).Keys[0]
			return own.seal(stolen)
		}, overlay.NotItsKey},
		{"an old epoch", "l", func(c *clique, _, own person) []byte { return own.record(1, c.addr(3)) }, overlay.OldEpoch},
		{"a bent signature", "l", func(c *clique, _, own person) []byte {
			r := own.record(9, c.addr(3))
			r[len(r)-1] ^= 1
			return r
		}, overlay.BadSignature},
		{"nonsense", "l", func(*clique, person, person) []byte { return []byte("not a record") }, overlay.OtherVersion},
		{"nothing", "l", func(*clique, person, person) []byte { return nil }, overlay.OtherVersion},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := newClique(t, 20+i)
			victim, own := newPerson("v"), newPerson("l")
			a, v := c.config("a", 1), c.config("v", 2)
			published := own.node()
			published.Claim = text64(own.record(2, c.addr(3)))
			for _, config := range []*Config{&a, &v} {
				b := newBench()
				b.ledger.SetNodes([]overlay.Node{newPerson("a").node(), victim.node(), published})
				config.Judge = b
			}
			v.Record = victim.record(5, c.addr(2))
			honest := c.startWith(a)
			c.startWith(v)
			c.sees(honest, "av")
			before := fmt.Sprint(honest.ledger.Claims())
			l := c.liar(test.as, 3, test.record(c, victim, own))
			becomes(t, string(test.cause)+" is counted", func() bool {
				l.Join([]string{honest.Addr().String()})
				return honest.refused(test.as, test.cause) > 0
			})
			c.sees(honest, "av")
			if after := fmt.Sprint(honest.ledger.Claims()); after != before {
				t.Errorf("claims were %s, are %s", before, after)
			}
		})
	}
}

// TestRefusedMemberIsNoMember holds that memberlist hears of a refusal, and of this node itself whatever is said of it.
func TestRefusedMemberIsNoMember(t *testing.T) {
	lost := map[Cause]int{}
	r := newRoster("a", newBench("a", "v"), func(c Cause) { lost[c]++ })
	n := &memberlist.Node{Name: "v", Addr: net.IPv4(127, 0, 0, 1), Port: testPort, Meta: []byte("not a record"), PMin: 1, PMax: 5, PCur: 2}
	if err := r.NotifyAlive(n); err == nil {
		t.Error("a member with nonsense for a record comes in")
	}
	n.Name = "a"
	if err := r.NotifyAlive(n); err != nil {
		t.Errorf("what is said of this node does not reach it: %v", err)
	}
	n.Meta = make([]byte, memberlist.MetaMaxSize+1)
	if err := r.NotifyAlive(n); err == nil {
		t.Error("a record longer than any reaches this node")
	}
	for _, n := range []memberlist.Node{
		{PMin: 200, PMax: 200, PCur: 200}, {PMin: 3, PMax: 5, PCur: 2}, {PMin: 1, PMax: 1, PCur: 2}, {PMin: 1, PMax: 5, PCur: 3},
		{PMin: 1, PMax: 5, PCur: 2, DMin: 1}, {PMin: 1, PMax: 5, PCur: 2, DCur: 1}, {Name: strings.Repeat("v", maxName+1)},
	} {
		n.Name = cmp.Or(n.Name, "v")
		n.Addr, n.Port, n.Meta = net.IPv4(127, 0, 0, 1).To4(), testPort, newPerson("v").record(1, "127.0.0.1")
		if err := r.NotifyAlive(&n); err == nil {
			t.Errorf("%+v comes in", n)
		}
	}
	if lost[Unreadable] != 6 || lost[MessageSize] != 2 {
		t.Errorf("counted: %v", lost)
	}
}

// TestForgedProtocol holds that true records of living members, said to speak as nobody does, end neither
// what members exchange nor what those hear who come.
func TestForgedProtocol(t *testing.T) {
	t.Parallel()
	c := newClique(t, 47)
	a := c.start("a", 1)
	b := c.start("b", 2)
	c.allSee("ab")
	for _, who := range []struct {
		name   string
		number int
	}{{"b", 2}, {"c", 3}} {
		address := netip.MustParseAddr(c.addr(who.number))
		lie := alive(who.name, address, testPort, newPerson(who.name).record(1, address.String()))
		// With this incarnation nobody refutes it.
		lie = bytes.Replace(lie, []byte{0xce, 0, 0, 0, 9}, []byte{0xce, 0xff, 0xff, 0xff, 0xff}, 1)
		lie = bytes.Replace(lie, []byte{1, 5, 2, 0, 0, 0}, []byte{200, 200, 200, 0, 0, 0}, 1)
		packet := sealedWith(t, secret('s'), lie)
		flood(t, netip.AddrPort{}, a.Gossip.Addr(), func() []byte { return packet }, 10)
	}
	becomes(t, "the lies are counted", func() bool { return a.dropped(netip.Addr{}, Unreadable) >= 20 })
	for _, pair := range [][2]*member{{a, b}, {b, a}} {
		if _, err := pair[0].list.Join([]string{pair[1].Gossip.Addr().String()}); err != nil {
			t.Errorf("%s exchanges nothing with %s: %v", pair[0].addr, pair[1].addr, err)
		}
	}
	c.start("d", 4)
	c.allSee("abd")
}

// TestFloodOfRecords holds that 100,000 records from a member move nothing and keep nobody out.
func TestFloodOfRecords(t *testing.T) {
	t.Parallel()
	c := newClique(t, 19)
	a := c.start("a", 1)
	b := c.start("b", 2)
	c.allSee("ab")
	conn, err := net.Dial("udp", a.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	judge := a.Gossip.config.Judge
	bent := newPerson("b").record(1<<60, b.addr)
	bent[len(bent)-1] ^= 1
	for i := range 100_000 {
		h := overlay.Heard{Name: "b", Address: b.Addr(), Record: bent}
		if i%2 == 0 {
			h.Name = fmt.Sprint("stranger", i)
		}
		if judge.Hear(h) == nil {
			t.Fatal("taken")
		}
		if i%100 == 0 {
			conn.Write(bytes.Repeat([]byte{byte(i)}, 100))
		}
	}
	becomes(t, "the next true record gets through", func() bool {
		b.SetRecord(t.Context(), newPerson("b").record(2, b.addr))
		return a.epoch("b") == 2
	})
	c.allSee("ab")
	if names := len(a.ledger.Claims()); names != 1 {
		t.Errorf("%d claims", names)
	}
	becomes(t, "strangers' packets are counted", func() bool { return a.Strangers() > 0 })
}

// TestRecordBeforeItsNodeIsKnown holds that a member whose Node object comes late gets in when it has come.
func TestRecordBeforeItsNodeIsKnown(t *testing.T) {
	t.Parallel()
	c := newClique(t, 17)
	a := c.start("a", 1)
	late := c.config("z", 2)
	late.Judge = newBench("a", "z")
	c.startWith(late)
	becomes(t, "z is refused", func() bool { return a.refused("", overlay.UnknownNode) > 0 })
	c.sees(a, "a")
	a.mu.Lock()
	a.ledger.SetNodes([]overlay.Node{newPerson("a").node(), newPerson("z").node()})
	a.mu.Unlock()
	if a.epoch("z") != 1 {
		t.Error("the record was not held back")
	}
	a.SetSeeds(seed("z", c.members["z"].Addr()))
	c.allSee("az")
	if slices.ContainsFunc(a.Members(), func(m overlay.Member) bool { return !m.Alive }) {
		t.Errorf("members %v", a.Members())
	}
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }
