//go:build kernel

package wireguard_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kithnet/kith/overlay/wireguard"
)

// street is a link with a node, and a neighbour whom the node reaches, as a gateway and by itself.
type street struct {
	testing.TB
	node, other *thread
}

var (
	gateways = []netip.Addr{netip.MustParseAddr("172.31.0.2"), netip.MustParseAddr("fd00:31::2")}
	distant  = []netip.Addr{netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8:9::1")}
)

func newStreet(tb testing.TB) *street {
	tb.Helper()
	s := &street{tb, newThread(tb), newThread(tb)}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "eth0"
	s.node.do(func() {
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(s.other.ns)}); err != nil {
			tb.Errorf("make link: %v", err)
		}
	})
	for i, t := range []*thread{s.node, s.other} {
		t.do(func() {
			linkUp(tb, "eth0")
			addAddr(tb, "eth0", netip.MustParsePrefix(fmt.Sprintf("172.31.0.%d/16", i+1)))
			addAddr(tb, "eth0", netip.MustParsePrefix(fmt.Sprintf("fd00:31::%d/64", i+1)))
		})
	}
	s.node.do(func() {
		for i, cidr := range []string{"198.51.100.0/24", "2001:db8:9::/64"} {
			dst, _ := netlink.ParseIPNet(cidr)
			if err := netlink.RouteAdd(&netlink.Route{Dst: dst, Gw: gateways[i].AsSlice()}); err != nil {
				tb.Errorf("add route to %s: %v", cidr, err)
			}
		}
	})
	return s
}

func (s *street) until(what string, holds func() bool) {
	s.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			s.Fatalf("after %s not: %s", patience, what)
		}
	}
}

// entry is what the node's kernel knows of a neighbour.
func (s *street) entry(addr netip.Addr) (out netlink.Neigh) {
	s.Helper()
	s.node.do(func() {
		all, err := netlink.NeighList(0, netlink.FAMILY_ALL)
		if err != nil {
			s.Errorf("list neighbours: %v", err)
		}
		for _, n := range all {
			if n.IP.Equal(addr.AsSlice()) {
				out = n
			}
		}
	})
	return out
}

// send has the node send to an address. What becomes of it is the kernel's business.
func (s *street) send(to netip.Addr) {
	s.node.do(func() { sendTo(to) })
}

func sendTo(to netip.Addr) {
	if conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, 9))); err == nil {
		_, _ = conn.Write([]byte("hello"))
		conn.Close()
	}
}

func (s *street) mac() (out net.HardwareAddr) {
	s.other.do(func() {
		if link, err := netlink.LinkByName("eth0"); err == nil {
			out = link.Attrs().HardwareAddr
		}
	})
	return out
}

// move gives the neighbour another hardware address.
func (s *street) move(mac net.HardwareAddr) {
	s.Helper()
	s.other.do(func() {
		link, err := netlink.LinkByName("eth0")
		if err == nil {
			err = netlink.LinkSetHardwareAddr(link, mac)
		}
		if err != nil {
			s.Errorf("change hardware address: %v", err)
		}
	})
}

func (s *street) keep(n *wireguard.Neighbours, reached ...netip.Addr) {
	s.Helper()
	s.node.do(func() {
		if err := n.Keep(reached); err != nil {
			s.Error(err)
		}
	})
}

// TestNeighboursAreKept: who is the next hop of a route, or reached without one, has no place in the count of neighbours,
// whether the kernel knew of it before or not; it is resolved, and followed to another hardware address, as any other.
func TestNeighboursAreKept(t *testing.T) {
	for _, known := range []string{"known before", "not known before"} {
		t.Run(known, func(t *testing.T) {
			s := newStreet(t)
			if known == "known before" {
				for i, addr := range gateways {
					s.until("the neighbour is known", func() bool { s.send(distant[i]); return len(s.entry(addr).HardwareAddr) > 0 })
				}
			}
			var n wireguard.Neighbours
			stranger := netip.MustParseAddr("172.31.7.7")
			s.keep(&n, stranger, distant[0], netip.MustParseAddr("127.0.0.1"))
			for _, addr := range append(gateways, stranger) {
				if got := s.entry(addr); got.Flags&netlink.NTF_EXT_LEARNED == 0 {
					t.Errorf("%s counts: %+v", addr, got)
				}
			}
			for i, addr := range gateways {
				s.until("the neighbour is resolved", func() bool {
					s.send(distant[i])
					return s.entry(addr).HardwareAddr.String() == s.mac().String()
				})
			}
			mac := net.HardwareAddr{2, 0, 0, 0, 9, 9}
			s.move(mac)
			// The kernel believes no news of a neighbour within a second after other news.
			s.until("the neighbour is followed", func() bool {
				s.other.do(func() { announceMAC(t, mac) })
				return s.entry(gateways[0]).HardwareAddr.String() == mac.String()
			})
			before := s.entry(gateways[0])
			s.keep(&n)
			if got := s.entry(gateways[0]); got.Flags&netlink.NTF_EXT_LEARNED == 0 || got.HardwareAddr.String() != before.HardwareAddr.String() {
				t.Errorf("kept twice, the gateway is %+v", got)
			}
			if got := s.entry(stranger); got.Flags&netlink.NTF_EXT_LEARNED != 0 {
				t.Errorf("who is reached no more still has a place of its own: %+v", got)
			}
		})
	}
}

// announceMAC says without being asked where the neighbour is now.
func announceMAC(t *testing.T, mac net.HardwareAddr) {
	link, err := netlink.LinkByName("eth0")
	if err != nil {
		t.Error(err)
		return
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Error(err)
		return
	}
	defer unix.Close(fd)
	frame := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, mac...)
	frame = append(frame, 8, 6, 0, 1, 8, 0, 6, 4, 0, 2)
	frame = append(append(frame, mac...), gateways[0].AsSlice()...)
	frame = append(append(frame, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), gateways[0].AsSlice()...)
	if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: link.Attrs().Index}); err != nil {
		t.Error(err)
	}
}

// TestKeptNeighboursSurviveAFlood keeps the table full, by packets to addresses that nobody has, in another namespace. Who is kept is
// found all the same, and of those who are not, some are not. The table is the machine's: this is for one of the test's own.
func TestKeptNeighboursSurviveAFlood(t *testing.T) {
	if os.Getenv("KITH_WIREGUARD") != string(wireguard.Kernel) {
		t.Skip("NOT CHECKED here: it would fill the machine's table of neighbours; the stage of the guest does, with KITH_WIREGUARD=kernel")
	}
	const some = 20
	s, elsewhere := newStreet(t), newStreet(t)
	var kept, others []netip.Addr
	for i := range byte(some) {
		kept, others = append(kept, netip.AddrFrom4([4]byte{172, 31, 0, 10 + i})), append(others, netip.AddrFrom4([4]byte{172, 31, 0, 110 + i}))
	}
	for _, addr := range slices.Concat(kept, others) {
		s.other.do(func() { addAddr(t, "eth0", netip.PrefixFrom(addr, 16)) })
	}
	var n wireguard.Neighbours
	s.keep(&n, kept...)
	flood := func() {
		elsewhere.node.do(func() {
			for i := range 2048 {
				sendTo(netip.AddrFrom4([4]byte{172, 31, byte(1 + i/250), byte(1 + i%250)}))
			}
		})
	}
	s.until("the table is full", func() bool { flood(); return elsewhere.count() >= 1000 })
	flood() // once more: what it waits for holds its places for three seconds
	for i := range kept {
		s.send(others[i])
		s.send(kept[i])
	}
	found := func(addr netip.Addr) bool { return s.entry(addr).HardwareAddr.String() == s.mac().String() }
	for _, addr := range kept {
		s.until(addr.String()+" is found", func() bool { return found(addr) })
	}
	if missing := slices.DeleteFunc(others, found); len(missing) == 0 {
		t.Error("all that are not kept are found, too: nothing was tested")
	} else {
		t.Logf("of %d that are not kept, %d are not found", some, len(missing))
	}
}

// count is how many neighbours the node's kernel knows.
func (s *street) count() (n int) {
	s.node.do(func() {
		all, err := netlink.NeighList(0, netlink.FAMILY_V4)
		if err != nil {
			s.Errorf("list neighbours: %v", err)
		}
		n = len(all)
	})
	return n
}
