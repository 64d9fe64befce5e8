//go:build kernel

package veth

import (
	"encoding/binary"
	"errors"
	"maps"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kithnet/kith/cni"
)

// invented is how many addresses a pod makes up. The kernel has one table of neighbours for all network namespaces, of
// 1,024 by default: a test must not fill it.
const invented = 200

// TestPodsFillNoNeighbourTable has a pod ask and answer for neighbours under addresses that nobody has, by every message that
// makes the kernel remember its sender somewhere. The node remembers none.
func TestPodsFillNoNeighbourTable(t *testing.T) {
	l := node(t)
	// Where the node learns neighbours from answers that it did not ask for, a pod still teaches it none.
	run(t, "sysctl", "-qw", "net.ipv4.conf.all.arp_accept=1")
	defer run(t, "sysctl", "-qw", "net.ipv4.conf.all.arp_accept=0")
	a := attachment("a", sandbox(t), "10.1.0.2", "fd00::2")
	create(t, l, a)
	flood(t, a, messages(a))
	for _, addr := range a.Addresses {
		run(t, "ping", "-c1", "-W20", addr.String())
	}
}

// TestPodsOfBeforeFillNoNeighbourTable: so is it with pods of an agent that did not know of this, once the new one has
// started, and their own neighbours are as they were.
func TestPodsOfBeforeFillNoNeighbourTable(t *testing.T) {
	l := node(t)
	a := attachment("a", sandbox(t), "10.1.0.2")
	create(t, l, a)
	run(t, "ip", "link", "set", a.HostInterface, "arp", "on")
	run(t, "sysctl", "-qw", "net.ipv4.conf."+a.HostInterface+".arp_ignore=0")
	run(t, "ip", "neigh", "replace", "10.1.0.2", "dev", a.HostInterface, "lladdr", a.PodMAC.String(), "nud", "permanent")
	before := run(t, "ip", "neigh")
	if err := l.IgnoreARP(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := run(t, "ip", "neigh"); after != before {
		t.Errorf("neighbours were\n%sand are\n%s", before, after)
	}
	// Their neighbour discovery ends at the guard's table, as that of all pods.
	arp := messages(a)
	maps.DeleteFunc(arp, func(name string, _ func(int) []byte) bool { return !strings.Contains(name, "ARP") })
	flood(t, a, arp)
}

// messages are what makes a kernel remember who sent it, each under an invented address.
func messages(a cni.Attachment) map[string]func(n int) []byte {
	mac := net.HardwareAddr(a.PodMAC[:])
	return map[string]func(n int) []byte{
		"ARP requests":             func(n int) []byte { return arp(1, mac, nobody4(n), netip.MustParseAddr("192.0.2.1")) },
		"ARP replies":              func(n int) []byte { return arp(2, mac, nobody4(n), netip.MustParseAddr("192.0.2.1")) },
		"gratuitous ARP":           func(n int) []byte { return arp(1, mac, nobody4(n), nobody4(n)) },
		"neighbour solicitations":  func(n int) []byte { return discovery(135, mac, nobody6("fd99::", n)) },
		"neighbour advertisements": func(n int) []byte { return forged(nobody6("fd99::", n), mac) },
		"router solicitations":     func(n int) []byte { return discovery(133, mac, nobody6("fd99::", n)) },
		"router advertisements":    func(n int) []byte { return discovery(134, mac, nobody6("fe80::", n)) },
	}
}

// flood sends what a pod with raw sockets can, and looks what the node remembers.
func flood(t *testing.T, a cni.Attachment, messages map[string]func(n int) []byte) {
	t.Helper()
	for name, message := range messages {
		var frames [][]byte
		for n := range invented {
			frames = append(frames, message(n))
		}
		received := received(t, a.HostInterface)
		send(t, a.Netns, frames)
		for end := time.Now().Add(20 * time.Second); received() < uint64(len(frames)); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("the frames do not reach the node")
			}
		}
		if got := waiting(t, a.HostInterface); got != 0 {
			t.Errorf("%d %s under invented addresses: the node remembers %d neighbours", invented, name, got)
		}
		run(t, "ip", "neigh", "flush", "dev", a.HostInterface)
	}
}

// waiting counts an interface's neighbours that hold places in the table. Permanent ones do not count there, and those
// that need not be asked for give way at once.
func waiting(t *testing.T, name string) int {
	t.Helper()
	link, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	all, err := netlink.NeighList(link.Attrs().Index, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	return len(slices.DeleteFunc(all, func(n netlink.Neigh) bool {
		return n.State&(netlink.NUD_PERMANENT|netlink.NUD_NOARP) != 0
	}))
}

// TestPodWithoutRightsFillsNoNeighbourTable has a process without any capability send past the pod's routes to addresses
// that nobody has: the kernel would ask for each of them on the pod's interface, and remember in the same table.
func TestPodWithoutRightsFillsNoNeighbourTable(t *testing.T) {
	l := node(t)
	a := attachment("a", sandbox(t), "10.1.0.2", "fd00::2")
	create(t, l, a)
	done := make(chan error)
	var got int
	go func() {
		// Never unlocked: the thread ends in the sandbox.
		runtime.LockOSThread()
		err := enter(a.Netns)
		if err == nil {
			err = sayToNobody(a.IfName)
		}
		if err == nil {
			got = waiting(t, a.IfName)
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got != 0 {
		t.Errorf("the kernel waits for %d neighbours of the pod", got)
	}
	for _, addr := range []string{"192.0.2.1", "2001:db8::1"} {
		within(t, a.Netns, "ping", "-c1", "-W20", addr)
	}
}

// sayToNobody sends to invented addresses as if they were on the interface's link.
func sayToNobody(device string) error {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return err
	}
	four, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(four)
	six, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(six)
	err = errors.Join(
		unix.BindToDevice(four, device),
		unix.SetsockoptInt(four, unix.SOL_SOCKET, unix.SO_DONTROUTE, 1),
	)
	for n := range invented {
		to4 := &unix.SockaddrInet4{Port: 9, Addr: nobody4(n).As4()}
		to6 := &unix.SockaddrInet6{Port: 9, Addr: nobody6("fe80::", n).As16(), ZoneId: uint32(link.Attrs().Index)}
		err = errors.Join(err, unix.Sendto(four, []byte("kith"), 0, to4), unix.Sendto(six, []byte("kith"), 0, to6))
	}
	return err
}

func nobody4(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 66, byte(n >> 8), byte(n)}) }

func nobody6(network string, n int) netip.Addr {
	addr := netip.MustParseAddr(network).As16()
	binary.BigEndian.PutUint16(addr[14:], uint16(n)+0x100)
	return netip.AddrFrom16(addr)
}

// arp says that the sender is at an address, or asks for another one.
func arp(operation byte, mac net.HardwareAddr, sender, target netip.Addr) []byte {
	frame := slices.Concat([]byte{255, 255, 255, 255, 255, 255}, mac, []byte{8, 6, 0, 1, 8, 0, 6, 4, 0, operation})
	return slices.Concat(frame, mac, sender.AsSlice(), make([]byte, 6), target.AsSlice())
}

// discovery is a message of neighbour discovery to all nodes, or for the node's address, under a source.
func discovery(kind byte, mac net.HardwareAddr, source netip.Addr) []byte {
	everybody := netip.MustParseAddr("ff02::1")
	message := []byte{kind, 0, 0, 0}
	switch kind {
	case 133:
		message = append(message, 0, 0, 0, 0)
	case 134:
		message = append(message, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	default:
		message = slices.Concat(message, []byte{0, 0, 0, 0}, netip.MustParseAddr("2001:db8::1").AsSlice())
	}
	message = slices.Concat(message, []byte{1, 1}, mac)
	pseudo := slices.Concat(source.AsSlice(), everybody.AsSlice(), []byte{0, 0, 0, byte(len(message)), 0, 0, 0, 58}, message)
	binary.BigEndian.PutUint16(message[2:], checksum(pseudo))
	header := slices.Concat([]byte{0x60, 0, 0, 0, 0, byte(len(message)), 58, 255}, source.AsSlice(), everybody.AsSlice())
	return slices.Concat([]byte{0x33, 0x33, 0, 0, 0, 1}, mac, []byte{0x86, 0xdd}, header, message)
}

// TestNoAddressIsAskedForOnALink holds that neither side of a veth speaks ARP.
func TestNoAddressIsAskedForOnALink(t *testing.T) {
	l := node(t)
	a := attachment("a", sandbox(t), "10.1.0.2")
	create(t, l, a)
	for where, out := range map[string]string{
		"host": run(t, "ip", "link", "show", a.HostInterface), "pod": within(t, a.Netns, "ip", "link", "show", a.IfName),
	} {
		if !strings.Contains(out, "NOARP") {
			t.Errorf("the %s side speaks ARP: %s", where, out)
		}
	}
}
