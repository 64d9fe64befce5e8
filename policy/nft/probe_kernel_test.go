//go:build kernel

package nft

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
)

const icmp, icmp6 identity.Protocol = 1, 58

// ports are where every end listens.
var ports = []uint16{80, 81, 5000, 5003, 8080}

// serve makes every end echo on every port, TCP and UDP.
func (l *lab) serve() {
	for _, e := range l.ends() {
		inside(l, e.ns, func() {
			for _, a := range e.addresses {
				for _, p := range ports {
					l.serveTCP(netip.AddrPortFrom(a, p))
					l.serveUDP(netip.AddrPortFrom(a, p))
				}
			}
		})
	}
}

func (l *lab) serveTCP(at netip.AddrPort) {
	listener, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
	must(l, "listen", err)
	l.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
}

func (l *lab) serveUDP(at netip.AddrPort) {
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
	must(l, "listen", err)
	l.Cleanup(func() { conn.Close() })
	go func() {
		b := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			_, _ = conn.WriteToUDPAddrPort(b[:n], from)
		}
	}()
}

// flow is a probe: who opens which connection.
type flow struct {
	from, to end
	policy.Flow
	by netip.AddrPort // where it is sent instead of to its destination
}

func (f flow) String() string {
	return fmt.Sprintf("%s %s → %s %s, protocol %s port %d", f.from.name, f.Source, f.to.name, f.Destination, f.Protocol, f.Port)
}

// passes says whether a flow gets an answer.
func (l *lab) passes(f flow, patience time.Duration) bool {
	var passed bool
	inside(l, f.from.ns, func() {
		switch f.Protocol {
		case icmp, icmp6:
			passed = echo(f, patience)
		case identity.SCTP:
			passed = l.arrives(f, patience)
		default:
			passed = exchange(f, patience)
		}
	})
	return passed
}

// exchange sends a word and wants it back.
func exchange(f flow, patience time.Duration) bool {
	conn, err := dialFlow(f, patience)
	if err != nil {
		return false
	}
	defer conn.Close()
	return talks(conn, patience)
}

func dialFlow(f flow, patience time.Duration) (net.Conn, error) {
	to := f.by
	if !to.IsValid() {
		to = netip.AddrPortFrom(f.Destination, f.Port)
	}
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(f.Source, 0)), Timeout: patience}
	network := "tcp"
	if f.Protocol == identity.UDP {
		d.LocalAddr, network = net.UDPAddrFromAddrPort(netip.AddrPortFrom(f.Source, 0)), "udp"
	}
	return d.DialContext(context.Background(), network, to.String())
}

// talks says whether a word comes back on an open connection.
func talks(conn net.Conn, patience time.Duration) bool {
	word, b := []byte("kith and kin"), make([]byte, 12)
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return false
	}
	if _, err := conn.Write(word); err != nil {
		return false
	}
	_, err := io.ReadFull(conn, b)
	return err == nil && bytes.Equal(b, word)
}

// echo pings.
func echo(f flow, patience time.Duration) bool {
	network, request, answer := "ip4:icmp", byte(8), byte(0)
	if f.Protocol == icmp6 {
		network, request, answer = "ip6:ipv6-icmp", 128, 129
	}
	conn, err := net.ListenPacket(network, f.Source.String())
	if err != nil {
		return false
	}
	defer conn.Close()
	word := []byte(f.String())
	if _, err := conn.WriteTo(icmpMessage(f, request, word), &net.IPAddr{IP: f.Destination.AsSlice()}); err != nil {
		return false
	}
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	for b := make([]byte, 1500); ; {
		n, _, err := conn.ReadFrom(b)
		if err != nil {
			return false
		}
		if b[0] == answer && bytes.Contains(b[:n], word) {
			return true
		}
	}
}

// mismatches probes all flows side by side and gives those that do not end as wanted. What should have passed gets
// more time before it counts: this machine may be busy.
func (l *lab) mismatches(flows []flow, want func(flow) bool) []flow {
	const patience = 400 * time.Millisecond
	var mu sync.Mutex
	var wrong []flow
	var group sync.WaitGroup
	places := make(chan struct{}, 40)
	for _, f := range flows {
		group.Add(1)
		places <- struct{}{}
		go func() {
			defer group.Done()
			defer func() { <-places }()
			wanted := want(f)
			got := l.passes(f, patience)
			for try := 0; try < 3 && wanted && !got; try++ {
				got = l.passes(f, 5*patience)
			}
			if got != wanted {
				mu.Lock()
				wrong = append(wrong, f)
				mu.Unlock()
			}
		}()
	}
	group.Wait()
	// What should pass and did not, while forty at a time were asked on a machine that may be slow, is asked alone.
	return slices.DeleteFunc(wrong, func(f flow) bool { return want(f) && l.passes(f, late) })
}

// between makes a flow between the first addresses of a family.
func (l *lab) between(from, to end, family int, protocol identity.Protocol, port uint16) flow {
	if protocol == icmp && family == 1 {
		protocol = icmp6
	}
	return flow{from: from, to: to, Flow: policy.Flow{Source: from.addresses[family], Destination: to.addresses[family], Protocol: protocol, Port: port}}
}

// families runs a test for IPv4 and for IPv6.
func families(t *testing.T, test func(t *testing.T, family int)) {
	t.Helper()
	for family, name := range []string{"IPv4", "IPv6"} {
		t.Run(name, func(t *testing.T) { test(t, family) })
	}
}
