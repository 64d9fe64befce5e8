// Package window watches from outside what pods can say to each other, datagram by datagram, from a pod's first instant.
//
// Input: the nodes of a quick cluster. An End is a pod's network namespace, found the moment the container runtime makes
// it, before ADD; its sockets are this process's own, so that no container has to run. A Flow is a datagram a
// period from one End to another, or a record on a TCP connection. Output: for each flow what was sent and delivered, on
// one monotonic clock: all nodes of a quick cluster share this machine's kernel.
//
// Invariants: a flow is one connection with ports of its own, so no flow rides on another's; what is counted as
// delivered has reached a socket in the receiving pod.
//
// Out of scope: which flows should pass. That is the tests' knowledge.
package window

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"time"
	"unsafe"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const (
	port      = 7777  // on which every End listens
	firstPort = 10000 // of the flows' own ports
	flowPorts = 50000
)

// Lab sends all flows' datagrams from one goroutine and collects what arrives.
type Lab struct {
	mu    sync.Mutex
	flows map[uint32]*Flow
	last  uint32
	paces []time.Duration // between two rounds of sending
}

// Start begins to send: on each flow, a datagram each period.
func Start(ctx context.Context, period time.Duration) *Lab {
	l := &Lab{flows: map[uint32]*Flow{}}
	go l.send(ctx, period)
	return l
}

func (l *Lab) send(ctx context.Context, period time.Duration) {
	tick := time.NewTicker(period)
	defer tick.Stop()
	before := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			l.mu.Lock()
			if len(l.flows) > 0 {
				l.paces = append(l.paces, now.Sub(before))
			}
			for _, f := range l.flows {
				f.send()
			}
			l.mu.Unlock()
			before = now
		}
	}
}

// Pace says how far apart the datagrams of a flow really were.
func (l *Lab) Pace() Spread {
	l.mu.Lock()
	defer l.mu.Unlock()
	return SpreadOf(l.paces)
}

// Flow starts a flow of datagrams between two Ends and, at their addresses of now, sends until it is stopped.
func (l *Lab) Flow(from, to *End) (*Flow, error) {
	f := l.between(from, to)
	var err error
	if f.socket, err = from.socket(unix.SOCK_DGRAM, f.port()); err != nil {
		return nil, fmt.Errorf("flow %s: %w", f, err)
	}
	f.target = sockaddr(to.Address, port)
	to.add(f)
	l.run(f)
	return f, nil
}

// Stream opens a TCP connection between two Ends that may speak now, and sends until it is stopped.
func (l *Lab) Stream(from, to *End) (*Flow, error) {
	f := l.between(from, to)
	if err := f.connect(); err != nil {
		return nil, fmt.Errorf("connection %s: %w", f, err)
	}
	l.run(f)
	return f, nil
}

func (l *Lab) between(from, to *End) *Flow {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	return &Flow{lab: l, id: l.last, From: from, To: to}
}

func (l *Lab) run(f *Flow) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flows[f.id] = f
}

// sockaddr: every socket is an IPv6 one, which speaks IPv4 too.
func sockaddr(a netip.Addr, number uint16) unix.Sockaddr {
	return &unix.SockaddrInet6{Port: int(number), Addr: a.As16()}
}

// End is one pod's end of flows.
type End struct {
	Node    string
	Address netip.Addr
	Found   time.Time // when its namespace was made
	Born    time.Time // when its address was there

	root string // of its node
	path string
	ns   netns.NsHandle
	fd   int
	mu   sync.Mutex
	to   map[uint32]*Flow
	done chan struct{}
}

// listen takes what comes to the End, from now on.
func (e *End) listen() error {
	var err error
	if e.fd, err = e.socket(unix.SOCK_DGRAM, port); err != nil {
		return err
	}
	// A reader looks up now and then to see whether it should end.
	if err := unix.SetsockoptTimeval(e.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 200_000}); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(e.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(e.fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
		return err
	}
	e.to = map[uint32]*Flow{}
	go e.read()
	return nil
}

// socket makes a socket in the pod. A socket stays where it was made, whoever uses it.
func (e *End) socket(kind int, number uint16) (int, error) {
	fd := -1
	err := e.inside(func() error {
		var err error
		fd, err = unix.Socket(unix.AF_INET6, kind|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrInet6{Port: int(number)})
	})
	if err != nil && fd >= 0 {
		unix.Close(fd)
	}
	return fd, err
}

// inside runs f on a thread in the pod's namespace; the thread ends with it.
func (e *End) inside(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := netns.Set(e.ns)
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

func (e *End) add(f *Flow) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.to[f.id] = f
}

// read notes when the kernel got a datagram, which may be a while before this process runs.
func (e *End) read() {
	var buf [64]byte
	var control [64]byte
	for {
		select {
		case <-e.done:
			unix.Close(e.fd)
			return
		default:
		}
		n, with, _, _, err := unix.Recvmsg(e.fd, buf[:], control[:], 0)
		if err != nil || n != recordSize {
			continue
		}
		r := decode([recordSize]byte(buf[:]))
		e.mu.Lock()
		f := e.to[r.flow]
		e.mu.Unlock()
		if f != nil {
			f.deliver(r, received(control[:with]))
		}
	}
}

// received is the kernel's time stamp on the monotonic clock; now if it made none.
func received(control []byte) time.Time {
	now := time.Now()
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return now
	}
	for _, m := range messages {
		var stamp unix.Timespec
		if m.Header.Type != unix.SCM_TIMESTAMPNS || len(m.Data) < int(unsafe.Sizeof(stamp)) {
			continue
		}
		stamp = *(*unix.Timespec)(unsafe.Pointer(&m.Data[0]))
		return now.Add(time.Unix(stamp.Unix()).Sub(now.Round(0)))
	}
	return now
}

// Close lets the pod's namespace go. Its flows must have been stopped.
func (e *End) Close() error {
	close(e.done)
	return e.ns.Close()
}

// Spread is how some times are distributed.
type Spread struct {
	Count              int
	P50, P90, P99, Max time.Duration
}

// SpreadOf sorts times.
func SpreadOf(times []time.Duration) Spread {
	s := slices.Clone(times)
	slices.Sort(s)
	at := func(p int) time.Duration {
		if len(s) == 0 {
			return 0
		}
		return s[min(len(s)*p/100, len(s)-1)]
	}
	return Spread{len(s), at(50), at(90), at(99), at(100)}
}

func (s Spread) String() string {
	round := func(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }
	return fmt.Sprintf("p50 %s, p90 %s, p99 %s, max %s (%d times)", round(s.P50), round(s.P90), round(s.P99), round(s.Max), s.Count)
}
