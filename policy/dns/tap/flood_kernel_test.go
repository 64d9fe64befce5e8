//go:build kernel

package tap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/kithnet/kith/policy/dns"
)

// stranger is an address of the name server's place that is no name server's.
const stranger = "192.0.2.66"

var neighbourAddresses = []string{"10.244.1.6", "fd00:1::6"}

// crowded adds a neighbour of the pod's, and a stranger.
func crowded(t *testing.T) (*lab, *lab) {
	t.Helper()
	l := newLab(t)
	neighbour := &lab{t, l.node, newNamespace(t), l.server}
	l.wire(neighbour.pod, "kith-0000000002", neighbourAddresses, 3)
	inside(t, l.server, func() {
		link, err := netlink.LinkByName("eth0")
		must(t, err)
		must(t, netlink.AddrAdd(link, &netlink.Addr{IPNet: host(stranger)}))
	})
	inside(t, l.node, func() {
		link, err := netlink.LinkByName("out0")
		must(t, err)
		must(t, netlink.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: host(stranger), Scope: netlink.SCOPE_LINK}))
		l.neighbour(link, stranger, net.HardwareAddr{2, 0, 0, 0, 1, 2})
	})
	return l, neighbour
}

func everybody() Audience {
	a := audience()
	a.Pods = append(a.Pods, addresses(neighbourAddresses...)...)
	return a
}

// listening runs a tap; hear is called with what it hears.
func (l *lab) listening(hear Hear) *Tap {
	l.Helper()
	return l.noting(hear, func(Unheard) {})
}

func (l *lab) noting(hear Hear, unheard func(Unheard)) *Tap {
	l.Helper()
	var tap *Tap
	inside(l, l.node, func() {
		var err error
		tap, err = Open(slog.New(slog.NewTextHandler(os.Stderr, nil)), hear, unheard)
		must(l, err)
	})
	tap.patience, tap.table.lasts = time.Hour, time.Hour // however slow the machine
	return tap
}

// run runs it until the test ends, and hears from its return on: the first proof of a tap that runs may come after what it
// is to hear.
func (l *lab) run(tap *Tap) {
	l.Helper()
	must(l, tap.table.prove())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- tap.Run(ctx) }()
	l.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, tap.Close()); err != nil {
			l.Error(err)
		}
	})
}

// flood answers one question of each of some pods without end, each time with so many addresses, until the test ends.
func flood(pods []*lab, server string, addresses int, every time.Duration) {
	l := pods[0]
	l.Helper()
	at := netip.AddrPortFrom(netip.MustParseAddr(server), dnsPort)
	var c *net.UDPConn
	inside(l, l.server, func() {
		var err error
		c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		must(l, err)
	})
	question := query(l)
	var to []netip.AddrPort
	for _, pod := range pods {
		_, err := pod.dial("udp", server).Write(question)
		must(l, err)
		_, from, err := c.ReadFromUDPAddrPort(make([]byte, 512))
		must(l, err)
		to = append(to, from)
	}
	b := reply(l, question, addresses-1)
	end, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for tick := time.NewTicker(every); ; {
			select {
			case <-end:
				return
			case <-tick.C:
				for _, from := range to {
					_, _ = c.WriteToUDPAddrPort(b, from)
				}
			}
		}
	}()
	l.Cleanup(func() { close(end); <-done; c.Close() })
}

// TestFloodSilencesNobody: while one pod is answered without end, or sixteen are, and hearing what it is told takes its time, each of its
// neighbour's questions is answered, and heard before.
func TestFloodSilencesNobody(t *testing.T) {
	for name, c := range map[string]struct {
		pods, addresses int
		every           time.Duration
	}{
		"3,500 addresses, 100 a second": {1, 3500, 10 * time.Millisecond},
		"70 addresses, 5,000 a second":  {1, 70, 200 * time.Microsecond},
		"of sixteen pods":               {16, 70, 5 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			l, neighbour := crowded(t)
			var mu sync.Mutex
			heard := map[netip.Addr]int{}
			busy := make(chan Unheard, 1)
			tap := l.noting(func(_ context.Context, pod netip.Addr, told []dns.Telling) {
				mu.Lock()
				heard[pod]++
				mu.Unlock()
				time.Sleep(time.Duration(len(told)) * 100 * time.Microsecond) // as the kernel takes to learn them
			}, func(u Unheard) {
				select {
				case busy <- u:
				default: // one is enough
				}
			})
			l.run(tap)
			all, flooded := everybody(), []*lab{l}
			for i := 1; i < c.pods; i++ {
				next := &lab{t, l.node, newNamespace(t), l.server}
				own := []string{fmt.Sprintf("10.244.1.%d", 100+i), fmt.Sprintf("fd00:1::%d", 100+i)}
				next.wire(next.pod, fmt.Sprintf("kith-00000001%02d", i), own, byte(100+i))
				all.Pods, flooded = append(all.Pods, addresses(own...)...), append(flooded, next)
			}
			must(t, tap.Listen(all))
			l.serve(serverAddresses[0], 0)
			flood(flooded, serverAddresses[1], c.addresses, c.every)
			inside(t, l.pod, func() { // the flood is there when it arrives
				s, err := net.ListenPacket("ip6:udp", podAddresses[1])
				must(t, err)
				defer s.Close()
				for range 50 {
					must(t, s.SetReadDeadline(time.Now().Add(time.Minute)))
					_, _, err := s.ReadFrom(make([]byte, 1<<16))
					must(t, err)
				}
			})
			for range 40 {
				neighbour.ask(serverAddresses[0])
			}
			mu.Lock()
			defer mu.Unlock()
			if n := heard[netip.MustParseAddr(neighbourAddresses[0])]; n != 40 {
				t.Errorf("%d of the neighbour's 40 answers are heard", n)
			}
			first := netip.MustParseAddr(podAddresses[1])
			if c.addresses < 100 {
				select {
				case u := <-busy:
					if !u.Busy || c.pods == 1 && u.Pod != first {
						t.Errorf("busy is %+v", u)
					}
				case <-time.After(20 * time.Second):
					t.Error("nothing passed unheard")
				}
			} else if heard[first] > 0 {
				t.Errorf("%d answers of %d addresses are heard", heard[first], c.addresses)
			}
		})
	}
}

// TestOnlyNameServersAreHeard: what others answer from port 53 passes as it came, over UDP and TCP, and is not heard, but
// from whatever server if that is wanted.
func TestOnlyNameServersAreHeard(t *testing.T) {
	l, _ := crowded(t)
	calls := make(chan heard, 100)
	unheard := make(chan Unheard, 100)
	tap := l.noting(func(_ context.Context, pod netip.Addr, told []dns.Telling) { calls <- heard{pod, told} }, func(u Unheard) { unheard <- u })
	l.run(tap)
	l.serve(stranger, 0)
	l.serve(serverAddresses[0], 0)
	must(t, tap.Listen(everybody()))
	l.ask(stranger)
	if want, got := (Unheard{Server: netip.MustParseAddr(stranger), Pod: netip.MustParseAddr(podAddresses[0])}), next(t, unheard); got != want {
		t.Errorf("unheard is %+v, want %+v", got, want)
	}
	if _, err := io.ReadFull(l.dial("tcp", stranger), make([]byte, 40)); err != nil {
		t.Errorf("over TCP: %v", err)
	}
	l.ask(serverAddresses[0])
	next(t, calls)
	if len(calls) > 0 {
		t.Errorf("heard %v of a stranger", <-calls)
	}
	any := everybody()
	any.AnyServer = true
	must(t, tap.Listen(any))
	l.ask(stranger)
	next(t, calls)
}

// TestDownloadIsNotHeld: a stream from port 53 that is none of a name server's runs beside a tap that hears nothing any
// more.
func TestDownloadIsNotHeld(t *testing.T) {
	l, _ := crowded(t)
	tap := l.listening(func(ctx context.Context, _ netip.Addr, _ []dns.Telling) { <-ctx.Done() })
	l.run(tap)
	l.serve(serverAddresses[0], 0)
	must(t, tap.Listen(everybody()))
	var s net.Listener
	inside(t, l.server, func() {
		var err error
		s, err = net.Listen("tcp", stranger+":53")
		must(t, err)
	})
	defer s.Close()
	const size = 32 << 20
	go func() {
		c, err := s.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = c.Write(make([]byte, size))
	}()
	c := l.dial("tcp", stranger)
	must(t, c.SetReadDeadline(time.Now().Add(time.Minute)))
	if n, err := io.Copy(io.Discard, c); n != size || err != nil {
		t.Errorf("%d bytes arrive: %v", n, err)
	}
	if tap.queue.take() != nil {
		t.Error("a part of the stream was copied")
	}
}

// TestHeldAnswersGoOn: an answer that nobody is done hearing goes on in time, and one that waits when the tap is closed, at
// once; while nobody reads, answers are not held any more.
func TestHeldAnswersGoOn(t *testing.T) {
	stuck := func(ctx context.Context, _ netip.Addr, _ []dns.Telling) { <-ctx.Done() }
	t.Run("nobody is done hearing it", func(t *testing.T) {
		l := newLab(t)
		l.serve(serverAddresses[0], 0)
		tap := l.listening(stuck)
		tap.patience = patience
		l.run(tap)
		must(t, tap.Listen(audience()))
		if l.ask(serverAddresses[0]); !t.Failed() {
			l.ask(serverAddresses[0])
		}
	})
	t.Run("the tap is closed", func(t *testing.T) {
		l := newLab(t)
		l.serve(serverAddresses[0], 0)
		tap := l.listening(stuck)
		must(t, tap.Listen(audience()))
		must(t, tap.table.prove())
		c := l.dial("udp", serverAddresses[0])
		_, err := c.Write(query(t))
		must(t, err)
		for tap.queue.take() == nil { // it was taken out of the way, and waits
			answers, err := tap.held.read(t.Context(), make([]byte, longestCopy), time.Now().Add(time.Minute))
			must(t, err)
			tap.take(answers)
		}
		_, err = c.Write(query(t))
		must(t, err)
		answers, err := tap.held.read(t.Context(), make([]byte, longestCopy), time.Now().Add(time.Minute))
		must(t, err)
		tap.take(answers)
		must(t, tap.Close())
		if _, err := read(t, c, 20*time.Second); err != nil {
			t.Errorf("what waited is lost: %v", err)
		}
	})
	t.Run("nobody reads", func(t *testing.T) {
		l := newLab(t)
		l.serve(serverAddresses[0], 0)
		tap := l.listening(stuck)
		tap.table.lasts = listensFor
		defer tap.Close()
		must(t, tap.Listen(audience()))
		if l.ask(serverAddresses[0]); t.Failed() { // nobody has ever read
			return
		}
		must(t, tap.table.prove())
		c := l.dial("udp", serverAddresses[0])
		for end := time.Now().Add(time.Minute); ; {
			_, err := c.Write(query(t))
			must(t, err)
			if _, err := read(t, c, 300*time.Millisecond); err == nil {
				break
			}
			if time.Now().After(end) {
				t.Fatal("answers are held for good though nobody reads")
			}
		}
	})
}

// TestToolPrintsTheTable: people see with the tool nft what waits, and from whom.
func TestToolPrintsTheTable(t *testing.T) {
	l := newLab(t)
	tap := l.listening(nil)
	defer tap.Close()
	must(t, tap.Listen(everybody()))
	must(t, tap.table.prove())
	inside(t, l.node, func() {
		out, err := exec.Command("nft", "list", "table", "inet", tableName).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		for _, want := range []string{
			"elements = { 10.244.1.5, 10.244.1.6 }", "elements = { fd00:96::10 }", "log group 7953 drop", "log prefix \"stranger\" group 7954 snaplen 60",
			"update @paced { oif limit rate over 100/second burst 200 packets }", "ct state untracked", "ip saddr 169.254.0.0/16 goto heard",
		} {
			if !strings.Contains(string(out), want) {
				t.Errorf("nft does not print %q:\n%s", want, out)
			}
		}
	})
}

// TestEmptyAnswersDoNotWait: what says that a name does not exist, or has no address, has no place among what waits.
func TestEmptyAnswersDoNotWait(t *testing.T) {
	l := newLab(t)
	at := netip.AddrPortFrom(netip.MustParseAddr(serverAddresses[0]), dnsPort)
	tap := l.listening(func(context.Context, netip.Addr, []dns.Telling) { t.Error("an empty answer is heard") })
	defer tap.Close() // it never runs: what waits, waits for good
	must(t, tap.Listen(audience()))
	must(t, tap.table.prove())
	inside(t, l.server, func() {
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		must(t, err)
		t.Cleanup(func() { c.Close() })
		go func() {
			for _, code := range []dnsmessage.RCode{dnsmessage.RCodeNameError, dnsmessage.RCodeSuccess} {
				b := make([]byte, 512)
				n, from, err := c.ReadFromUDPAddrPort(b)
				if err != nil {
					return
				}
				var m dnsmessage.Message
				must(t, m.Unpack(b[:n]))
				m.Response, m.RCode = true, code
				if code == dnsmessage.RCodeNameError { // with an address all the same
					must(t, m.Unpack(reply(t, b[:n], 0)))
					m.RCode = code
				}
				out, err := m.Pack()
				must(t, err)
				_, _ = c.WriteToUDPAddrPort(out, from)
			}
		}()
	})
	if l.ask(serverAddresses[0]); !t.Failed() {
		l.ask(serverAddresses[0])
	}
}
