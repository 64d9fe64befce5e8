//go:build kernel

package veth

import (
	"encoding/binary"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// TestForgedNeighboursChangeNothing has a pod say of its own, of another pod's, of its gateway's and of the node's
// address that they are at another MAC, by ARP and by neighbour advertisements. Nobody learns it.
func TestForgedNeighboursChangeNothing(t *testing.T) {
	l := node(t)
	liar := attachment("a", sandbox(t), "10.1.0.2", "fd00::2")
	other := attachment("b", sandbox(t), "10.1.0.3", "fd00::3")
	create(t, l, liar)
	create(t, l, other)
	before := run(t, "ip", "neigh") + within(t, other.Netns, "ip", "neigh")
	received := received(t, liar.HostInterface)
	var frames [][]byte
	for _, addr := range []string{"10.1.0.2", "10.1.0.3", "169.254.1.1", "192.0.2.1", "fd00::2", "fd00::3", "fe80::1", "2001:db8::1"} {
		frames = append(frames, forged(netip.MustParseAddr(addr), net.HardwareAddr(liar.PodMAC[:])))
	}
	send(t, liar.Netns, frames)
	for end := time.Now().Add(20 * time.Second); received() < uint64(len(frames)); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the frames do not reach the node")
		}
	}
	for _, addr := range slices.Concat(liar.Addresses, other.Addresses) {
		run(t, "ping", "-c1", "-W20", addr.String())
	}
	if after := run(t, "ip", "neigh") + within(t, other.Netns, "ip", "neigh"); after != before {
		t.Errorf("neighbours were\n%sand are\n%s", before, after)
	}
}

// received counts the packets that come out of an interface from now on.
func received(t *testing.T, name string) func() uint64 {
	t.Helper()
	count := func() uint64 {
		link, err := netlink.LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		return link.Attrs().Statistics.RxPackets
	}
	first := count()
	return func() uint64 { return count() - first }
}

// send puts frames on the wire of a sandbox.
func send(t *testing.T, path string, frames [][]byte) {
	t.Helper()
	done := make(chan error)
	go func() {
		// Never unlocked: the thread ends in the sandbox.
		runtime.LockOSThread()
		done <- sendFrom(path, frames)
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// enter puts the calling thread into a sandbox.
func enter(path string) error {
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return err
	}
	defer ns.Close()
	return netns.Set(ns)
}

func sendFrom(path string, frames [][]byte) error {
	if err := enter(path); err != nil {
		return err
	}
	link, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for _, f := range frames {
		if err := unix.Sendto(fd, f, 0, &unix.SockaddrLinklayer{Ifindex: link.Attrs().Index}); err != nil {
			return err
		}
	}
	return nil
}

// forged says that an address is where nobody is.
func forged(addr netip.Addr, from net.HardwareAddr) []byte {
	nowhere := []byte{2, 0, 0, 0, 0, 0x99}
	if addr.Is4() {
		frame := slices.Concat([]byte{255, 255, 255, 255, 255, 255}, from, []byte{8, 6, 0, 1, 8, 0, 6, 4, 0, 2})
		return slices.Concat(frame, nowhere, addr.AsSlice(), from, addr.AsSlice())
	}
	everybody := netip.MustParseAddr("ff02::1")
	const override = 0x20
	message := slices.Concat([]byte{136, 0, 0, 0, override, 0, 0, 0}, addr.AsSlice(), []byte{2, 1}, nowhere)
	pseudo := slices.Concat(addr.AsSlice(), everybody.AsSlice(), []byte{0, 0, 0, byte(len(message)), 0, 0, 0, 58}, message)
	binary.BigEndian.PutUint16(message[2:], checksum(pseudo))
	header := slices.Concat([]byte{0x60, 0, 0, 0, 0, byte(len(message)), 58, 255}, addr.AsSlice(), everybody.AsSlice())
	return slices.Concat([]byte{0x33, 0x33, 0, 0, 0, 1}, from, []byte{0x86, 0xdd}, header, message)
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
