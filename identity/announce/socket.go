package announce

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// socket sends from one address and receives what comes for it.
type socket struct {
	conn    *net.UDPConn
	address netip.Addr
}

// listen binds to the address, which need not be there yet.
func listen(address netip.AddrPort) (*socket, error) {
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(fd uintptr) { failed = prepare(int(fd), address.Addr()) })
		return errors.Join(err, failed)
	}}
	conn, err := config.ListenPacket(context.Background(), "udp", address.String())
	if err != nil {
		return nil, fmt.Errorf("listen for hints on %s: %w", address, err)
	}
	return &socket{conn: conn.(*net.UDPConn), address: address.Addr()}, nil
}

// prepare asks that the kernel says by which device each packet came: a process of this node could use any address.
func prepare(fd int, address netip.Addr) error {
	level, bind, device := unix.IPPROTO_IP, unix.IP_FREEBIND, unix.IP_PKTINFO
	if address.Is6() {
		level, bind, device = unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, unix.IPV6_RECVPKTINFO
	}
	return errors.Join(unix.SetsockoptInt(fd, level, bind, 1), unix.SetsockoptInt(fd, level, device, 1))
}

// send gives no error: a hint is sent several times, and the API says the same.
func (s *socket) send(packet []byte, to netip.AddrPort) {
	_, _ = s.conn.WriteToUDPAddrPort(packet, to)
}

// receive calls back for each packet until the socket is closed.
func (s *socket) receive(hear func(packet []byte, from netip.AddrPort, device int)) {
	b, about := make([]byte, maxLength+1), make([]byte, 256)
	for {
		n, m, _, from, err := s.conn.ReadMsgUDPAddrPort(b, about)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		hear(b[:n], netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), s.device(about[:m]))
	}
}

// device is the index of the one that a packet came by, or 0.
func (s *socket) device(about []byte) int {
	if s.address.Is4() {
		var m ipv4.ControlMessage
		if m.Parse(about) != nil {
			return 0
		}
		return m.IfIndex
	}
	var m ipv6.ControlMessage
	if m.Parse(about) != nil {
		return 0
	}
	return m.IfIndex
}
