//go:build kernel

package tap

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"github.com/kithnet/kith/policy/dns"
)

// lab is a node between a pod and a name server, each in a network namespace.
type lab struct {
	testing.TB
	node, pod, server netns.NsHandle
}

var (
	podAddresses    = []string{"10.244.1.5", "fd00:1::5"}
	serverAddresses = []string{"10.96.0.10", "fd00:96::10"}
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// inside runs a function in a network namespace.
func inside(t testing.TB, ns netns.NsHandle, do func()) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	must(t, err)
	defer home.Close()
	must(t, netns.Set(ns))
	defer func() { must(t, netns.Set(home)) }()
	do()
}

func newNamespace(t testing.TB) netns.NsHandle {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("tests of the kernel need root")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	must(t, err)
	defer home.Close()
	ns, err := netns.New()
	must(t, err)
	must(t, netns.Set(home))
	t.Cleanup(func() { ns.Close() })
	return ns
}

func newLab(t testing.TB) *lab {
	t.Helper()
	l := &lab{t, newNamespace(t), newNamespace(t), newNamespace(t)}
	l.wire(l.pod, "kith-0000000001", podAddresses, 1)
	l.wire(l.server, "out0", serverAddresses, 2)
	inside(t, l.node, func() {
		must(t, os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644))
		must(t, os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0o644))
	})
	return l
}

// wire joins a place to the node as pods are: routes by a gateway that is nowhere, and neighbours that are written down.
func (l *lab) wire(place netns.NsHandle, name string, addresses []string, n byte) {
	l.Helper()
	near, far := net.HardwareAddr{2, 0, 0, 0, 0, n}, net.HardwareAddr{2, 0, 0, 0, 1, n}
	inside(l, l.node, func() {
		must(l, netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: name, HardwareAddr: near}, PeerName: "eth0", PeerHardwareAddr: far, PeerNamespace: netlink.NsFd(place),
		}))
		link := l.up(name)
		for _, a := range addresses {
			l.neighbour(link, a, far)
			must(l, netlink.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: host(a), Scope: netlink.SCOPE_LINK}))
		}
	})
	inside(l, place, func() {
		link := l.up("eth0")
		for i, gateway := range []string{"169.254.1.1", "fe80::1"} {
			must(l, netlink.AddrAdd(link, &netlink.Addr{IPNet: host(addresses[i]), Flags: unix.IFA_F_NODAD}))
			l.neighbour(link, gateway, near)
			_, all, _ := net.ParseCIDR([]string{"0.0.0.0/0", "::/0"}[i])
			must(l, netlink.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: all, Gw: host(gateway).IP, Flags: int(netlink.FLAG_ONLINK)}))
		}
	})
	l.await(l.node, name, nil)
	l.await(place, "eth0", addresses)
}

// await waits until a link carries and its addresses receive: the kernel does both at its leisure.
func (l *lab) await(place netns.NsHandle, name string, addresses []string) {
	l.Helper()
	ready := func() bool {
		link, err := netlink.LinkByName(name)
		must(l, err)
		for _, a := range addresses {
			routes, err := netlink.RouteGet(host(a).IP)
			if err != nil || len(routes) == 0 || routes[0].Type != unix.RTN_LOCAL {
				return false
			}
		}
		return link.Attrs().OperState == netlink.OperUp
	}
	inside(l, place, func() {
		for end := time.Now().Add(time.Minute); !ready(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				l.Fatalf("%s does not carry", name)
			}
		}
	})
}

func (l *lab) up(name string) netlink.Link {
	l.Helper()
	link, err := netlink.LinkByName(name)
	must(l, err)
	must(l, netlink.LinkSetUp(link))
	return link
}

func (l *lab) neighbour(link netlink.Link, address string, mac net.HardwareAddr) {
	l.Helper()
	must(l, netlink.NeighSet(&netlink.Neigh{LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT, IP: host(address).IP, HardwareAddr: mac}))
}

func host(a string) *net.IPNet {
	addr := netip.MustParseAddr(a)
	return &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(addr.BitLen(), addr.BitLen())}
}

// reply is an answer to any question: the name's address, and as many more as make it large.
func reply(t testing.TB, query []byte, more int) []byte {
	t.Helper()
	var q dnsmessage.Message
	must(t, q.Unpack(query))
	q.Response = true
	for i := range 1 + more {
		q.Answers = append(q.Answers, dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: q.Questions[0].Name, Class: dnsmessage.ClassINET, TTL: 30},
			Body:   &dnsmessage.AResource{A: [4]byte{203, 0, byte(113 + i/250), byte(7 + i%250)}},
		})
	}
	b, err := q.Pack()
	must(t, err)
	return b
}

func query(t testing.TB) []byte {
	t.Helper()
	m := dnsmessage.Message{Questions: []dnsmessage.Question{{
		Name: dnsmessage.MustNewName("www.example.com."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET,
	}}}
	b, err := m.Pack()
	must(t, err)
	return b
}

// serve answers over UDP and TCP until the test ends.
func (l *lab) serve(address string, more int) {
	l.Helper()
	at := netip.AddrPortFrom(netip.MustParseAddr(address), dnsPort)
	inside(l, l.server, func() {
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		must(l, err)
		s, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
		must(l, err)
		l.Cleanup(func() { c.Close(); s.Close() })
		go func() {
			b := make([]byte, 512)
			for {
				n, from, err := c.ReadFromUDPAddrPort(b)
				if err != nil {
					return
				}
				_, _ = c.WriteToUDPAddrPort(reply(l, b[:n], more), from)
			}
		}()
		go func() {
			for {
				c, err := s.Accept()
				if err != nil {
					return
				}
				answer := reply(l, query(l), more)
				_, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...))
			}
		}()
	})
}

// dial is the pod's connection to the name server.
func (l *lab) dial(network, address string) (c net.Conn) {
	l.Helper()
	inside(l, l.pod, func() {
		var err error
		c, err = net.DialTimeout(network, netip.AddrPortFrom(netip.MustParseAddr(address), dnsPort).String(), 20*time.Second)
		must(l, err)
	})
	l.Cleanup(func() { c.Close() })
	return c
}

func read(t testing.TB, c net.Conn, within time.Duration) (int, error) {
	t.Helper()
	must(t, c.SetReadDeadline(time.Now().Add(within)))
	return c.Read(make([]byte, 1<<16))
}

// ask asks once and waits for the answer: a second one would be heard when nobody expects it.
func (l *lab) ask(address string) {
	l.Helper()
	c := l.dial("udp", address)
	_, err := c.Write(query(l))
	must(l, err)
	if _, err = read(l, c, 20*time.Second); err != nil {
		l.Errorf("ask %s: no answer: %v", address, err)
	}
}

// next is what comes next by a channel.
func next[T any](t testing.TB, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(time.Minute):
		t.Fatal("nothing came for a minute")
	}
	return v
}

type heard struct {
	pod  netip.Addr
	told []dns.Telling
}

// open runs a tap whose calls wait until somebody takes what was heard.
func (l *lab) open() (*Tap, chan heard) {
	l.Helper()
	calls := make(chan heard)
	tap := l.listening(func(ctx context.Context, pod netip.Addr, told []dns.Telling) {
		select {
		case calls <- heard{pod, told}:
		case <-ctx.Done():
		}
	})
	l.run(tap)
	return tap, calls
}

func addresses(s ...string) []netip.Addr {
	var out []netip.Addr
	for _, a := range s {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

// audience is the pod, as its name servers answer it.
func audience() Audience {
	return Audience{Pods: addresses(podAddresses...), Servers: addresses(serverAddresses...)}
}

// TestAnswersWait: a pod gets an answer when what it tells was heard, over both families. Pods to whom nobody listens get
// theirs at once.
func TestAnswersWait(t *testing.T) {
	l := newLab(t)
	tap, calls := l.open()
	for i, server := range serverAddresses {
		must(t, tap.Listen(Audience{}))
		l.serve(server, 0)
		l.ask(server)
		must(t, tap.Listen(audience()))
		c := l.dial("udp", server)
		_, err := c.Write(query(t))
		must(t, err)
		if n, err := read(t, c, 300*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: the pod had %d bytes (%v) before they were heard", server, n, err)
		}
		want := heard{netip.MustParseAddr(podAddresses[i]), []dns.Telling{{Name: "www.example.com", Address: netip.MustParseAddr("203.0.113.7"), TTL: 30 * time.Second}}}
		if d := cmp.Diff(want, next(t, calls), cmp.AllowUnexported(heard{}), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
			t.Errorf("heard (-want +got)\n%s", d)
		}
		if _, err := read(t, c, 20*time.Second); err != nil {
			t.Errorf("%s: after it was heard: %v", server, err)
		}
	}
}

// TestLongAnswersDoNotWait: those that may not fit the pod's interface, and those of TCP, are heard, but not held.
func TestLongAnswersDoNotWait(t *testing.T) {
	l := newLab(t)
	for _, server := range serverAddresses {
		l.serve(server, 80)
		l.ask(server)
	}
	tap, calls := l.open()
	must(t, tap.Listen(audience()))
	for _, server := range serverAddresses {
		l.ask(server)
		if h := next(t, calls); len(h.told) != 81 {
			t.Errorf("%s: heard %d addresses over UDP", server, len(h.told))
		}
		if _, err := io.ReadFull(l.dial("tcp", server), make([]byte, 100)); err != nil {
			t.Errorf("%s: over TCP: %v", server, err)
		}
		if h := next(t, calls); len(h.told) != 81 {
			t.Errorf("%s: heard %d addresses over TCP", server, len(h.told))
		}
	}
}

// TestAnswersFlowWithoutUs: nobody's name service depends on this process.
func TestAnswersFlowWithoutUs(t *testing.T) {
	l := newLab(t)
	l.serve(serverAddresses[0], 0)
	l.ask(serverAddresses[0])
	t.Run("while it is there", func(t *testing.T) {
		here := &lab{t, l.node, l.pod, l.server}
		tap, calls := here.open()
		must(t, tap.Listen(audience()))
		asked := make(chan struct{})
		go func() { defer close(asked); <-calls }()
		here.ask(serverAddresses[0])
		next(t, asked)
	})
	l.ask(serverAddresses[0])
}
