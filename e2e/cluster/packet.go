package cluster

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

const ethHeader = 14

// WireGuardClass is the class of the tunnel's packets.
const WireGuardClass = "WireGuard (UDP 51820 and 51821)"

// packet is the outer header of one frame.
type packet struct {
	kind             uint16 // EtherType
	protocol         byte
	from, to         netip.Addr
	fromPort, toPort uint16
}

// parse reads what it can of a frame; what it cannot read stays zero.
func parse(frame []byte) packet {
	if len(frame) < ethHeader {
		return packet{}
	}
	p := packet{kind: binary.BigEndian.Uint16(frame[12:])}
	b := frame[ethHeader:]
	switch {
	case p.kind == unix.ETH_P_IP && len(b) >= 20:
		p.protocol = b[9]
		p.from, p.to = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
		// A later fragment has no ports.
		if binary.BigEndian.Uint16(b[6:])&0x1fff == 0 {
			p.ports(b[min(len(b), int(b[0]&0x0f)*4):])
		}
	case p.kind == unix.ETH_P_IPV6 && len(b) >= 40:
		p.protocol = b[6]
		p.from, p.to = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
		p.ports(b[40:])
	case p.kind == unix.ETH_P_ARP && len(b) >= 28:
		p.from, p.to = netip.AddrFrom4([4]byte(b[14:18])), netip.AddrFrom4([4]byte(b[24:28]))
	}
	return p
}

func (p *packet) ports(b []byte) {
	if (p.protocol == unix.IPPROTO_TCP || p.protocol == unix.IPPROTO_UDP || p.protocol == unix.IPPROTO_SCTP) && len(b) >= 4 {
		p.fromPort, p.toPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	}
}

func (p packet) String() string {
	return fmt.Sprintf("%s %s -> %s", p.protocolName(), p.end(p.from, p.fromPort), p.end(p.to, p.toPort))
}

func (p packet) end(a netip.Addr, port uint16) string {
	if port == 0 {
		return a.String()
	}
	return netip.AddrPortFrom(a, port).String()
}

func (p packet) protocolName() string {
	switch {
	case p.kind == unix.ETH_P_ARP:
		return "ARP"
	case p.kind != unix.ETH_P_IP && p.kind != unix.ETH_P_IPV6:
		return fmt.Sprintf("EtherType %#04x", p.kind)
	}
	switch p.protocol {
	case unix.IPPROTO_TCP:
		return "TCP"
	case unix.IPPROTO_UDP:
		return "UDP"
	case unix.IPPROTO_SCTP:
		return "SCTP"
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		return "ICMP"
	}
	return fmt.Sprintf("IP protocol %d", p.protocol)
}

// class names the packet by the service it belongs to.
func (p packet) class() string {
	name := p.protocolName()
	for _, s := range []struct {
		protocol string
		port     uint16
		class    string
	}{
		{"UDP", 51820, WireGuardClass},
		{"UDP", 51821, WireGuardClass},
		{"UDP", 7950, "gossip (UDP 7950)"},
		{"TCP", 7950, "gossip (TCP 7950)"},
		{"TCP", apiPort, "API server (TCP 6443)"},
		{"TCP", 10250, "kubelet (TCP 10250)"},
		{"UDP", 53, "DNS (UDP 53)"},
	} {
		if name == s.protocol && (p.fromPort == s.port || p.toPort == s.port) {
			return s.class
		}
	}
	if name == "TCP" || name == "UDP" || name == "SCTP" {
		return "other " + name
	}
	return name
}

func acceptAll() []bpf.Instruction { return []bpf.Instruction{bpf.RetConstant{Val: snapLen}} }

// acceptPods is a filter for frames whose outer IPv4, IPv6 or ARP header names an address of the
// prefixes, as source or destination.
func acceptPods(prefixes []netip.Prefix) []bpf.Instruction {
	var program []bpf.Instruction
	for _, p := range prefixes {
		if p.Addr().Is4() {
			program = append(program, acceptPrefix(unix.ETH_P_IP, ethHeader+12, p)...)
			program = append(program, acceptPrefix(unix.ETH_P_IP, ethHeader+16, p)...)
			program = append(program, acceptPrefix(unix.ETH_P_ARP, ethHeader+14, p)...)
			program = append(program, acceptPrefix(unix.ETH_P_ARP, ethHeader+24, p)...)
			continue
		}
		program = append(program, acceptPrefix(unix.ETH_P_IPV6, ethHeader+8, p)...)
		program = append(program, acceptPrefix(unix.ETH_P_IPV6, ethHeader+24, p)...)
	}
	return append(program, bpf.RetConstant{Val: 0})
}

// acceptPrefix accepts frames of an EtherType with an address of the prefix at the offset, and falls
// through for others.
func acceptPrefix(kind, offset uint32, p netip.Prefix) []bpf.Instruction {
	addr := p.Masked().Addr().AsSlice()
	var words []bpf.Instruction
	for bits := p.Bits(); bits > 0; bits -= 32 {
		i := (p.Bits() - bits) / 8
		mask := ^uint32(0) << (32 - min(bits, 32))
		words = append(words,
			bpf.LoadAbsolute{Off: offset + uint32(i), Size: 4},
			bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: mask},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: binary.BigEndian.Uint32(addr[i:])})
	}
	for i := 2; i < len(words); i += 3 {
		j := words[i].(bpf.JumpIf)
		j.SkipFalse = uint8(len(words) - i)
		words[i] = j
	}
	program := []bpf.Instruction{
		bpf.LoadAbsolute{Off: 12, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: kind, SkipFalse: uint8(len(words) + 1)},
	}
	return append(append(program, words...), bpf.RetConstant{Val: snapLen})
}
