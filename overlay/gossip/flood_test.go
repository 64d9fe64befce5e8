package gossip

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kithnet/kith/overlay"
)

// sealedWith is a message as members encrypt it. A second copy of one costs who hears it as much as another.
func sealedWith(t *testing.T, key, message []byte) []byte {
	t.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	nonce := make([]byte, aead.NonceSize())
	rand.Read(nonce)
	return aead.Seal(append([]byte{1}, nonce...), nonce, message, nil)
}

// flood sends count packets, some 20,000 a second.
func flood(t *testing.T, from, to netip.AddrPort, packet func() []byte, count int) {
	t.Helper()
	var local *net.UDPAddr
	if from.IsValid() {
		local = net.UDPAddrFromAddrPort(from)
	}
	conn, err := net.DialUDP("udp", local, net.UDPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for i := range count {
		if _, err := conn.Write(packet()); err != nil {
			t.Fatal(err)
		}
		if i%100 == 0 {
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// alive is memberlist's message that says a member lives: its type and a msgpack map.
func alive(name string, address netip.Addr, port uint16, record []byte) []byte {
	b := []byte{4, 0x86}
	text := func(s string) { b = append(append(b, 0xda, byte(len(s)>>8), byte(len(s))), s...) }
	text("Incarnation")
	b = append(b, 0xce, 0, 0, 0, 9)
	text("Node")
	text(name)
	text("Addr")
	text(string(address.AsSlice()))
	text("Port")
	b = binary.BigEndian.AppendUint16(append(b, 0xcd), port)
	text("Meta")
	text(string(record))
	text("Vsn")
	text(string([]byte{1, 5, 2, 0, 0, 0}))
	return b
}

// dropped is how many were dropped unread for any of the causes, from an address (zero: from others), or in the sockets.
func (m *member) dropped(from netip.Addr, causes ...Cause) (n uint64) {
	for _, u := range m.Unheard() {
		for _, cause := range causes {
			if u.From == from && u.Cause == cause {
				n += u.Count
			}
		}
	}
	return n
}

// TestAllIsCounted holds that of a member's flood nothing is lost from the count, few of it are read, and the flood takes
// nothing from another member.
func TestAllIsCounted(t *testing.T) {
	t.Parallel()
	c := newClique(t, 40)
	a := c.start("a", 1)
	c.start("b", 2)
	c.allSee("ab")
	liar := netip.AddrPortFrom(netip.MustParseAddr(c.addr(3)), testPort)
	a.SetSeeds(map[string][]netip.AddrPort{"b": {c.members["b"].Gossip.Addr()}, "c": {liar}})
	bent := newPerson("c").record(9, c.addr(3))
	bent[len(bent)-1] ^= 1
	packet := sealedWith(t, secret('s'), alive("c", liar.Addr(), testPort, bent))
	sent := uint64(30_000)
	flood(t, liar, a.Gossip.Addr(), func() []byte { return packet }, int(sent))
	counted := func() uint64 {
		return a.refused("c", overlay.BadSignature) + a.refused("c", overlay.TooMany) +
			a.dropped(liar.Addr(), PacketRate) + a.dropped(netip.Addr{}, SocketFull, QueueFull)
	}
	becomes(t, "all that was sent is counted", func() bool {
		if counted() < sent { // the kernel tells of what it dropped with the next packet
			flood(t, liar, a.Gossip.Addr(), func() []byte { return packet }, 1)
			sent++
		}
		return counted() >= sent
	})
	// What a full socket or queue dropped bears no name: the other member's packets may be among it.
	if got := counted(); got > sent+a.dropped(netip.Addr{}, SocketFull, QueueFull) {
		t.Errorf("%d sent, %d counted: %v, %v", sent, got, a.ledger.Refused(), a.Unheard())
	}
	if read := a.refused("c", overlay.BadSignature); read > sent/10 {
		t.Errorf("%d of %d were verified", read, sent)
	}
	if unread := a.dropped(liar.Addr(), PacketRate); unread < sent/2 {
		t.Errorf("only %d of %d were dropped unread", unread, sent)
	}
	if from := netip.MustParseAddr(c.addr(2)); a.dropped(from, PacketRate) > 0 {
		t.Errorf("another member was not heard: %v", a.Unheard())
	}
	c.allSee("ab")
	t.Logf("%d sent; refused %v; unheard %v", sent, a.ledger.Refused(), a.Unheard())
}

// TestWhatEndsTheProcessStaysOut holds that messages which memberlist does not survive, or not in bounded time and
// memory, do not get to it, though they bear the cluster's key; nor does what is no message at all.
func TestWhatEndsTheProcessStaysOut(t *testing.T) {
	t.Parallel()
	c := newClique(t, 41)
	a := c.start("a", 1)
	b := c.start("b", 2)
	c.allSee("ab")
	padded := sealedWith(t, secret('s'), bytes.Repeat([]byte{0xff}, 20)) // version 0: the last byte says how much to cut off
	padded[0] = 0
	for _, packet := range [][]byte{padded, nil, make([]byte, maxPacket+1), []byte("hello")} {
		flood(t, netip.AddrPort{}, a.Gossip.Addr(), func() []byte { return packet }, 10)
	}
	unreadable := [][]byte{
		{}, {9, 1}, {compoundLetter}, {compoundLetter, 2, 0, 1}, {compoundLetter, 1, 0, 1, compoundLetter}, {compoundLetter, 1, 0, 0},
		{stateLetter}, {checkedLetter, 0, 0, 0, 0, compoundLetter},
	}
	for _, text := range unreadable {
		packet := sealedWith(t, secret('s'), text)
		flood(t, netip.AddrPort{}, a.Gossip.Addr(), func() []byte { return packet }, 10)
	}
	becomes(t, "packets are counted", func() bool {
		// An empty text is shorter than any message, and so a stranger's.
		return a.Strangers() >= 30 && a.dropped(netip.Addr{}, PacketSize) >= 20 && a.dropped(netip.Addr{}, Unreadable) >= 70
	})
	strangers, refused := a.Strangers(), a.dropped(netip.Addr{}, Unreadable)
	many := []byte("\x86\x83\xa5Nodes\xce\x00\x10\x00\x00\xacUserStateLen\x00\xa4Join\xc2")
	many[0] = stateLetter
	for _, said := range [][]byte{
		sealedStreamOf(t, nil), {sealedStream, 0xff, 0xff, 0xff, 0xff, 1}, {244, 1, 'x', 0, 0}, []byte("GET / HTTP/1.1\r\n\r\n"),
		sealedStreamOf(t, many), sealedStreamOf(t, []byte{9, 1}), sealedStreamOf(t, []byte{stateLetter}),
	} {
		conn := dial(t, a)
		conn.Write(said)
		conn.Read(make([]byte, 1)) // until it is closed
	}
	becomes(t, "streams are counted", func() bool {
		return a.Strangers() >= strangers+4 && a.dropped(netip.Addr{}, Unreadable) >= refused+3
	})
	b.SetRecord(t.Context(), newPerson("b").record(7, b.addr))
	becomes(t, "gossip goes on", func() bool { return a.epoch("b") == 7 })
}

// TestLongRecordsAreShort holds that what members say at length, about whoever hears it or others, costs neither memory
// nor log.
func TestLongRecordsAreShort(t *testing.T) {
	t.Parallel()
	c := newClique(t, 48)
	config := c.config("a", 1)
	var log countedLog
	config.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	a := c.startWith(config)
	b := c.start("b", 2)
	c.allSee("ab")
	long := strings.Repeat("x", 1<<20)
	lies := uint64(0)
	for _, who := range []struct{ name, record string }{{"a", long}, {"nobody", long}, {long, "record"}} {
		for range 3 {
			lies++
			conn := dial(t, a)
			conn.Write(sealedStreamOf(t, exchange(who.name, who.record)))
			io.Copy(io.Discard, conn)
		}
	}
	packet := sealedWith(t, secret('s'), append([]byte{userLetter}, "letter"...))
	flood(t, netip.AddrPort{}, a.Gossip.Addr(), func() []byte { return packet }, 1)
	if got := <-a.Received(); string(got) != "letter" {
		t.Errorf("received %q", got)
	}
	a.post.receive([]byte(long))
	lies++
	becomes(t, "all are counted", func() bool { return a.dropped(netip.Addr{}, MessageSize) == lies })
	if len(a.Received()) > 0 {
		t.Error("a long letter waits")
	}
	if n := log.bytes.Load(); n > 100<<10 {
		t.Errorf("%d bytes of log", n)
	}
	b.SetRecord(t.Context(), newPerson("b").record(7, b.addr))
	becomes(t, "gossip goes on", func() bool { return a.epoch("b") == 7 })
}

type countedLog struct{ bytes atomic.Int64 }

func (l *countedLog) Write(b []byte) (int, error) {
	l.bytes.Add(int64(len(b)))
	return len(b), nil
}

// exchange is memberlist's message of all that a member knows: here of one other.
func exchange(name, record string) []byte {
	b := append([]byte{stateLetter}, "\x83\xa5Nodes\x01\xacUserStateLen\x00\xa4Join\xc2\x87"...)
	text := func(s string) { b = append(binary.BigEndian.AppendUint32(append(b, 0xdb), uint32(len(s))), s...) }
	text("Name")
	text(name)
	text("Addr")
	text(string([]byte{127, 0, 0, 1}))
	text("Port")
	b = binary.BigEndian.AppendUint16(append(b, 0xcd), testPort)
	text("Meta")
	text(record)
	text("Incarnation")
	b = append(b, 9)
	text("State")
	b = append(b, 0)
	text("Vsn")
	text(string([]byte{1, 5, 2, 0, 0, 0}))
	return b
}

// TestLettersReachWhoIsCalledDead holds that a letter gets to a member at its last address, whatever gossip says of it.
func TestLettersReachWhoIsCalledDead(t *testing.T) {
	t.Parallel()
	c := newClique(t, 49)
	var both []*Gossip
	for i, name := range []string{"a", "b"} {
		g, err := Start(c.config(name, i+1))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { g.list.Shutdown() })
		both = append(both, g)
	}
	a, b := both[0], both[1]
	for i, known := range []func(){
		func() { a.SetSeeds(map[string][]netip.AddrPort{"b": {b.Addr()}}) },
		func() { a.SetSeeds(nil); a.roster.note(b.list.LocalNode(), entry{alive: false}) },
	} {
		known()
		a.carry(parcel{to: "b", message: []byte("letter")})
		becomes(t, "it arrives", func() bool { return len(b.Received()) == i+1 })
	}
}

// sealedStreamOf is a message as members encrypt it on a stream.
func sealedStreamOf(t *testing.T, message []byte) []byte {
	t.Helper()
	head := binary.BigEndian.AppendUint32([]byte{sealedStream}, uint32(len(message)+sealOverhead))
	block, err := aes.NewCipher(secret('s'))
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	nonce := make([]byte, aead.NonceSize())
	return aead.Seal(append(append(bytes.Clone(head), 1), nonce...), nonce, message, head)
}

func dial(t *testing.T, to *member) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", to.Gossip.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return conn
}

// TestStreamsOfStrangersAreBounded holds that strangers keep few streams open, for a short time, with few bytes, and no
// member out.
func TestStreamsOfStrangersAreBounded(t *testing.T) {
	t.Parallel()
	c := newClique(t, 42)
	a := c.start("a", 1)
	a.SetSeeds(seed("b", netip.AddrPortFrom(netip.MustParseAddr(c.addr(2)), testPort)))
	const knocks = 200
	var open []net.Conn
	for range knocks {
		if conn, err := net.Dial("tcp", a.Gossip.Addr().String()); err == nil { // else it was turned away at once
			t.Cleanup(func() { conn.Close() })
			conn.SetDeadline(time.Now().Add(patience))
			open = append(open, conn)
		}
	}
	becomes(t, "the rest is turned away", func() bool {
		return a.dropped(netip.Addr{}, StreamRate) >= knocks-uint64(a.gate.others.maxOpen)
	})
	b := c.start("b", 2)
	c.allSee("ab")
	for _, conn := range open {
		conn.Read(make([]byte, 1)) // until it is closed
	}
	becomes(t, "none stays", func() bool { return a.streamsOfStrangers() == 0 })

	// One that says it sends much holds what it may, and is closed. On a busy machine its time may be over before.
	length := binary.BigEndian.AppendUint32([]byte{sealedStream}, maxStream)
	chunk := make([]byte, 64<<10)
	becomes(t, "it is counted", func() bool {
		greedy := dial(t, a)
		greedy.Write(append(bytes.Clone(length), sealed))
		for err := error(nil); err == nil; {
			_, err = greedy.Write(chunk)
		}
		return a.dropped(netip.Addr{}, StreamSize) > 0
	})
	becomes(t, "and gone", func() bool { return a.streamsOfStrangers() == 0 })
	b.SetRecord(t.Context(), newPerson("b").record(3, b.addr))
	becomes(t, "gossip goes on", func() bool { return a.epoch("b") == 3 })
}

func (m *member) streamsOfStrangers() int {
	m.gate.mu.Lock()
	defer m.gate.mu.Unlock()
	return m.gate.others.open + m.gate.others.held
}

// TestSocketDropsAreCounted holds that what the kernel drops, since nobody reads for a while, is in the count.
func TestSocketDropsAreCounted(t *testing.T) {
	t.Parallel()
	g := newGate(func(netip.Addr) bool { return true }, slog.New(slog.DiscardHandler))
	bind := netip.MustParseAddrPort(fmt.Sprintf("127.45.0.1:%d", testPort))
	tr, err := listen(bind, g, func() [][]byte { return [][]byte{secret('s')} }, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Shutdown()
	tr.serve()
	packet := sealedWith(t, secret('s'), append([]byte{pingLetter}, make([]byte, 1300)...))
	sent, taken := 0, 0
	send := func(count int) {
		flood(t, netip.AddrPort{}, bind, func() []byte { return packet }, count)
		sent += count
	}
	send(20_000)
	counts := func() map[Cause]int {
		all := map[Cause]int{}
		for _, u := range g.unheard() {
			all[u.Cause] += int(u.Count)
		}
		return all
	}
	becomes(t, "all that was sent is counted", func() bool {
		for more := true; more; {
			select {
			case <-tr.PacketCh():
				taken++
			case <-time.After(100 * time.Millisecond):
				more = false
			}
		}
		send(1) // the kernel tells with the next packet
		counted := counts()
		return counted[SocketFull] > 0 && taken+counted[SocketFull]+counted[PacketRate] >= sent-1
	})
	if counted := counts(); taken+counted[SocketFull]+counted[PacketRate] > sent {
		t.Errorf("%d sent, %d taken, dropped %v", sent, taken, counted)
	}
}
