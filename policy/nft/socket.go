package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	socketBuffer = 8 << 20
	// attempts is how often a listing is begun again when somebody's transaction, in whatever table, interrupts it.
	attempts = 50
	// What x/sys does not have of the kernel's header.
	flagDumpInterrupted = 0x10
	flagExtendedError   = 0x200
	errorMessage        = 1 // NLMSGERR_ATTR_MSG
	errorOffset         = 2 // NLMSGERR_ATTR_OFFS
)

// socket is a netlink socket that speaks to nftables. The kernel works a message off while it is being sent, so
// answers are there when send returns.
type socket struct {
	conn *netlink.Conn
	raw  syscall.RawConn
	port uint32
	seq  uint32
	buf  []byte
}

func dial(ns int) (*socket, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: ns})
	if err != nil {
		return nil, fmt.Errorf("open netfilter socket: %w", err)
	}
	s := &socket{conn: conn, seq: 1, buf: make([]byte, 1<<16)}
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

func (s *socket) send(b []byte) error {
	var err error
	werr := s.raw.Write(func(fd uintptr) bool {
		err = unix.Sendto(int(fd), b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
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
	typ, flags uint16
	seq        uint32
	data       []byte
}

func replies(b []byte) []reply {
	var out []reply
	for len(b) >= unix.SizeofNlMsghdr {
		n := int(binary.NativeEndian.Uint32(b))
		if n < unix.SizeofNlMsghdr || n > len(b) {
			break
		}
		out = append(out, reply{binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint16(b[6:]),
			binary.NativeEndian.Uint32(b[8:]), b[unix.SizeofNlMsghdr:n]})
		b = b[min(len(b), (n+3)&^3):]
	}
	return out
}

// refusal is why the kernel did not take a message.
type refusal struct {
	index  int // of the message in its batch; -1: the batch as a whole
	errno  unix.Errno
	detail string
	offset int // of the attribute at fault in the message; 0: none
}

// transact sends a finished batch and gives what the kernel refused of it: nothing if it took all.
func (s *socket) transact(m *batch) ([]refusal, error) {
	if err := s.drain(); err != nil {
		return nil, err
	}
	first := s.seq
	m.number(first)
	s.seq += uint32(len(m.messages)) + 2
	if err := s.send(m.b); err != nil {
		return nil, fmt.Errorf("send %d bytes to the kernel: %w", len(m.b), err)
	}
	var refused []refusal
	answered := false
	for {
		b, err := s.receive()
		if err != nil {
			return nil, fmt.Errorf("read the kernel's answer: %w", err)
		}
		if b == nil {
			break
		}
		for _, r := range replies(b) {
			if f, ok := parseRefusal(r, first); ok {
				answered = true
				if f.errno != 0 {
					refused = append(refused, f)
				}
			}
		}
	}
	if !answered {
		return nil, errors.New("the kernel gave no answer")
	}
	return refused, nil
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

func parseRefusal(r reply, first uint32) (refusal, bool) {
	const fixed = 4 + unix.SizeofNlMsghdr
	if r.typ != unix.NLMSG_ERROR || len(r.data) < fixed || r.seq < first {
		return refusal{}, false
	}
	f := refusal{index: int(r.seq-first) - 1, errno: unix.Errno(-int32(binary.NativeEndian.Uint32(r.data)))}
	if r.flags&flagExtendedError == 0 {
		return f, true
	}
	for _, a := range attributes(r.data[fixed:]) {
		switch {
		case a.typ == errorMessage:
			f.detail = text(a.data)
		case a.typ == errorOffset && len(a.data) == 4:
			f.offset = int(binary.NativeEndian.Uint32(a.data))
		}
	}
	return f, true
}

var errInterrupted = errors.New("other transactions interrupted the listing again and again")

// dump lists what the kernel has of one kind; fill adds the attributes that narrow it down.
func (s *socket) dump(typ uint16, fill func(*batch)) ([][]byte, error) {
	err := errInterrupted
	for range attempts {
		var out [][]byte
		if out, err = s.list(typ, unix.NLM_F_DUMP, fill); !errors.Is(err, errInterrupted) {
			return out, err
		}
	}
	return nil, err
}

func (s *socket) list(typ, flags uint16, fill func(*batch)) ([][]byte, error) {
	if err := s.drain(); err != nil {
		return nil, err
	}
	var m batch
	at := m.begin(typ, flags, "", "")
	fill(&m)
	m.end(at)
	m.number(s.seq)
	s.seq++
	if err := s.send(m.b); err != nil {
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
			interrupted = interrupted || r.flags&flagDumpInterrupted != 0
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
