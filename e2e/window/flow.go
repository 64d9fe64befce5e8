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

// Flow is a datagram a millisecond from one pod to another.
type Flow struct {
	From, To *End

	lab    *Lab
	id     uint32
	socket int
	target unix.Sockaddr

	mu   sync.Mutex
	seen Count
	mark time.Time
}

// Count is what became of a flow's datagrams that were sent after its mark.
type Count struct {
	Sent, Delivered int
	First           time.Time     // when the first of them arrived
	LastSent        time.Time     // when the last that arrived was sent
	Gap             time.Duration // the longest time between two arrivals
	last            time.Time
}

func (f *Flow) String() string {
	return fmt.Sprintf("%s (%s) → %s (%s)", f.From.Address, f.From.Node, f.To.Address, f.To.Node)
}

// send does not care for errors: before its routes are there, a pod can send nothing, and that is as denied.
func (f *Flow) send() {
	now := time.Now()
	var datagram [12]byte
	binary.BigEndian.PutUint32(datagram[:], f.id)
	binary.BigEndian.PutUint64(datagram[4:], uint64(now.Sub(epoch)))
	f.mu.Lock()
	f.seen.Sent++
	f.mu.Unlock()
	_ = unix.Sendto(f.socket, datagram[:], unix.MSG_DONTWAIT, f.target)
}

func (f *Flow) deliver(sent time.Duration, now time.Time) {
	at := epoch.Add(sent)
	f.mu.Lock()
	defer f.mu.Unlock()
	if at.Before(f.mark) {
		return
	}
	if f.seen.Delivered == 0 {
		f.seen.First = now
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
	unix.Close(f.socket)
}
