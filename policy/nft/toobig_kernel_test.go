//go:build kernel

package nft

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
	"github.com/kithnet/kith/policy/ruleset"
	"golang.org/x/sys/unix"
)

// tooBig is an ICMP error that says that a packet was too large.
func tooBig(from, to netip.Addr, quoted packet, size int) packet {
	f := flow{Flow: policy.Flow{Source: from, Destination: to, Protocol: icmp}}
	typ := byte(3)
	if from.Is6() {
		f.Protocol, typ = icmp6, 2
	}
	p := icmpPacket(f, typ, string(quoted.bytes()))
	p.payload[2], p.payload[3] = 0, 0
	binary.BigEndian.PutUint32(p.payload[4:], uint32(size))
	if from.Is6() {
		return p.sealed(2)
	}
	p.payload[1] = 4
	binary.BigEndian.PutUint16(p.payload[2:], ^sum(p.payload))
	return p
}

// behind puts something between the header and the error: options, or the header of a fragment that is none.
func (p packet) behind(next byte) packet {
	if p.source.Is4() {
		return p.withOptions([]byte{1, 1, 1, 0})
	}
	extension := []byte{p.protocol, 0, 1, 4, 0, 0, 0, 0} // padding
	if next == unix.IPPROTO_FRAGMENT {
		extension = []byte{p.protocol, 0, 0, 0, 0, 0, 0, 9}
	}
	p.protocol, p.payload = next, append(extension, p.payload...)
	return p
}

// sizes is a node that sends to others without a word about what becomes of its packets, as the kernel's WireGuard does.
type sizes struct {
	*lab
	compiler      *ruleset.Compiler
	family        int
	proved, other netip.Addr // nodes that it sends to
}

func newSizes(t *testing.T, family int) *sizes {
	l := newLab(t)
	s := &sizes{lab: l, family: family, proved: outsiders[family], other: outsiders[2+family]}
	c := l.cluster()
	s.compiler = ruleset.CompilerOf(ruleset.Input{Pods: c.Pods, Namespaces: c.Namespaces, Attachments: l.attachments(), Network: l.network()})
	s.prove()
	inside(t, l.router.ns, func() {
		conn, err := net.ListenUDP("udp", &net.UDPAddr{Port: 51820})
		must(t, "listen", err)
		t.Cleanup(func() { conn.Close() })
	})
	return s
}

func (s *sizes) prove(all ...ruleset.Proof) {
	s.Helper()
	s.compiler.SetProved(all)
	converge(s, s.table, s.compiler.Ruleset())
	sameRuleset(s, s.table, s.compiler.Ruleset())
}

// TestForgedSizesBehindHeaders: so is it where an error's header is longer than it need be.
func TestForgedSizesBehindHeaders(t *testing.T) {
	families(t, func(t *testing.T, family int) {
		s := newSizes(t, family)
		size := 1400
		for _, next := range []byte{unix.IPPROTO_DSTOPTS, unix.IPPROTO_HOPOPTS, unix.IPPROTO_FRAGMENT} {
			for _, proved := range []bool{true, false} {
				s.prove(ruleset.Proof{Address: s.other, Size: 1280})
				if proved {
					s.prove(ruleset.Proof{Address: s.proved, Size: 1500}, ruleset.Proof{Address: s.other, Size: 1280})
				}
				size--
				s.inject(s.outside, s.toRouter(s.outside, tooBig(s.outside.addresses[family], ownNode[family], s.quoted(s.proved, 51820), size).behind(next)))
				s.until("the kernel believes what is said of an address of which nothing is proved", func() bool {
					s.said(s.outside, s.quoted(s.other, 51820), size)
					return s.learned(s.other) == size
				})
				if got := s.learned(s.proved) == size; got == proved {
					t.Errorf("behind a header of type %d, proved %v: %d bytes are believed: %v", next, proved, size, got)
				}
			}
		}
	})
}

// learned is the size that the kernel believes to fit on the way to an address; none: zero.
func (s *sizes) learned(to netip.Addr) int {
	s.Helper()
	routes, err := s.router.handle.RouteGet(to.AsSlice())
	must(s, "get route", err)
	return routes[0].MTU
}

// said has a place say that what the node has sent to another was too large.
func (s *sizes) said(by *place, quoted packet, size int) {
	s.Helper()
	s.inject(by, s.toRouter(by, tooBig(by.addresses[s.family], ownNode[s.family], quoted, size)))
}

func (s *sizes) quoted(to netip.Addr, port uint16) packet {
	return udpPacket(flow{Flow: policy.Flow{Source: ownNode[s.family], Destination: to, Protocol: identity.UDP, Port: port}}, 51820, "")
}

func (s *sizes) echo(to netip.Addr) packet {
	f := flow{Flow: policy.Flow{Source: ownNode[s.family], Destination: to, Protocol: []identity.Protocol{icmp, icmp6}[s.family]}}
	return icmpPacket(f, []byte{8, 128}[s.family], "")
}

// believed says whether the kernel has taken an error's word: one of another address, which it believes, comes behind it.
func (s *sizes) believed(by *place, quoted packet, size, behind int) bool {
	s.Helper()
	before := s.learned(s.proved)
	s.said(by, quoted, size)
	s.until("the kernel believes what is said of an address of which nothing is proved", func() bool {
		s.said(s.outside, s.quoted(s.other, 51820), behind)
		return s.learned(s.other) == behind
	})
	return s.learned(s.proved) != before
}

// TestForgedSizesAreNotBelieved: as long as it is proved that packets of a size arrive at a node, the kernel does not believe
// by whomever, and about whatever, that they do not. What is proved no more, it believes.
func TestForgedSizesAreNotBelieved(t *testing.T) {
	families(t, func(t *testing.T, family int) {
		s := newSizes(t, family)
		behind := 1450
		for _, proof := range []uint16{1500, 1390} {
			s.prove(ruleset.Proof{Address: s.proved, Size: proof}, ruleset.Proof{Address: s.other, Size: 1280})
			for what, quoted := range map[string]packet{
				"the tunnel": s.quoted(s.proved, 51820), "a connection that is none": s.quoted(s.proved, 9), "a ping": s.echo(s.proved),
			} {
				for _, size := range []int{int(proof) - 1, 1280, 576, 1, 0} {
					behind--
					if s.believed(s.outside, quoted, size, behind) {
						t.Fatalf("%d bytes are proved: of %s, %d are believed: the kernel takes %d", proof, what, size, s.learned(s.proved))
					}
				}
			}
		}
		behind--
		if !s.believed(s.outside, s.quoted(s.proved, 51820), 1390, behind) || s.learned(s.proved) != 1390 {
			t.Errorf("1390 bytes are proved and said: the kernel takes %d", s.learned(s.proved))
		}
		s.prove()
		behind--
		if !s.believed(s.outside, s.quoted(s.proved, 51820), 1300, behind) || s.learned(s.proved) != 1300 {
			t.Errorf("nothing is proved any more, 1300 are said: the kernel takes %d", s.learned(s.proved))
		}
	})
}

// TestDroppedSizesAreCounted: whoever probes the way learns that somebody says that less arrives, also where nothing is learned.
func TestDroppedSizesAreCounted(t *testing.T) {
	families(t, func(t *testing.T, family int) {
		s := newSizes(t, family)
		proof := ruleset.Proof{Address: s.proved, Size: 1500}
		s.prove(proof, ruleset.Proof{Address: s.other, Size: 1280})
		count := func() uint64 {
			n, err := Dropped([]string{proof.Chain(), "none"}, InNamespace(int(s.router.ns)))
			must(t, "count", err)
			if len(n) != 2 || n["none"] != 0 {
				t.Fatalf("counted %v", n)
			}
			return n[proof.Chain()]
		}
		if n := count(); n != 0 {
			t.Errorf("%d are counted before anybody has said anything", n)
		}
		s.believed(s.outside, s.quoted(s.proved, 51820), 1300, 1450)
		if n := count(); n != 1 {
			t.Errorf("one is said, %d are counted", n)
		}
	})
}

// TestOtherErrorsArrive: an error that bears no size reaches the node's own sockets, whatever is proved of where the packet was
// for.
func TestOtherErrorsArrive(t *testing.T) {
	families(t, func(t *testing.T, family int) {
		s := newSizes(t, family)
		s.prove(ruleset.Proof{Address: s.proved, Size: 1500})
		inside(t, s.router.ns, func() {
			conn, err := net.DialUDP("udp", nil, &net.UDPAddr{IP: s.proved.AsSlice(), Port: 9})
			must(t, "dial", err)
			defer conn.Close()
			s.until("a closed port is told", func() bool {
				if _, err := conn.Write([]byte("anybody?")); err != nil {
					return true
				}
				return false
			})
		})
	})
}

// TestMarkedPacketsStayWhole: of what WireGuard sends, routers cut nothing that bears the mark, and all else as before.
func TestMarkedPacketsStayWhole(t *testing.T) {
	s := newSizes(t, 0)
	for name, c := range map[string]struct {
		port, ecn int
		whole     bool
	}{
		"a probe": {51821, 1, true}, "of the tunnel": {51821, 0, false}, "of the tunnel, ECT(0)": {51821, 2, false},
		"of the tunnel, congestion": {51821, 3, false}, "another's": {5555, 1, false},
	} {
		word := newWord()
		frame := s.frame(s.outside.end, word, late, func() { s.mark(c.port, c.ecn, word) })
		if frame == nil {
			t.Fatalf("%s: nothing arrives", name)
		}
		if header := frame[14:34]; header[6]&0x40 != 0 != c.whole || ^sum(header) != 0 {
			t.Errorf("%s: whole %v wanted, the header is % x", name, c.whole, header)
		}
	}
}

// mark sends a packet that may be cut from a port.
func (s *sizes) mark(port, ecn int, word string) {
	s.Helper()
	inside(s, s.router.ns, func() {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		must(s, "open socket", err)
		defer unix.Close(fd)
		must(s, "allow cutting", unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT))
		must(s, "mark", unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TOS, ecn))
		must(s, "bind", unix.Bind(fd, &unix.SockaddrInet4{Port: port}))
		must(s, "send", unix.Sendto(fd, []byte(word), 0, &unix.SockaddrInet4{Port: 51820, Addr: s.proved.As4()}))
	})
}
