//go:build kernel

package wireguard_test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kithnet/kith/overlay"
	"github.com/kithnet/kith/overlay/wireguard"
)

// TestForgedICMPIsNoLimit has somebody on the underlay tell a node that hardly anything arrives at another: of the tunnel,
// and of another connection between the two, as a pod of the other could. The kernel believes it, and for ten minutes. The
// route stays, the segments stay, and WireGuard's packets leave whole.
func TestForgedICMPIsNoLimit(t *testing.T) {
	for _, test := range []struct {
		family overlay.Family
		least  int
		ports  [2]uint16 // of the packet that is quoted
		source string
	}{
		{overlay.IPv4, 576, [2]uint16{51820, 51820}, "192.0.2.99"}, {overlay.IPv4, 576, [2]uint16{51821, 9}, "172.31.0.2"},
		{overlay.IPv6, 1280, [2]uint16{51820, 51820}, "2001:db8::99"},
	} {
		t.Run(test.family.String()+" from "+test.source, func(t *testing.T) {
			l := newLab(t, 1500)
			a, b := l.addNode(test.family), l.addNode(test.family)
			l.reconcile()
			a.probe()
			b.probe()
			limit := a.computed().Routes[0].MTU
			l.until("the whole way is known", l.known(limit))
			l.forge(a, b, tooBig{netip.MustParseAddr(test.source), test.ports, test.least})
			if l.mode == wireguard.Kernel && test.least >= 1280 {
				return // which cuts by what is said: not less than this
			}
			for range 2 { // with and without what has been known before
				a.follow()
				if got := a.prober.Paths()[0].MTU; got != limit {
					t.Fatalf("the way is taken for %d, not %d", got, limit)
				}
			}
			l.until("the whole way is known still", l.known(limit))
			pod := podAddr(b.api.PodCIDRs[0])
			if got, want := a.segment(b, pod), limit-40; got > want || got < want-40 {
				t.Errorf("a segment has %d bytes, where %d fit", got, want)
			}
			if l.mode == wireguard.Kernel {
				return // cut, and delivered
			}
			// wireguard-go has new sockets, and the first moment is not theirs.
			l.until("packets leave whole", func() bool {
				cut := a.cut()
				transfer(t, a, b, pod, 2<<20)
				return a.cut() == cut
			})
		})
	}
}

// TestHonestICMPIsLookedAt: a hop that is smaller and says so is worked round, though what it says is believed by nobody.
func TestHonestICMPIsLookedAt(t *testing.T) {
	l := newLab(t, 1500)
	a, b := l.addNode(overlay.IPv4), l.addNode(overlay.IPv4)
	l.realPackets()
	l.reconcile()
	a.probe()
	b.probe()
	l.until("the whole way is known", l.known(a.computed().Routes[0].MTU))
	l.hop(1390)
	message := tooBig{netip.MustParseAddr("192.0.2.99"), [2]uint16{51820, 51820}, 1390}
	l.forge(a, b, message)
	l.forge(b, a, message)
	took := l.until("the way round is known", func() bool {
		return !slices.ContainsFunc(l.nodes, func(n *node) bool {
			got := n.prober.Paths()[0].MTU
			return got > 1390-60 || got < 1280
		})
	})
	t.Logf("known after %s", took.Round(time.Millisecond))
	transfer(t, a, b, podAddr(b.api.PodCIDRs[0]), 256<<10)
}

// TestOwnRoutesAreLimits holds that what a node's administrator, or a router's advertisement on its link, says of sizes is
// a limit, and stays one below which no ICMP gets.
func TestOwnRoutesAreLimits(t *testing.T) {
	l := newLab(t, 1500)
	n := l.addNode(overlay.IPv4)
	n.do(func() {
		addAddr(t, "eth0", netip.MustParsePrefix("fd00:31::1/64"))
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			t.Fatal(err)
		}
		for to, mtu := range map[string]int{"172.31.0.9/32": 1400, "fd00:31::9/128": 1300} {
			dst, err := netlink.ParseIPNet(to)
			if err == nil {
				err = netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: dst, MTU: mtu})
			}
			if err != nil {
				t.Errorf("add route to %s: %v", to, err)
			}
		}
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/eth0/mtu", []byte("1350"), 0); err != nil {
			t.Error(err)
		}
	})
	carries := func(addr string) (limit, said int) {
		n.do(func() {
			var err error
			if limit, said, err = n.dev.Carrier(9000)(netip.AddrPortFrom(netip.MustParseAddr(addr), 51820)); err != nil {
				t.Error(err)
			}
		})
		return limit, said
	}
	for addr, want := range map[string]int{"172.31.0.2": 1500, "172.31.0.9": 1400, "fd00:31::2": 1350, "fd00:31::9": 1300} {
		if limit, said := carries(addr); limit != want || said != want {
			t.Errorf("%s: %d bytes are let out, %d are said to arrive, want %d", addr, limit, said, want)
		}
	}
}

// tooBig is what a router says of a packet that it cannot pass on.
type tooBig struct {
	router netip.Addr
	ports  [2]uint16
	mtu    int
}

// forge tells a node so about what it sends to another, and waits until its kernel believes it.
func (l *lab) forge(n, to *node, m tooBig) {
	l.tb.Helper()
	own, other := n.api.InternalIPs[0], to.api.InternalIPs[0]
	var mac net.HardwareAddr
	n.do(func() {
		link, err := net.InterfaceByName("eth0")
		if err != nil {
			l.tb.Fatal(err)
		}
		mac = link.HardwareAddr
	})
	frame := m.frame(mac, own, other)
	port := "port" + n.api.Name[len("node"):]
	endpoint := netip.AddrPortFrom(other, 51820)
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		l.bridge.do(func() { l.inject(port, frame) })
		said := 0
		n.do(func() { _, said, _ = n.dev.Carrier(l.mtu)(endpoint) })
		if said == m.mtu {
			return
		}
		if time.Now().After(end) {
			l.tb.Fatalf("%s: the kernel takes the way to %s for %d, not %d: there is nothing to test", n.api.Name, other, said, m.mtu)
		}
	}
}

// inject puts a frame on the wire behind a port of the bridge.
func (l *lab) inject(port string, frame []byte) {
	link, err := netlink.LinkByName(port)
	if err != nil {
		l.tb.Errorf("find %s: %v", port, err)
		return
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		l.tb.Errorf("open packet socket: %v", err)
		return
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: link.Attrs().Index}); err != nil {
		l.tb.Errorf("send frame: %v", err)
	}
}

func (m tooBig) frame(mac net.HardwareAddr, own, other netip.Addr) []byte {
	udp := binary.BigEndian.AppendUint16(nil, m.ports[0])
	udp = binary.BigEndian.AppendUint16(udp, m.ports[1])
	udp = append(udp, 5, 180, 0, 0)
	ether := slices.Concat(mac, []byte{2, 0, 0, 0, 0, 0x99})
	if own.Is4() {
		icmp := binary.BigEndian.AppendUint32([]byte{3, 4, 0, 0}, uint32(m.mtu))
		icmp = slices.Concat(icmp, header4(own, other, 17, 1460), udp)
		binary.BigEndian.PutUint16(icmp[2:], checksum(icmp))
		return slices.Concat(ether, []byte{8, 0}, header4(m.router, own, 1, len(icmp)), icmp)
	}
	icmp := binary.BigEndian.AppendUint32([]byte{2, 0, 0, 0}, uint32(m.mtu))
	icmp = slices.Concat(icmp, header6(own, other, 17, 1460), udp)
	pseudo := slices.Concat(m.router.AsSlice(), own.AsSlice(), []byte{0, 0, 0, byte(len(icmp)), 0, 0, 0, 58}, icmp)
	binary.BigEndian.PutUint16(icmp[2:], checksum(pseudo))
	return slices.Concat(ether, []byte{0x86, 0xdd}, header6(m.router, own, 58, len(icmp)), icmp)
}

func header4(from, to netip.Addr, protocol byte, size int) []byte {
	h := slices.Concat([]byte{0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, protocol, 0, 0}, from.AsSlice(), to.AsSlice())
	binary.BigEndian.PutUint16(h[2:], uint16(20+size))
	binary.BigEndian.PutUint16(h[10:], checksum(h))
	return h
}

func header6(from, to netip.Addr, protocol byte, size int) []byte {
	h := slices.Concat([]byte{0x60, 0, 0, 0, 0, 0, protocol, 64}, from.AsSlice(), to.AsSlice())
	binary.BigEndian.PutUint16(h[4:], uint16(size))
	return h
}

func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// segment is how many bytes of data a node puts into a packet of a new connection.
func (n *node) segment(to *node, addr netip.Addr) int {
	tb := n.lab.tb
	tb.Helper()
	var listener, conn = net.Listener(nil), net.Conn(nil)
	var err error
	to.do(func() { listener, err = net.Listen("tcp", netip.AddrPortFrom(addr, 0).String()) })
	if err != nil {
		tb.Fatal(err)
	}
	defer listener.Close()
	n.do(func() { conn, err = net.Dial("tcp", listener.Addr().String()) })
	if err != nil {
		tb.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		tb.Fatal(err)
	}
	size := 0
	if failed := raw.Control(func(fd uintptr) { size, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG) }); failed != nil || err != nil {
		tb.Fatal(failed, err)
	}
	return size
}

// cut counts the packets that a node has sent in pieces, and those that it refused to.
func (n *node) cut() int {
	n.lab.tb.Helper()
	count := 0
	n.do(func() {
		four, err := os.ReadFile("/proc/thread-self/net/snmp")
		if err != nil {
			n.lab.tb.Fatal(err)
		}
		six, err := os.ReadFile("/proc/thread-self/net/snmp6")
		if err != nil {
			n.lab.tb.Fatal(err)
		}
		var names []string
		for line := range strings.Lines(string(four)) {
			fields := strings.Fields(line)
			if fields[0] == "Ip:" && names == nil {
				names = fields
			} else if fields[0] == "Ip:" {
				for i, name := range names {
					if name == "FragOKs" || name == "FragFails" {
						value, _ := strconv.Atoi(fields[i])
						count += value
					}
				}
			}
		}
		for line := range strings.Lines(string(six)) {
			if fields := strings.Fields(line); fields[0] == "Ip6FragOKs" || fields[0] == "Ip6FragFails" {
				value, _ := strconv.Atoi(fields[1])
				count += value
			}
		}
	})
	return count
}
