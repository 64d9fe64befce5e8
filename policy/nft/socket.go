package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"syscall"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	socketBuffer = 8 << 20
	// attempts is how often a listing is begun again when somebody's transaction, in whatever table, interrupts it.
	attempts = 50
	// sizeofNfgenmsg is how much comes before the attributes of a message: the family, a version, a resource.
	sizeofNfgenmsg = 4
)

// socket is a netlink socket that speaks to nftables. The kernel works a message off while it is being sent, so
// answers are there when sending returns.
type socket struct {
	conn *netlink.Conn
	raw  syscall.RawConn
	port uint32
	buf  []byte

	mu  sync.Mutex // one batch goes at a time
	seq uint32
	out []byte
	own ownership
}

func dial(ns int) (*socket, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: ns})
	if err != nil {
		return nil, fmt.Errorf("open netfilter socket: %w", err)
	}
	s := &socket{conn: conn, buf: make([]byte, 1<<16)}
	if err := s.setUp(); err != nil {
		return nil, errors.Join(fmt.Errorf("set up netfilter socket: %w", err), conn.Close())
	}
	return s, nil
}

func (s *socket) setUp() error {
	if err := errors.Join(s.conn.SetReadBuffer(socketBuffer), s.conn.SetWriteBuffer(socketBuffer),
		s.conn.SetOption(netlink.ExtendedAcknowledge, true), s.conn.SetOption(netlink.CapAcknowledge, true)); err != nil {
		return err
	}
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return err
	}
	s.raw = raw
	var address unix.Sockaddr
	if cerr := raw.Control(func(fd uintptr) { address, err = unix.Getsockname(int(fd)) }); cerr != nil || err != nil {
		return errors.Join(cerr, err)
	}
	s.port = address.(*unix.SockaddrNetlink).Pid
	return nil
}

// send numbers the messages and sends them as one. It does without the methods of conn, which start a goroutine each
// time: that costs as much as all the rest of a small batch.
func (s *socket) send(messages []netlink.Message) error {
	s.out = s.out[:0]
	for i := range messages {
		h := &messages[i].Header
		s.seq++
		h.Sequence = s.seq
		s.out = binary.NativeEndian.AppendUint32(s.out, uint32(unix.SizeofNlMsghdr+len(messages[i].Data)))
		s.out = binary.NativeEndian.AppendUint16(s.out, uint16(h.Type))
		s.out = binary.NativeEndian.AppendUint16(s.out, uint16(h.Flags))
		s.out = binary.NativeEndian.AppendUint32(s.out, h.Sequence)
		s.out = append(append(s.out, 0, 0, 0, 0), messages[i].Data...)
	}
	var err error
	werr := s.raw.Write(func(fd uintptr) bool {
		err = unix.Sendto(int(fd), s.out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		return !errors.Is(err, unix.EAGAIN)
	})
	return errors.Join(werr, err)
}

// receive reads what one call gives. Nothing there is no error: it gives nothing.
func (s *socket) receive() ([]byte, error) {
	var n int
	var err error
	rerr := s.raw.Read(func(fd uintptr) bool {
		n, _, err = unix.Recvfrom(int(fd), s.buf, unix.MSG_DONTWAIT)
		return true
	})
	if errors.Is(err, unix.EAGAIN) {
		return nil, rerr
	}
	return s.buf[:max(n, 0)], errors.Join(rerr, err)
}

// reply is one message from the kernel.
type reply struct {
	typ   uint16
	flags netlink.HeaderFlags
	seq   uint32
	data  []byte
}

func replies(b []byte) []reply {
	var out []reply
	for len(b) >= unix.SizeofNlMsghdr {
		n := int(binary.NativeEndian.Uint32(b))
		if n < unix.SizeofNlMsghdr || n > len(b) {
			break
		}
		out = append(out, reply{binary.NativeEndian.Uint16(b[4:]), netlink.HeaderFlags(binary.NativeEndian.Uint16(b[6:])),
			binary.NativeEndian.Uint32(b[8:]), b[unix.SizeofNlMsghdr:n]})
		b = b[min(len(b), (n+3)&^3):]
	}
	return out
}

// drain throws away what an earlier exchange left.
func (s *socket) drain() error {
	for {
		b, err := s.receive()
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			return fmt.Errorf("empty netfilter socket: %w", err)
		}
		if b == nil {
			return nil
		}
	}
}

var errInterrupted = errors.New("other transactions interrupted the listing again and again")

// dump lists what the kernel has of one kind, narrowed down by attributes.
func (s *socket) dump(typ uint16, narrow ...netlink.Attribute) ([][]byte, error) {
	err := errInterrupted
	for range attempts {
		var out [][]byte
		if out, err = s.list(typ, netlink.Dump, narrow...); !errors.Is(err, errInterrupted) {
			return out, err
		}
	}
	return nil, err
}

func (s *socket) list(typ uint16, flags netlink.HeaderFlags, narrow ...netlink.Attribute) ([][]byte, error) {
	if err := s.drain(); err != nil {
		return nil, err
	}
	data, err := netlink.MarshalAttributes(narrow)
	if err != nil {
		return nil, err
	}
	header := netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | typ), Flags: netlink.Request | flags}
	if err := s.send([]netlink.Message{{Header: header, Data: append([]byte{unix.NFPROTO_INET, 0, 0, 0}, data...)}}); err != nil {
		return nil, err
	}
	var out [][]byte
	for interrupted := false; ; {
		b, err := s.receive()
		if err != nil {
			return nil, err
		}
		if b == nil {
			return out, nil
		}
		for _, r := range replies(b) {
			interrupted = interrupted || r.flags&netlink.DumpInterrupted != 0
			switch done, err := ended(r); {
			case err != nil:
				return nil, err
			case done && interrupted:
				return nil, errInterrupted
			case done:
				return out, nil
			case len(r.data) >= sizeofNfgenmsg:
				out = append(out, append([]byte(nil), r.data[sizeofNfgenmsg:]...))
			}
		}
	}
}

// ended says whether a reply is the last of a listing, and with what error.
func ended(r reply) (bool, error) {
	if r.typ != unix.NLMSG_DONE && r.typ != unix.NLMSG_ERROR {
		return false, nil
	}
	if len(r.data) < 4 {
		return true, nil
	}
	if errno := unix.Errno(-int32(binary.NativeEndian.Uint32(r.data))); errno != 0 {
		return true, errno
	}
	return true, nil
}
