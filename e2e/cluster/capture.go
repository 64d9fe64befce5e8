package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// snapLen is how much of a packet is read: the outer headers and the ports.
const snapLen = 160

// Capture watches every port of the underlay's bridge. One socket takes each packet and counts it by
// class; a second one lets the kernel choose only packets with a pod address in the outer header, so
// that heavy traffic cannot hide one.
type Capture struct {
	all, pods *socket
	links     *netlink.Handle
	names     map[int]string // of links by index; empty: it is none of a node
	prefixes  []netip.Prefix
	done      chan struct{}
	wait      sync.WaitGroup
	mu        sync.Mutex
	report    Report
}

// Report is what a Capture saw.
type Report struct {
	Links    map[string]int // packets by link, both directions
	Classes  map[string]int // packets by class, each counted once, where it enters the bridge
	Exposed  []string       // packets with a pod address in the outer header, the first hundred
	Leaks    int            // how many of those there were
	Missed   int            // packets that only the counting socket had to drop
	MissedAt int            // packets that the leak socket had to drop: must be 0 to rely on Leaks
}

// String prints the report for people.
func (r Report) String() string {
	var b strings.Builder
	table := func(title string, counts map[string]int) {
		fmt.Fprintf(&b, "%s:\n", title)
		var names []string
		for n := range counts {
			names = append(names, n)
		}
		sort.Slice(names, func(i, j int) bool { return counts[names[i]] > counts[names[j]] })
		for _, n := range names {
			fmt.Fprintf(&b, "  %-44s %9d\n", n, counts[n])
		}
	}
	table("packets by underlay link", r.Links)
	table("packets by class", r.Classes)
	fmt.Fprintf(&b, "packets with a pod address in the outer header: %d\n", r.Leaks)
	for _, e := range r.Exposed {
		fmt.Fprintf(&b, "  %s\n", e)
	}
	if r.Missed+r.MissedAt > 0 {
		fmt.Fprintf(&b, "not counted for lack of buffer: %d, of those with a pod address: %d\n", r.Missed, r.MissedAt)
	}
	return b.String()
}

// Capture starts to watch the underlay.
func (c *Cluster) Capture() (*Capture, error) {
	k := &Capture{done: make(chan struct{}), names: map[int]string{}, prefixes: c.PodCIDRs(), report: Report{Links: map[string]int{}, Classes: map[string]int{}}}
	var err error
	if k.links, err = handleAt(c.underlayNetns()); err != nil {
		return nil, err
	}
	err = inNetns(c.underlayNetns(), func() error {
		if k.all, err = openSocket(acceptAll()); err != nil {
			return err
		}
		k.pods, err = openSocket(acceptPods(k.prefixes))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("capture on %s: %w", c.underlayNetns(), err)
	}
	k.wait.Go(func() { k.all.read(k.done, k.count) })
	k.wait.Go(func() { k.pods.read(k.done, k.expose) })
	return k, nil
}

// Stop ends the capture and returns what it saw.
func (k *Capture) Stop() (Report, error) {
	// What is on the wire now still arrives.
	time.Sleep(200 * time.Millisecond)
	missed, err1 := k.all.drops()
	missedAt, err2 := k.pods.drops()
	close(k.done)
	k.wait.Wait()
	k.links.Close()
	err := errors.Join(err1, err2, unix.Close(k.all.fd), unix.Close(k.pods.fd))
	k.report.Missed, k.report.MissedAt = missed, missedAt
	return k.report, err
}

func (k *Capture) count(packet []byte, from *unix.SockaddrLinklayer) {
	k.mu.Lock()
	defer k.mu.Unlock()
	name := k.name(from.Ifindex)
	if name == "" {
		return
	}
	k.report.Links[name]++
	if from.Pkttype != unix.PACKET_OUTGOING {
		k.report.Classes[parse(packet).class()]++
	}
}

func (k *Capture) expose(packet []byte, from *unix.SockaddrLinklayer) {
	k.mu.Lock()
	defer k.mu.Unlock()
	name := k.name(from.Ifindex)
	if name == "" {
		return
	}
	k.report.Leaks++
	if len(k.report.Exposed) < 100 {
		line := fmt.Sprintf("%s link %s: %s", time.Now().Format("15:04:05.000"), name, parse(packet))
		k.report.Exposed = append(k.report.Exposed, line)
	}
}

// name is that of a node's link. A node that was restarted has a new one.
func (k *Capture) name(index int) string {
	name, known := k.names[index]
	if !known {
		if link, err := k.links.LinkByIndex(index); err == nil && link.Type() == "veth" {
			name = link.Attrs().Name
		}
		k.names[index] = name
	}
	return name
}

// socket is one AF_PACKET socket.
type socket struct{ fd int }

func openSocket(filter []bpf.Instruction) (*socket, error) {
	// Without a protocol the socket receives nothing yet: what came before the filter would pass it.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	s := &socket{fd: fd}
	raw, err := bpf.Assemble(filter)
	if err != nil {
		return nil, err
	}
	program := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		program[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}); err != nil {
		return nil, fmt.Errorf("attach filter: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20); err != nil {
		return nil, fmt.Errorf("enlarge buffer: %w", err)
	}
	// A reader looks up now and then to see whether it should end.
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000}); err != nil {
		return nil, fmt.Errorf("set timeout: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL)}); err != nil {
		return nil, fmt.Errorf("receive: %w", err)
	}
	return s, nil
}

func htons(v uint16) uint16 { return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v)) }

// read hands each packet on until done is closed.
func (s *socket) read(done <-chan struct{}, handle func([]byte, *unix.SockaddrLinklayer)) {
	buf := make([]byte, snapLen)
	for {
		select {
		case <-done:
			return
		default:
		}
		n, from, err := unix.Recvfrom(s.fd, buf, 0)
		if link, ok := from.(*unix.SockaddrLinklayer); ok && err == nil {
			handle(buf[:n], link)
		}
	}
}

// drops tells how many packets the kernel had no room for.
func (s *socket) drops() (int, error) {
	stats, err := unix.GetsockoptTpacketStats(s.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return 0, fmt.Errorf("read drops: %w", err)
	}
	return int(stats.Drops), nil
}
