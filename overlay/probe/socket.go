package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/kithnet/kith/overlay/path"
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
	class   int // of what is sent: the byte of IP's header that has the ECN bits
}

// ect1 marks a probe that is to stay whole. Nobody else uses it in a tunnel, but for few senders of TCP that know L4S.
const ect1 = 1

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

// ask sends a probe, marked if it is to stay whole.
func (s *socket) ask(p path.Probe, to netip.AddrPort) {
	class := 0
	if p.Whole {
		class = ect1
	}
	if err := s.mark(class); err != nil {
		return // what is not sent is not answered
	}
	s.send(packet{question, p.Number}, p.Size, to)
}

// mark sets the class of what is sent from now on.
func (s *socket) mark(class int) error {
	if class == s.class {
		return nil
	}
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("mark probes: %w", err)
	}
	level, option := unix.IPPROTO_IP, unix.IP_TOS
	if s.headers == headers6 {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_TCLASS
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), level, option, class) })
	if err = errors.Join(err, failed); err != nil {
		return fmt.Errorf("mark probes: %w", err)
	}
	s.class = class
	return nil
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
