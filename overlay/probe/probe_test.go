package probe

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/kithnet/kith/overlay/path"
)

const (
	testPort = 17947
	patience = 60 * time.Second
)

func address(s string) netip.Addr { return netip.MustParseAddr(s) }

func start(t *testing.T, own netip.Addr, targets ...Target) *Prober {
	t.Helper()
	config := path.Defaults()
	config.Interval = 200 * time.Millisecond
	p := New(testPort, config)
	if err := p.Follow([]netip.Addr{own}, targets); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return p
}

func target(name, addr string) Target {
	return Target{Target: path.Target{Name: name, Limit: 9000}, Address: address(addr)}
}

func TestProbersAnswerThoseTheyKnow(t *testing.T) {
	a := start(t, address("127.30.0.1"), target("b", "127.30.0.2"), target("c", "127.30.0.3"))
	start(t, address("127.30.0.2"), target("a", "127.30.0.1"))
	start(t, address("127.30.0.3"))
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		paths := a.Paths()
		if b, c := paths[0], paths[1]; b.MTU == 9000 && b.RoundTrip > 0 && !c.Silent.IsZero() && c.MTU == 0 {
			break
		} else if time.Now().After(end) {
			t.Fatalf("known: %+v", paths)
		}
	}
	select {
	case <-a.Changed(): // soon after it is known
	case <-time.After(patience):
		t.Error("a size was found and nothing changed")
	}
	if got := a.MTUs(); len(got) != 1 || got["b"] != 9000 {
		t.Errorf("sizes: %v", got)
	}
}

// TestStrangersGetNoAnswer asks from an address that is not known, and from another port of one that is.
func TestStrangersGetNoAnswer(t *testing.T) {
	start(t, address("127.31.0.1"), target("b", "127.31.0.2"))
	for _, from := range []string{"127.31.0.3:17947", "127.31.0.2:17948"} {
		conn, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(from)), &net.UDPAddr{IP: net.IPv4(127, 31, 0, 1), Port: testPort})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write(packet{kind: question, number: 1}.encode(0)); err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		if n, err := conn.Read(make([]byte, 100)); err == nil {
			t.Errorf("%s got an answer of %d bytes", from, n)
		}
	}
}

func TestAddressesCanChange(t *testing.T) {
	a := start(t, address("127.32.0.1"), target("b", "127.32.0.2"))
	start(t, address("127.32.0.2"), target("a", "127.32.0.4"))
	if err := a.Follow([]netip.Addr{address("127.32.0.4")}, []Target{target("b", "127.32.0.2")}); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(patience); a.MTUs()["b"] != 9000; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("known: %+v", a.Paths())
		}
	}
}
