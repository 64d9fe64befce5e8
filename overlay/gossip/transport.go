package gossip

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"
	"golang.org/x/sys/unix"
)

// transport carries memberlist's packets and streams over one UDP and one TCP socket, both bound to the member's own
// address. What comes has to pass the gate, and must then be a message of a member: much else that bears the cluster's
// key would take memberlist unbounded time or memory, or end the process. Packets are read into one buffer: one that waits
// takes what it is long, and not 64 KiB as in memberlist's own transport.
type transport struct {
	bind    netip.AddrPort
	gate    *gate
	udp     *net.UDPConn
	tcp     *net.TCPListener
	packets chan *memberlist.Packet
	streams chan net.Conn
	closed  chan struct{}
	readers sync.WaitGroup
	once    sync.Once
	keys    func() [][]byte
	// stranger counts what bears none of the cluster's keys.
	stranger func(text string)
}

const (
	receiveBuffer = 2 << 20
	errorPause    = 100 * time.Millisecond
)

func listen(bind netip.AddrPort, g *gate, keys func() [][]byte, stranger func(string)) (*transport, error) {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error { return control(c, prepare) }}
	udp, err := config.ListenPacket(context.Background(), "udp", bind.String())
	if err != nil {
		return nil, err
	}
	tcp, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(bind))
	if err != nil {
		return nil, errors.Join(err, udp.Close())
	}
	t := &transport{
		bind: bind, gate: g, keys: keys, stranger: stranger, udp: udp.(*net.UDPConn), tcp: tcp,
		packets: make(chan *memberlist.Packet), streams: make(chan net.Conn), closed: make(chan struct{}),
	}
	return t, nil
}

// serve begins to take what comes.
func (t *transport) serve() {
	t.readers.Go(t.readPackets)
	t.readers.Go(t.acceptStreams)
}

func control(c syscall.RawConn, set func(fd int) error) error {
	var err error
	if outer := c.Control(func(fd uintptr) { err = set(int(fd)) }); outer != nil {
		return outer
	}
	return err
}

// prepare makes room for bursts, and lets the kernel say what it drops. Only an administrator of the network may go
// beyond the system's limit.
func prepare(fd int) error {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer); err != nil {
			return fmt.Errorf("enlarge receive buffer: %w", err)
		}
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1); err != nil {
		return fmt.Errorf("have dropped packets counted: %w", err)
	}
	return nil
}

func (t *transport) readPackets() {
	buffer, oob := make([]byte, maxPacket+1), make([]byte, unix.CmsgSpace(4))
	for {
		n, oobn, _, from, err := t.udp.ReadMsgUDPAddrPort(buffer, oob)
		at := time.Now()
		if err != nil {
			if !t.again(err) {
				return
			}
			continue
		}
		t.overflow(oob[:oobn])
		if !t.gate.packet(from.Addr().Unmap(), n) {
			continue
		}
		if !t.reads(buffer[:n], from) {
			continue
		}
		p := &memberlist.Packet{Buf: bytes.Clone(buffer[:n]), From: net.UDPAddrFromAddrPort(from), Timestamp: at}
		select {
		case t.packets <- p:
		case <-t.closed:
			return
		}
	}
}

// reads tells whether memberlist may have a packet.
func (t *transport) reads(packet []byte, from netip.AddrPort) bool {
	text, ok := open(t.keys(), packet, nil)
	if !ok {
		t.stranger("packet from " + from.String())
		return false
	}
	if !packetIsPlain(text) {
		t.gate.count(Unreadable)
		return false
	}
	return true
}

// overflow reads the kernel's count of dropped packets, which comes with a packet once there are any.
func (t *transport) overflow(oob []byte) {
	if len(oob) == 0 {
		return
	}
	header, data, _, err := unix.ParseOneSocketControlMessage(oob)
	if err == nil && header.Level == unix.SOL_SOCKET && header.Type == unix.SO_RXQ_OVFL && len(data) >= 4 {
		t.gate.overflow(binary.NativeEndian.Uint32(data))
	}
}

func (t *transport) acceptStreams() {
	for {
		c, err := t.tcp.AcceptTCP()
		if err != nil {
			if !t.again(err) {
				return
			}
			continue
		}
		pass := t.gate.stream(c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap())
		if pass == nil {
			c.SetLinger(0)
			c.Close()
			continue
		}
		select {
		case t.streams <- &stream{Conn: c, keys: t.keys, toll: pass}:
		case <-t.closed:
			c.Close()
			return
		}
	}
}

// again waits a little after an error that may pass.
func (t *transport) again(err error) bool {
	if errors.Is(err, net.ErrClosed) {
		return false
	}
	select {
	case <-t.closed:
		return false
	case <-time.After(errorPause):
		return true
	}
}

// FinalAdvertiseAddr implements memberlist.Transport.
func (t *transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return t.bind.Addr().AsSlice(), int(t.bind.Port()), nil
}

// WriteTo implements memberlist.Transport.
func (t *transport) WriteTo(b []byte, addr string) (time.Time, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return time.Time{}, err
	}
	_, err = t.udp.WriteToUDPAddrPort(b, to)
	return time.Now(), err
}

// WriteToAddress implements memberlist.NodeAwareTransport.
func (t *transport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	return t.WriteTo(b, a.Addr)
}

// DialTimeout implements memberlist.Transport. The others know this member by the address it is bound to.
func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	d := net.Dialer{Timeout: timeout, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(t.bind.Addr(), 0))}
	c, err := d.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return &stream{Conn: c, keys: t.keys}, nil
}

// DialAddressTimeout implements memberlist.NodeAwareTransport.
func (t *transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return t.DialTimeout(a.Addr, timeout)
}

// PacketCh implements memberlist.Transport.
func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// StreamCh implements memberlist.Transport.
func (t *transport) StreamCh() <-chan net.Conn { return t.streams }

// Shutdown implements memberlist.Transport.
func (t *transport) Shutdown() error {
	var failed error
	t.once.Do(func() {
		close(t.closed)
		failed = errors.Join(t.udp.Close(), t.tcp.Close())
		t.readers.Wait()
	})
	return failed
}
