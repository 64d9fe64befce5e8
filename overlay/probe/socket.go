package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// IP and UDP headers, which belong to a packet's size.
const (
	headers4 = 20 + 8
	headers6 = 40 + 8
)

// socket sends from one address and receives what comes for it.
type socket struct {
	conn    *net.UDPConn
	headers int
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
		return nil, fmt.Errorf("listen for probes on %s: %w", address, err)
	}
	s := &socket{conn: conn.(*net.UDPConn), headers: headers4}
	if address.Addr().Is6() {
		s.headers = headers6
	}
	return s, nil
}

// prepare asks that packets are sent at their size or not at all, whatever the route's MTU is.
func prepare(fd int, address netip.Addr) error {
	level, discover, probe, bind := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE, unix.IP_FREEBIND
	if address.Is6() {
		level, discover, probe, bind = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE, unix.IPV6_FREEBIND
	}
	return errors.Join(
		unix.SetsockoptInt(fd, level, bind, 1),
		unix.SetsockoptInt(fd, level, discover, probe),
	)
}

// send gives no error: what is not sent is not answered.
func (s *socket) send(p packet, size int, to netip.AddrPort) {
	_, _ = s.conn.WriteToUDPAddrPort(p.encode(size-s.headers), to)
}

// receive calls back for each probe until the socket is closed.
func (s *socket) receive(take func(*socket, packet, netip.AddrPort)) {
	b := make([]byte, headLength)
	for {
		// What does not fit is cut off: it is padding.
		n, from, err := s.conn.ReadFromUDPAddrPort(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		if p, err := parse(b[:n]); err == nil {
			take(s, p, netip.AddrPortFrom(from.Addr().Unmap(), from.Port()))
		}
	}
}
