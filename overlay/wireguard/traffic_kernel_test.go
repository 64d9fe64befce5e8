//go:build kernel

package wireguard_test

import (
	"context"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kithnet/kith/overlay"
	"github.com/kithnet/kith/overlay/wireguard"
)

const echoPort = 7

// echo answers UDP on the node's mesh and pod address of each of its CIDRs.
func (n *node) echo() {
	n.lab.tb.Helper()
	for _, cidr := range n.api.PodCIDRs {
		n.answer(overlay.MeshAddress(cidr))
		n.answer(podAddr(cidr))
	}
}

// answer has a socket of its own for each address, so that answers come from where
// they were asked. The address need not be there yet.
func (n *node) answer(addr netip.Addr) {
	n.lab.tb.Helper()
	listen := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1) })
	}}
	var conn net.PacketConn
	var err error
	n.do(func() {
		conn, err = listen.ListenPacket(context.Background(), "udp", netip.AddrPortFrom(addr, echoPort).String())
	})
	if err != nil {
		n.lab.tb.Fatalf("%s: listen on %s: %v", n.api.Name, addr, err)
	}
	n.lab.tb.Cleanup(func() { conn.Close() })
	go func() {
		buf := make([]byte, 65536)
		for {
			size, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			conn.WriteTo(buf[:size], from)
		}
	}()
}

// dial opens a socket from the node to an address's echo.
func (n *node) dial(to netip.Addr) (conn *net.UDPConn, err error) {
	n.do(func() {
		conn, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, echoPort)))
	})
	return conn, err
}

// reaches tells whether an answer from the address comes in time.
func (n *node) reaches(to netip.Addr, limit time.Duration) bool {
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if n.asks(to) {
			return true
		}
	}
	return false
}

func (n *node) asks(to netip.Addr) bool {
	conn, err := n.dial(to)
	if err != nil {
		return false
	}
	defer conn.Close()
	return once(conn, 300*time.Millisecond)
}

func once(conn *net.UDPConn, wait time.Duration) bool {
	if _, err := conn.Write([]byte("kith")); err != nil {
		return false
	}
	conn.SetReadDeadline(time.Now().Add(wait))
	buf := make([]byte, 16)
	size, err := conn.Read(buf)
	return err == nil && string(buf[:size]) == "kith"
}

func mustReach(tb testing.TB, from *node, to netip.Addr) {
	tb.Helper()
	if !from.reaches(to, patience) {
		tb.Errorf("%s does not reach %s", from.api.Name, to)
	}
}

// mustReachAll checks every pair, mesh and pod address, both families.
func (l *lab) mustReachAll() {
	l.tb.Helper()
	for _, from := range l.nodes {
		for _, to := range l.nodes {
			if from == to {
				continue
			}
			for _, cidr := range to.api.PodCIDRs {
				mustReach(l.tb, from, overlay.MeshAddress(cidr))
				mustReach(l.tb, from, podAddr(cidr))
			}
		}
	}
}

// transfer sends size bytes over TCP and returns how long it took.
func transfer(tb testing.TB, from, to *node, addr netip.Addr, size int) time.Duration {
	tb.Helper()
	var listener *net.TCPListener
	var err error
	to.do(func() { listener, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(addr, 0))) })
	if err != nil {
		tb.Fatalf("listen on %s: %v", addr, err)
	}
	defer listener.Close()
	received := make(chan int64, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			received <- 0
			return
		}
		defer conn.Close()
		n, _ := io.Copy(io.Discard, conn)
		received <- n
	}()
	return send(tb, from, listener.Addr().(*net.TCPAddr), size, received)
}

func send(tb testing.TB, from *node, to *net.TCPAddr, size int, received chan int64) time.Duration {
	tb.Helper()
	var conn *net.TCPConn
	var err error
	from.do(func() { conn, err = net.DialTCP("tcp", nil, to) })
	if err != nil {
		tb.Fatalf("dial %s: %v", to, err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	start := time.Now()
	chunk := make([]byte, 128<<10)
	for left := size; left > 0; left -= len(chunk) {
		if _, err := conn.Write(chunk[:min(left, len(chunk))]); err != nil {
			tb.Fatalf("send to %s: %v", to, err)
		}
	}
	conn.CloseWrite()
	if n := <-received; n != int64(size) {
		tb.Errorf("%s received %d of %d bytes", to, n, size)
	}
	return time.Since(start)
}

// TestStalledProcessLosesNothing: what is sent while wireguard-go gets no processor time, on either end, waits.
func TestStalledProcessLosesNothing(t *testing.T) {
	l := newLab(t, 1500)
	l.only(wireguard.Userspace)
	packets := window(l.mode)
	a, b := l.addNode(overlay.IPv4), l.addNode(overlay.IPv4)
	b.echo()
	l.reconcile()
	mustReach(t, a, podAddr(b.api.PodCIDRs[0]))
	for _, stalled := range []*node{a, b} {
		s := newStream(a, b)
		if err := stalled.process.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		for s.underWay() < packets {
			time.Sleep(time.Millisecond)
		}
		if err := stalled.process.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		if sent, lost := s.stop(); lost > 0 {
			t.Errorf("%s stalled for %d packets: %d of %d lost", stalled.api.Name, packets, lost, sent)
		}
	}
}
