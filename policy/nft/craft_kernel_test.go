//go:build kernel

package nft

import (
	"encoding/binary"
	"hash/crc32"
	"net"
	"net/netip"
)

// packet is an IP packet to be made by hand.
type packet struct {
	source, destination netip.Addr
	protocol            uint8
	hops                uint8
	options             []byte // IPv4's
	offset              uint16 // of an IPv4 fragment, with its flags
	payload             []byte
}

// bytes makes the packet, with its header's checksum.
func (p packet) bytes() []byte {
	hops := p.hops
	if hops == 0 {
		hops = 64
	}
	if p.source.Is6() {
		b := append([]byte{0x60, 0, 0, 0}, 0, 0, p.protocol, hops)
		binary.BigEndian.PutUint16(b[4:], uint16(len(p.payload)))
		b = append(append(b, p.source.AsSlice()...), p.destination.AsSlice()...)
		return append(b, p.payload...)
	}
	b := make([]byte, 12, 20+len(p.payload))
	b[0], b[8], b[9] = 0x45+byte(len(p.options)/4), hops, p.protocol
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(p.options)+len(p.payload)))
	binary.BigEndian.PutUint16(b[6:], p.offset)
	b = append(append(append(b, p.source.AsSlice()...), p.destination.AsSlice()...), p.options...)
	binary.BigEndian.PutUint16(b[10:], ^sum(b))
	return append(b, p.payload...)
}

// withOptions is the packet with IPv4 options, whose length is a multiple of four.
func (p packet) withOptions(options []byte) packet {
	p.options = options
	return p
}

// fragment is a part of an IPv4 packet, with its flags and offset.
func (p packet) fragment(offset uint16) packet {
	p.offset = offset
	return p
}

// frame puts the packet into an Ethernet frame.
func (p packet) frame(source, destination net.HardwareAddr) []byte {
	b := append(append([]byte{}, destination...), source...)
	if p.source.Is6() {
		b = append(b, 0x86, 0xdd)
	} else {
		b = append(b, 0x08, 0x00)
	}
	return append(b, p.bytes()...)
}

// sealed fills in a checksum over the payload and the addresses, which lies at an offset.
func (p packet) sealed(offset int) packet {
	pseudo := append(append([]byte{}, p.source.AsSlice()...), p.destination.AsSlice()...)
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(p.payload)))
	pseudo = append(pseudo, 0, 0, 0, p.protocol)
	binary.BigEndian.PutUint16(p.payload[offset:], ^sum(append(pseudo, p.payload...)))
	return p
}

func sum(b []byte) uint16 {
	var s uint32
	for i := 0; i+1 < len(b); i += 2 {
		s += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		s += uint32(b[len(b)-1]) << 8
	}
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	return uint16(s)
}

const (
	fin, syn, rst, ack = 1, 2, 4, 16
)

func tcpPacket(f flow, sourcePort uint16, flags byte, word string) packet {
	b := binary.BigEndian.AppendUint16(nil, sourcePort)
	b = binary.BigEndian.AppendUint16(b, f.Port)
	b = append(b, 0, 0, 0, 1, 0, 0, 0, 1, 5<<4, flags, 0x20, 0, 0, 0, 0, 0)
	return packet{source: f.Source, destination: f.Destination, protocol: 6, payload: append(b, word...)}.sealed(16)
}

func udpPacket(f flow, sourcePort uint16, word string) packet {
	b := binary.BigEndian.AppendUint16(nil, sourcePort)
	b = binary.BigEndian.AppendUint16(b, f.Port)
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(word)))
	return packet{source: f.Source, destination: f.Destination, protocol: 17, payload: append(append(b, 0, 0), word...)}.sealed(6)
}

// sctpPacket is the INIT that opens an association; the word rides in a parameter behind it.
func sctpPacket(f flow, sourcePort uint16, word string) packet {
	for len(word)%4 != 0 {
		word += "."
	}
	b := binary.BigEndian.AppendUint16(nil, sourcePort)
	b = binary.BigEndian.AppendUint16(b, f.Port)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0)
	b = append(b, 1, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(20+4+len(word)))
	b = append(b, 0, 0, 0, 7, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1)
	b = append(b, 0x80, 0x01)
	b = binary.BigEndian.AppendUint16(b, uint16(4+len(word)))
	b = append(b, word...)
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return packet{source: f.Source, destination: f.Destination, protocol: 132, payload: b}
}

// icmpMessage is an ICMP message with a word behind its eight bytes of header.
func icmpMessage(f flow, typ byte, word []byte) []byte {
	b := append([]byte{typ, 0, 0, 0, 0x12, 0x34, 0, 1}, word...)
	if f.Source.Is6() {
		return packet{source: f.Source, destination: f.Destination, protocol: 58, payload: b}.sealed(2).payload
	}
	binary.BigEndian.PutUint16(b[2:], ^sum(b))
	return b
}

func icmpPacket(f flow, typ byte, word string) packet {
	return packet{source: f.Source, destination: f.Destination, protocol: uint8(f.Protocol), hops: 255, payload: icmpMessage(f, typ, []byte(word))}
}
