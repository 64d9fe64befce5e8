//go:build kernel

package nft

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// packetSocket is a socket on the link layer of every link of a place.
func packetSocket(t testing.TB, p end) int {
	t.Helper()
	var fd int
	var err error
	inside(t, p.ns, func() {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(big(unix.ETH_P_ALL)))
	})
	must(t, "open packet socket", err)
	return fd
}

func big(v uint16) uint16 { return v<<8 | v>>8 }

// inject puts a frame on the wire of a place towards the router.
func (l *lab) inject(p *place, frame []byte) {
	l.Helper()
	fd := packetSocket(l, p.end)
	defer unix.Close(fd)
	to := &unix.SockaddrLinklayer{Ifindex: l.find(p, p.link).Attrs().Index, Protocol: big(unix.ETH_P_ALL)}
	must(l, "inject", unix.Sendto(fd, frame, 0, to))
}

// seen says whether a word comes to an end while something is done.
func (l *lab) seen(at end, word string, patience time.Duration, do func()) bool {
	l.Helper()
	return l.frame(at, word, patience, do) != nil
}

// frame is the frame with a word that comes to an end while something is done; none: nil.
func (l *lab) frame(at end, word string, patience time.Duration, do func()) []byte {
	l.Helper()
	fd := packetSocket(l, at)
	defer unix.Close(fd)
	do()
	b := make([]byte, 2048)
	for end := time.Now().Add(patience); time.Now().Before(end); {
		left := unix.NsecToTimeval(int64(max(time.Until(end), time.Millisecond)))
		must(l, "set deadline", unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &left))
		n, from, err := unix.Recvfrom(fd, b, 0)
		if err != nil {
			continue
		}
		if link, ok := from.(*unix.SockaddrLinklayer); ok && link.Pkttype != unix.PACKET_OUTGOING && bytes.Contains(b[:n], []byte(word)) {
			return b[:n]
		}
	}
	return nil
}

// place finds where an end is wired.
func (l *lab) place(e end) *place {
	for _, p := range append([]*place{l.router, l.mesh, l.outside}, l.pods...) {
		if p.ns == e.ns {
			return p
		}
	}
	l.Fatalf("%s is nowhere", e.name)
	return nil
}

// toRouter frames a packet as the place would, honestly.
func (l *lab) toRouter(p *place, pkt packet) []byte {
	router := l.find(l.router, p.veth).Attrs().HardwareAddr
	return pkt.frame(p.mac, router)
}

func newWord() string { return fmt.Sprintf("word-%016x", rand.Uint64()) }

// arrives sends one SCTP packet made by hand, since not every machine has SCTP sockets, and looks for it.
func (l *lab) arrives(f flow, patience time.Duration) bool {
	word := newWord()
	pkt := sctpPacket(f, uint16(30000+rand.IntN(20000)), word)
	send := func() { l.sendRaw(f, pkt.payload) }
	if from := l.place(f.from); from != l.router {
		send = func() { l.inject(from, l.toRouter(from, pkt)) }
	}
	if f.to.ns == l.router.ns {
		return l.delivered(f, word, patience, send)
	}
	return l.seen(f.to, word, patience, send)
}

// delivered says whether a word comes to the router's own protocols: what its wire sees is not yet let in.
func (l *lab) delivered(f flow, word string, patience time.Duration, do func()) bool {
	var conn net.PacketConn
	var err error
	inside(l, f.to.ns, func() { conn, err = net.ListenPacket(rawNetwork(f), f.Destination.String()) })
	if err != nil {
		l.Errorf("open raw socket: %v", err)
		return false
	}
	defer conn.Close()
	do()
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	for b := make([]byte, 2048); ; {
		n, _, err := conn.ReadFrom(b)
		if err != nil {
			return false
		}
		if bytes.Contains(b[:n], []byte(word)) {
			return true
		}
	}
}

func rawNetwork(f flow) string {
	if f.Source.Is6() {
		return fmt.Sprintf("ip6:%d", f.Protocol)
	}
	return fmt.Sprintf("ip4:%d", f.Protocol)
}

// sendRaw sends a payload from the router itself. That it may not is one way to be denied.
func (l *lab) sendRaw(f flow, payload []byte) {
	inside(l, f.from.ns, func() {
		conn, err := net.DialIP(rawNetwork(f), &net.IPAddr{IP: f.Source.AsSlice()}, &net.IPAddr{IP: f.Destination.AsSlice()})
		if err != nil {
			l.Errorf("open raw socket: %v", err)
			return
		}
		defer conn.Close()
		if _, err = conn.Write(payload); err != nil && !errors.Is(err, unix.EPERM) {
			l.Errorf("send: %v", err)
		}
	})
}
