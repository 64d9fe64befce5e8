package window

import (
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// epoch is where datagrams count their time from: the monotonic clock of this process.
var epoch = time.Now()

// Flow is a datagram a period from one pod to another, or a record a period on a TCP connection.
type Flow struct {
	From, To *End

	lab      *Lab
	id       uint32
	socket   int
	accepted int           // the receiver's end of a connection, 0 for datagrams
	target   unix.Sockaddr // nil on a connection

	mu    sync.Mutex
	seen  Count
	mark  time.Time
	prior time.Duration // when the last datagram was sent
}

// Count is what became of a flow's datagrams that were sent after its mark.
type Count struct {
	Sent, Delivered int
	First           time.Time     // when the first of them arrived
	Lost            time.Time     // when the one before it was sent, which did not arrive
	LastSent        time.Time     // when the last that arrived was sent
	Gap             time.Duration // the longest time between two arrivals
	last            time.Time
}

func (f *Flow) String() string {
	return fmt.Sprintf("%s (%s) → %s (%s)", f.From.Address, f.From.Node, f.To.Address, f.To.Node)
}

// record is what a datagram bears, or a piece of a connection.
type record struct {
	flow        uint32
	sent, prior time.Duration // since epoch: when it was sent, and the one before it
}

const recordSize = 4 + 8 + 8

func (r record) encode() (b [recordSize]byte) {
	binary.BigEndian.PutUint32(b[:], r.flow)
	binary.BigEndian.PutUint64(b[4:], uint64(r.sent))
	binary.BigEndian.PutUint64(b[12:], uint64(r.prior))
	return b
}

func decode(b [recordSize]byte) record {
	return record{
		flow: binary.BigEndian.Uint32(b[:]),
		sent: time.Duration(binary.BigEndian.Uint64(b[4:])), prior: time.Duration(binary.BigEndian.Uint64(b[12:])),
	}
}

// send does not care for errors: before its routes are there, a pod can send nothing, and that is as denied.
func (f *Flow) send() {
	f.mu.Lock()
	r := record{flow: f.id, sent: time.Since(epoch), prior: f.prior}
	f.prior = r.sent
	f.seen.Sent++
	f.mu.Unlock()
	datagram := r.encode()
	if f.target == nil {
		_ = unix.Send(f.socket, datagram[:], unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		return
	}
	_ = unix.Sendto(f.socket, datagram[:], unix.MSG_DONTWAIT, f.target)
}

// connect opens the flow's connection. A record that TCP sends again counts as sent when it was written first.
func (f *Flow) connect() error {
	listener, err := f.To.socket(unix.SOCK_STREAM, f.port())
	if err != nil {
		return err
	}
	defer unix.Close(listener)
	if err := unix.Listen(listener, 1); err != nil {
		return err
	}
	if f.socket, err = f.From.socket(unix.SOCK_STREAM, f.port()); err != nil {
		return err
	}
	for _, option := range []struct{ level, name int }{{unix.IPPROTO_TCP, unix.TCP_NODELAY}, {unix.IPPROTO_TCP, unix.TCP_SYNCNT}} {
		if err := unix.SetsockoptInt(f.socket, option.level, option.name, 1); err != nil {
			return err
		}
	}
	if err := unix.Connect(f.socket, sockaddr(f.To.Address, f.port())); err != nil {
		return err
	}
	if f.accepted, _, err = unix.Accept4(listener, unix.SOCK_CLOEXEC); err != nil {
		return err
	}
	go f.read()
	return nil
}

// read takes the connection's records until it ends.
func (f *Flow) read() {
	defer unix.Close(f.accepted)
	var buf [recordSize]byte
	for filled := 0; ; {
		n, err := unix.Read(f.accepted, buf[filled:])
		if err == unix.EINTR {
			continue
		}
		if n <= 0 {
			return
		}
		if filled += n; filled == recordSize {
			filled = 0
			f.deliver(decode(buf), time.Now())
		}
	}
}

// port is the flow's own.
func (f *Flow) port() uint16 { return uint16(firstPort + f.id%flowPorts) }

func (f *Flow) deliver(r record, now time.Time) {
	at := epoch.Add(r.sent)
	f.mu.Lock()
	defer f.mu.Unlock()
	if at.Before(f.mark) {
		return
	}
	if f.seen.Delivered == 0 {
		f.seen.First, f.seen.Lost = now, epoch.Add(r.prior)
	} else {
		f.seen.Gap = max(f.seen.Gap, now.Sub(f.seen.last))
	}
	f.seen.Delivered++
	f.seen.LastSent, f.seen.last = at, now
}

// Mark begins the count anew: from then on only what is sent later counts.
func (f *Flow) Mark(at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mark, f.seen = at, Count{}
}

// Count returns what was seen since the mark.
func (f *Flow) Count() Count {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seen
}

// Stop ends the flow. What is under way still counts.
func (f *Flow) Stop() {
	f.lab.mu.Lock()
	defer f.lab.mu.Unlock()
	if _, runs := f.lab.flows[f.id]; !runs {
		return
	}
	delete(f.lab.flows, f.id)
	if f.accepted > 0 {
		_ = unix.Shutdown(f.accepted, unix.SHUT_RDWR)
	}
	unix.Close(f.socket)
}
