package window

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Stream is numbered datagrams from one pod to another at a steady rate. A sender that was held up makes good for it. As
// long as what it sends within an eighth of a second is all under way, it waits: no queue between pods is full then for
// want of processor time, so that what is lost was not the machine's to lose.
type Stream struct {
	From, To *End

	rate    int // datagrams a second
	in, out int
	target  unix.Sockaddr
	began   time.Time
	quit    chan struct{}
	sender  sync.WaitGroup
	reader  sync.WaitGroup

	mu     sync.Mutex
	sent   []time.Duration // when, since it began
	heard  []bool
	count  int // of those heard
	latest int // the highest number heard; -1: none
}

// What a held up sender makes good for at once, and what a reader that gets no processor time may find waiting.
const (
	atOnce       = 32
	streamBuffer = 32 << 20
	streamStep   = 2 * time.Millisecond
)

// NewStream starts a stream between two pods, on a port of its own.
func NewStream(from, to *End, number uint16, rate int) (*Stream, error) {
	s := &Stream{From: from, To: to, rate: rate, began: time.Now(), quit: make(chan struct{}), latest: -1}
	s.target = &unix.SockaddrInet6{Port: int(number), Addr: to.Address.As16()}
	var err error
	if s.in, err = to.socket(unix.SOCK_DGRAM, number); err != nil {
		return nil, fmt.Errorf("stream %s: %w", s, err)
	}
	if s.out, err = from.socket(unix.SOCK_DGRAM, number); err != nil {
		unix.Close(s.in)
		return nil, fmt.Errorf("stream %s: %w", s, err)
	}
	err = unix.SetsockoptInt(s.in, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, streamBuffer)
	if err == nil {
		err = unix.SetsockoptTimeval(s.in, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000})
	}
	if err != nil {
		unix.Close(s.in)
		unix.Close(s.out)
		return nil, fmt.Errorf("stream %s: %w", s, err)
	}
	s.sender.Go(s.send)
	s.reader.Go(s.read)
	return s, nil
}

func (s *Stream) String() string { return fmt.Sprintf("%s → %s", s.From.Node, s.To.Node) }

func (s *Stream) send() {
	tick := time.NewTicker(streamStep)
	defer tick.Stop()
	for {
		select {
		case <-s.quit:
			return
		case <-tick.C:
		}
		due := int(time.Since(s.began).Seconds() * float64(s.rate))
		for range min(due-s.next(), atOnce, max(s.rate/8, 1)-s.underWay()) {
			if !s.sendOne() {
				break
			}
		}
	}
}

func (s *Stream) next() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sent)
}

// underWay is how many datagrams may still arrive, and have not been overtaken.
func (s *Stream) underWay() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	recent, _ := slices.BinarySearch(s.sent, time.Since(s.began)-patience)
	return len(s.sent) - max(recent, s.latest+1)
}

// sendOne says whether the kernel took the datagram.
func (s *Stream) sendOne() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	var datagram [8]byte
	binary.BigEndian.PutUint64(datagram[:], uint64(len(s.sent)))
	s.sent, s.heard = append(s.sent, time.Since(s.began)), append(s.heard, false)
	if err := unix.Sendto(s.out, datagram[:], unix.MSG_DONTWAIT, s.target); err != nil {
		s.sent, s.heard = s.sent[:len(s.sent)-1], s.heard[:len(s.heard)-1]
		return false
	}
	return true
}

// read ends when nothing comes any more after the last datagram was sent.
func (s *Stream) read() {
	buf := make([]byte, 16)
	for {
		n, _, err := unix.Recvfrom(s.in, buf, 0)
		if err == nil && n == 8 {
			s.hear(binary.BigEndian.Uint64(buf))
			continue
		}
		select {
		case <-s.quit:
			if s.complete() || time.Since(s.lastSent()) > patience {
				return
			}
		default:
		}
	}
}

// patience is how long a datagram may be under way.
const patience = 5 * time.Second

func (s *Stream) hear(number uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if number < uint64(len(s.heard)) && !s.heard[number] {
		s.heard[number] = true
		s.count++
		s.latest = max(s.latest, int(number))
	}
}

func (s *Stream) complete() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count == len(s.sent)
}

func (s *Stream) lastSent() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.sent) == 0 {
		return s.began
	}
	return s.began.Add(s.sent[len(s.sent)-1])
}

// Stop ends the stream, after what is under way has arrived or cannot any more.
func (s *Stream) Stop() {
	close(s.quit)
	s.sender.Wait()
	s.reader.Wait()
	unix.Close(s.in)
	unix.Close(s.out)
}

// Loss is what became of the datagrams that were sent in some time.
type Loss struct {
	Sent, Lost int
	Runs       []Run
}

// Run is datagrams lost one after the other.
type Run struct {
	First, Last time.Time // when they were sent
	Count       int
}

// Loss tells of a time. The stream must have been stopped.
func (s *Stream) Loss(from, to time.Time) Loss {
	s.mu.Lock()
	defer s.mu.Unlock()
	var l Loss
	before := -2
	for i, offset := range s.sent {
		at := s.began.Add(offset)
		if at.Before(from) || !at.Before(to) {
			continue
		}
		l.Sent++
		if s.heard[i] {
			continue
		}
		l.Lost++
		if before != i-1 {
			l.Runs = append(l.Runs, Run{First: at})
		}
		last := &l.Runs[len(l.Runs)-1]
		last.Last, before = at, i
		last.Count++
	}
	return l
}

func (l Loss) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d of %d lost", l.Lost, l.Sent)
	for i, r := range l.Runs {
		if i == 10 {
			fmt.Fprintf(&b, "; %d runs more", len(l.Runs)-i)
			break
		}
		fmt.Fprintf(&b, "; %d at %s for %s", r.Count, r.First.Format("15:04:05.000"), r.Last.Sub(r.First).Round(time.Millisecond))
	}
	return b.String()
}
