package announce

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/kithnet/kith/identity"
)

const (
	testPort = 17948
	patience = 60 * time.Second
)

// node is node n, with the loopback address for its mesh address.
func node(name, mesh, cidr string) Node {
	return Node{Name: name, Addresses: []netip.Addr{address(mesh)}, CIDRs: []netip.Prefix{netip.MustParsePrefix(cidr)}}
}

func start(t *testing.T, own string, devices []string, nodes ...Node) (*Announcer, <-chan identity.Hint) {
	t.Helper()
	heard := make(chan identity.Hint, 100)
	a := New(testPort, devices, func(h identity.Hint) { heard <- h })
	if err := a.Follow([]netip.Addr{address(own)}, nodes); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return a, heard
}

// next hint that is not a repetition of one before.
func hear(t *testing.T, heard <-chan identity.Hint, after uint64) identity.Hint {
	t.Helper()
	for end := time.After(patience); ; {
		select {
		case h := <-heard:
			if h.Sequence > after {
				return h
			}
		case <-end:
			t.Fatal("nothing is heard")
		}
	}
}

func quiet(t *testing.T, heard <-chan identity.Hint) {
	t.Helper()
	select {
	case h := <-heard:
		t.Errorf("heard %+v", h)
	case <-time.After(300 * time.Millisecond):
	}
}

func TestOthersHear(t *testing.T) {
	lo := []string{"lo"}
	a, _ := start(t, "127.40.0.1", lo, node("b", "127.40.0.2", "10.2.0.0/24"), node("c", "127.40.0.3", "10.3.0.0/24"))
	_, b := start(t, "127.40.0.2", lo, node("a", "127.40.0.1", "10.1.0.0/24"))
	_, c := start(t, "127.40.0.3", lo, node("a", "127.40.0.1", "10.1.0.0/24"))
	pin := sample().Pin
	if err := a.Say(pin, []netip.Addr{address("10.1.0.5")}); err != nil {
		t.Fatal(err)
	}
	first := hear(t, b, 0)
	if first.Pin != pin || first.Node != "a" || len(first.Addresses) != 1 || first.Addresses[0] != address("10.1.0.5") || time.Until(first.Until) > Lifetime {
		t.Errorf("heard %+v", first)
	}
	hear(t, c, 0)
	if err := a.Unsay([]netip.Addr{address("10.1.0.5")}); err != nil {
		t.Fatal(err)
	}
	if h := hear(t, b, first.Sequence); h.Pin != (identity.Pin{}) {
		t.Errorf("heard %+v, want that it is nobody's", h)
	}
}

// TestStrangersAreNotHeard holds who may speak: a node that is known, from its port, by the mesh, of its own addresses.
func TestStrangersAreNotHeard(t *testing.T) {
	lo := []string{"lo"}
	_, heard := start(t, "127.41.0.1", lo, node("b", "127.41.0.2", "10.2.0.0/24"))
	_, outside := start(t, "127.41.0.9", []string{"kith0"}, node("b", "127.41.0.2", "10.2.0.0/24"))
	own, foreign, mixed := sample(), sample(), sample()
	own.Addresses = []netip.Addr{address("10.2.0.5")}
	foreign.Addresses = []netip.Addr{address("10.3.0.5")}
	mixed.Addresses = []netip.Addr{address("10.2.0.5"), address("10.3.0.5")}
	for _, tt := range []struct {
		from, to string
		packet   []byte
		by       <-chan identity.Hint
	}{
		{"127.41.0.3:17948", "127.41.0.1", encoded(t, own), heard},
		{"127.41.0.2:17949", "127.41.0.1", encoded(t, own), heard},
		{"127.41.0.2:17948", "127.41.0.1", encoded(t, foreign), heard},
		{"127.41.0.2:17948", "127.41.0.1", encoded(t, mixed), heard},
		{"127.41.0.2:17948", "127.41.0.1", append(encoded(t, own), 0), heard},
		{"127.41.0.2:17948", "127.41.0.9", encoded(t, own), outside},
	} {
		tell(t, tt.from, tt.to, tt.packet)
		quiet(t, tt.by)
	}
	tell(t, "127.41.0.2:17948", "127.41.0.1", encoded(t, own))
	hear(t, heard, 0)
}

func tell(t *testing.T, from, to string, packet []byte) {
	t.Helper()
	conn, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(from)), &net.UDPAddr{IP: net.ParseIP(to), Port: testPort})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(packet); err != nil {
		t.Fatal(err)
	}
}

// TestIPv6 holds that the device is known there, too.
func TestIPv6(t *testing.T) {
	self := node("self", "::1", "fd00::/64")
	a, heard := start(t, "::1", []string{"lo"}, self)
	if err := a.Say(sample().Pin, []netip.Addr{address("fd00::5")}); err != nil {
		t.Fatal(err)
	}
	hear(t, heard, 0)
}

// TestSaidSeveralTimes: what is late is not made up for.
func TestSaidSeveralTimes(t *testing.T) {
	a := New(testPort, nil, nil)
	now := time.Now()
	for since, left := range map[time.Time]int{now.Add(time.Hour): 5, now.Add(-time.Hour): 0} {
		waiting := a.round([]saying{{nil, since, times()}})
		if got := len(waiting); (got > 0) != (left > 0) || got > 0 && len(waiting[0].times) != left {
			t.Errorf("%s after now: %v", since.Sub(now), waiting)
		}
	}
}

// TestSayDoesNotWait: without a way to anybody, what is said is bounded and takes no time.
func TestSayDoesNotWait(t *testing.T) {
	a := New(testPort, nil, nil)
	refused := 0
	for range 3 * maxWaiting {
		if a.Say(sample().Pin, sample().Addresses) != nil {
			refused++
		}
	}
	if refused != 2*maxWaiting {
		t.Errorf("%d of %d are refused, want what is over %d", refused, 3*maxWaiting, maxWaiting)
	}
}

// TestOnlyWhatWasSaidIsTakenBack: a DEL of a pod that has been there for long is no news.
func TestOnlyWhatWasSaidIsTakenBack(t *testing.T) {
	a := New(testPort, nil, nil)
	taken := func(addr string) bool {
		t.Helper()
		before := len(a.queue)
		if err := a.Unsay([]netip.Addr{address(addr)}); err != nil {
			t.Fatal(err)
		}
		return len(a.queue) > before
	}
	if !taken("10.1.0.5") {
		t.Error("not taken back what an agent before may have said")
	}
	a.started = time.Now().Add(-2 * Lifetime)
	if taken("10.1.0.5") {
		t.Error("taken back what nobody said")
	}
	if err := a.Say(sample().Pin, sample().Addresses); err != nil {
		t.Fatal(err)
	}
	if !taken("10.1.0.5") {
		t.Error("not taken back what was said")
	}
}
