package tap

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/kithnet/kith/policy/dns"
)

// The numbers under which answers are copied to us: those that wait for us, and all others.
const (
	heldGroup = 7953
	copyGroup = 7954
)

// What x/sys does not have of the kernel's header (linux/netfilter/nfnetlink_log.h).
const (
	logPacket, logConfig                       = 0, 1
	configCommand, configMode, configThreshold = 1, 2, 5
	commandBind, copyPacket                    = 1, 2
	attrOutInterface, attrPayload, attrPrefix  = 5, 9, 10
	subsystem                                  = netlink.HeaderType(unix.NFNL_SUBSYS_ULOG << 8)
	sizeofNfgenmsg                             = 4
)

const (
	// heldBuffer has room for all that may wait, the kernel doubles it: a copy that is lost is an answer that is lost.
	heldBuffer = 33 << 20
	// copyBuffer has room for some: a copy that is lost is not heard, and nothing else.
	copyBuffer = 1 << 20
	// longestCopy is that of the longest packet that is copied, with what the kernel says of it.
	longestCopy = longestHeard + 1<<10
)

// answer is a copy of one, on its way out by a link to a pod. Held is one that was taken out of the way.
type answer struct {
	packet []byte
	link   int
	held   bool
	pod    netip.Addr
	note   string
}

// copies are a socket that gets them.
type copies struct {
	conn *netlink.Conn
	raw  syscall.RawConn
	held bool
}

// openCopies opens a socket whose buffer is what its group needs.
func openCopies(group uint16) (*copies, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, err
	}
	c := &copies{conn: conn, held: group == heldGroup}
	size := copyBuffer
	if c.held {
		size = heldBuffer
	}
	if err = conn.SetReadBuffer(size); err == nil {
		err = bind(conn, group)
	}
	if err == nil {
		c.raw, err = conn.SyscallConn()
	}
	if err != nil {
		return nil, fmt.Errorf("take copies of group %d: %w", group, errors.Join(err, conn.Close()))
	}
	return c, nil
}

// bind asks for whole packets, each at once.
func bind(c *netlink.Conn, group uint16) error {
	for _, a := range []netlink.Attribute{
		{Type: configCommand, Data: []byte{commandBind}},
		{Type: configMode, Data: []byte{0, 0, 0xff, 0xff, copyPacket, 0}},
		{Type: configThreshold, Data: []byte{0, 0, 0, 1}},
	} {
		data, err := netlink.MarshalAttributes([]netlink.Attribute{a})
		if err != nil {
			return err
		}
		header := netlink.Header{Type: subsystem | logConfig, Flags: netlink.Request | netlink.Acknowledge}
		if _, err := c.Execute(netlink.Message{Header: header, Data: append([]byte{unix.AF_UNSPEC, 0, byte(group >> 8), byte(group)}, data...)}); err != nil {
			return err
		}
	}
	return nil
}

func (c *copies) close() error { return c.conn.Close() }

// wake has all reading end.
func (c *copies) wake() { _ = c.conn.SetReadDeadline(time.Unix(0, 1)) }

// errDrained is that nothing is left in the socket, and that it is time, or ctx has ended.
var errDrained = errors.New("nothing is left to read")

// read waits for the next message until a time. After that it reads what is left, and then returns errDrained.
func (c *copies) read(ctx context.Context, buffer []byte, until time.Time) ([]answer, error) {
	var n int
	var failed error
	try := func(fd uintptr) bool {
		n, _, failed = unix.Recvfrom(int(fd), buffer, unix.MSG_DONTWAIT)
		return !errors.Is(failed, unix.EAGAIN)
	}
	for {
		err := c.raw.Control(func(fd uintptr) { try(fd) })
		if err == nil && errors.Is(failed, unix.EAGAIN) {
			if ctx.Err() != nil || !time.Now().Before(until) {
				return nil, errDrained
			}
			if err = c.conn.SetReadDeadline(until); err == nil {
				err = c.raw.Read(try)
			}
		}
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded), err == nil && errors.Is(failed, unix.EINTR):
			continue
		case err != nil:
			return nil, err
		case failed != nil:
			return nil, failed
		}
		return c.parse(buffer[:n]), nil
	}
}

// parse reads the messages in a datagram.
func (c *copies) parse(datagram []byte) (out []answer) {
	all, err := syscall.ParseNetlinkMessage(datagram)
	if err != nil {
		return nil
	}
	for _, m := range all {
		if netlink.HeaderType(m.Header.Type) != subsystem|logPacket || len(m.Data) < sizeofNfgenmsg {
			continue
		}
		if a, ok := parse(m.Data[sizeofNfgenmsg:]); ok {
			a.held = c.held
			out = append(out, a)
		}
	}
	return out
}

// parse reads what the kernel says of one packet, into memory of its own.
func parse(attributes []byte) (answer, bool) {
	d, err := netlink.NewAttributeDecoder(attributes)
	if err != nil {
		return answer{}, false
	}
	var a answer
	for d.Next() {
		switch b := d.Bytes(); {
		case d.Type() == attrPayload:
			a.packet = append([]byte(nil), b...)
		case d.Type() == attrPrefix && len(b) > 0:
			a.note = string(b[:len(b)-1])
		case d.Type() == attrOutInterface && len(b) == 4:
			a.link = int(b[0])<<24 | int(b[1])<<16 | int(b[2])<<8 | int(b[3])
		}
	}
	var ok bool
	_, a.pod, ok = dns.Ends(a.packet)
	return a, ok && d.Err() == nil
}
