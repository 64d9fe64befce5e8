package announce

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/net/bpf"
	"golang.org/x/net/ipv4"
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

func prepare(fd int, address netip.Addr) error {
	if address.Is6() {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, 1)
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_FREEBIND, 1)
}

// only makes the socket deaf to all but these devices: a process of this node could use any address. IP_PKTINFO does not
// tell that, as it names the device that has the address.
func (s *socket) only(devices []int) error {
	program := []bpf.Instruction{bpf.LoadExtension{Num: bpf.ExtInterfaceIndex}}
	for _, index := range devices {
		program = append(program, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(index), SkipTrue: 1}, bpf.RetConstant{Val: 1 << 16})
	}
	raw, err := bpf.Assemble(append(program, bpf.RetConstant{Val: 0}))
	if err == nil {
		err = ipv4.NewPacketConn(s.conn).SetBPF(raw)
	}
	if err != nil {
		return fmt.Errorf("hear on %s by the mesh only: %w", s.address, err)
	}
	return nil
}

// send gives no error: a hint is sent several times, and the API says the same.
func (s *socket) send(packet []byte, to netip.AddrPort) {
	_, _ = s.conn.WriteToUDPAddrPort(packet, to)
}

// receive calls back for each packet until the socket is closed.
func (s *socket) receive(hear func(packet []byte, from netip.AddrPort)) {
	b := make([]byte, maxLength+1)
	for {
		n, from, err := s.conn.ReadFromUDPAddrPort(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		hear(b[:n], netip.AddrPortFrom(from.Addr().Unmap(), from.Port()))
	}
}
