//go:build kernel

package main

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kithnet/kith/overlay/path"
	"github.com/kithnet/kith/overlay/probe"
	"github.com/kithnet/kith/policy/ruleset"
)

// proven are two nodes that probe the way between them, and the first one's rules.
type proven struct {
	*tunnel
	probers  [2]*probe.Prober
	compiler *ruleset.Compiler
	told     []ruleset.Proof
	seen     evidence
}

func newProven(t *testing.T, family int) *proven {
	t.Helper()
	p := &proven{tunnel: newTunnelOver(t, tunnelMode(t), family)}
	known := p.network()
	known.Ports = ruleset.Ports{WireGuard: 51820, Probe: 7947}
	p.compiler = ruleset.CompilerOf(ruleset.Input{Network: known})
	for i := range p.nodes {
		p.probers[i] = probe.New(7947, path.Config{
			Interval: 500 * time.Millisecond, Timeout: 2 * time.Second, Check: time.Second, Raise: time.Minute, Patience: tunnelPatience,
		})
		p.look(i)
		go func() { _ = p.probers[i].Run(t.Context()) }()
	}
	return p
}

// look is what an agent does every few seconds: it tells the prober what is said, and the rules what is proved.
func (p *proven) look(i int) {
	p.Helper()
	n := p.nodes[i]
	mustDo(p, "look around", n.do(func() error {
		peers, err := n.device.Peers(p.Context())
		if err != nil {
			return err
		}
		if i == 0 {
			p.told = p.seen.proofs(n.mesh, peers, p.probers[i].Paths(), time.Now())
		}
		return p.probers[i].Follow(n.mesh.Lanes[0].Addresses, targets(n.mesh, peers, nil, n.device.Carrier(tunnelUnderlayMTU)))
	}))
	if i == 0 {
		p.compiler.SetProved(p.told)
		mustDo(p, "load rules", n.load(p.Context(), p.compiler.Ruleset()))
	}
}

func (p *proven) end(number int) netip.Addr { return cableEnds(number)[p.family] }

// said is what the first node's kernel believes to arrive at an address.
func (p *proven) said(to netip.Addr) (size int) {
	p.Helper()
	mustDo(p, "ask the kernel", p.nodes[0].do(func() (err error) {
		_, size, err = p.nodes[0].device.Carrier(9000)(netip.AddrPortFrom(to, 51820))
		return err
	}))
	return size
}

// forge says on the cable that what the first node sends from WireGuard's port to an address is too large. Then it says so of an
// address that nobody has, until the kernel believes it: it has heard the first by then.
func (p *proven) forge(to netip.Addr, size, behind int) {
	p.Helper()
	nobody := p.end(9)
	p.inject(p.tooBig(to, size))
	p.until("the kernel believes what is said of nobody", func() bool {
		p.inject(p.tooBig(nobody, behind))
		return p.said(nobody) == behind
	})
}

// tooBig is the frame of an ICMP error.
func (p *proven) tooBig(to netip.Addr, size int) []byte {
	p.Helper()
	var mac net.HardwareAddr
	mustDo(p, "find cable", p.nodes[0].do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err == nil {
			mac = link.Attrs().HardwareAddr
		}
		return err
	}))
	own, router := p.end(1), p.end(99)
	udp := []byte{0xca, 0x6c, 0xca, 0x6c, 5, 180, 0, 0}
	ether := slices.Concat(mac, []byte{2, 0, 0, 0, 0, 0x99})
	if own.Is4() {
		icmp := binary.BigEndian.AppendUint32([]byte{3, 4, 0, 0}, uint32(size))
		icmp = slices.Concat(icmp, ipHeader(own, to, 17, 1480), udp)
		binary.BigEndian.PutUint16(icmp[2:], internetSum(icmp))
		return slices.Concat(ether, []byte{8, 0}, ipHeader(router, own, 1, len(icmp)), icmp)
	}
	icmp := binary.BigEndian.AppendUint32([]byte{2, 0, 0, 0}, uint32(size))
	icmp = slices.Concat(icmp, ipHeader(own, to, 17, 1460), udp)
	pseudo := slices.Concat(router.AsSlice(), own.AsSlice(), []byte{0, 0, 0, byte(len(icmp)), 0, 0, 0, 58}, icmp)
	binary.BigEndian.PutUint16(icmp[2:], internetSum(pseudo))
	return slices.Concat(ether, []byte{0x86, 0xdd}, ipHeader(router, own, 58, len(icmp)), icmp)
}

func ipHeader(from, to netip.Addr, protocol byte, size int) []byte {
	if from.Is6() {
		h := binary.BigEndian.AppendUint16([]byte{0x60, 0, 0, 0}, uint16(size))
		return slices.Concat(h, []byte{protocol, 64}, from.AsSlice(), to.AsSlice())
	}
	h := slices.Concat([]byte{0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, protocol, 0, 0}, from.AsSlice(), to.AsSlice())
	binary.BigEndian.PutUint16(h[2:], uint16(20+size))
	binary.BigEndian.PutUint16(h[10:], internetSum(h))
	return h
}

func internetSum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// inject puts a frame on the cable, at the second node's end.
func (p *proven) inject(frame []byte) {
	p.Helper()
	mustDo(p, "inject", p.nodes[1].do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: link.Attrs().Index})
	}))
}

// pieces counts the pieces of packets that the first node has sent, and the packets that it refused to send.
func (p *proven) pieces() (count int) {
	p.Helper()
	mustDo(p, "count pieces", p.nodes[0].do(func() error {
		six, err := os.ReadFile("/proc/thread-self/net/snmp6")
		if err != nil {
			return err
		}
		four, err := os.ReadFile("/proc/thread-self/net/snmp")
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(six)) {
			if f := strings.Fields(line); f[0] == "Ip6FragCreates" || f[0] == "Ip6FragFails" {
				n, _ := strconv.Atoi(f[1])
				count += n
			}
		}
		lines := strings.Split(string(four), "\n")
		values := strings.Fields(lines[1])
		for i, name := range strings.Fields(lines[0]) {
			if name == "FragCreates" || name == "FragFails" {
				n, _ := strconv.Atoi(values[i])
				count += n
			}
		}
		return nil
	}))
	return count
}

// fullPacket waits for one that fills the cable on its way to the second node.
func (p *proven) fullPacket() []byte {
	p.Helper()
	fd := p.openCable([]uint16{unix.ETH_P_IP, unix.ETH_P_IPV6}[p.family])
	defer unix.Close(fd)
	b := make([]byte, 2048)
	var full []byte
	p.until("a packet that fills the cable", func() bool {
		n, _, err := unix.Recvfrom(fd, b, 0)
		full = b[:max(n, 0)]
		return err == nil && n == tunnelUnderlayMTU
	})
	return full
}

// TestForgedSizesCutNoTunnel: the tunnel's packets leave whole, whoever says on the cable that they are too large, as soon as
// probes have come back that nobody could cut; and when nothing is proved any more, the kernel believes it again.
func TestForgedSizesCutNoTunnel(t *testing.T) {
	for family, name := range []string{"IPv4", "IPv6"} {
		t.Run(name, func(t *testing.T) {
			p := newProven(t, family)
			other := p.end(2)
			whole := []ruleset.Proof{{Address: other, Size: tunnelUnderlayMTU}}
			proved := func() bool { p.look(0); p.look(1); return slices.Equal(p.told, whole) }
			p.until("packets that fill the cable are proved to arrive", proved)
			if full := p.fullPacket(); family == 0 && full[6]&0x40 == 0 {
				t.Errorf("routers may cut a probe: % x", full[:20])
			}
			before := p.pieces()
			for n, size := range []int{1499, 1300, 1280, 576} {
				p.forge(other, size, 1450-n)
				if got := p.said(other); got != tunnelUnderlayMTU {
					t.Errorf("%d are said: the kernel takes the way for %d", size, got)
				}
			}
			forged := time.Now()
			p.until("a packet arrives whole that was sent behind all errors", func() bool {
				return proved() && p.probers[0].Paths()[0].ProvedAt.After(forged)
			})
			if got := p.pieces(); got != before {
				t.Errorf("%d packets were cut, or not sent", got-before)
			}
			p.compiler.SetProved(nil)
			mustDo(t, "load rules", p.nodes[0].load(t.Context(), p.compiler.Ruleset()))
			p.forge(other, 1400, 1440)
			if got := p.said(other); got != 1400 {
				t.Errorf("nothing is proved, 1400 are said: the kernel takes the way for %d", got)
			}
		})
	}
}
