package dns

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

const (
	tcp, udp  = 6, 17
	udpHeader = 8
)

var errPacket = errors.New("not a whole packet of UDP or TCP")

// segment is an IP packet's parts.
type segment struct {
	source, destination netip.Addr
	protocol            byte
	transport           []byte // header and what follows, of the same memory as the packet
}

func parse(packet []byte) (segment, error) {
	if len(packet) >= 20 && packet[0]>>4 == 4 {
		header, total := int(packet[0]&15)*4, int(binary.BigEndian.Uint16(packet[2:]))
		fragment := binary.BigEndian.Uint16(packet[6:]) & 0x3fff // more to come, or not the first
		if header < 20 || total < header || total > len(packet) || fragment != 0 {
			return segment{}, errPacket
		}
		return segment{netip.AddrFrom4([4]byte(packet[12:16])), netip.AddrFrom4([4]byte(packet[16:20])), packet[9], packet[header:total]}, nil
	}
	if len(packet) >= 40 && packet[0]>>4 == 6 {
		total := 40 + int(binary.BigEndian.Uint16(packet[4:]))
		if total > len(packet) {
			return segment{}, errPacket
		}
		return segment{netip.AddrFrom16([16]byte(packet[8:24])), netip.AddrFrom16([16]byte(packet[24:40])), packet[6], packet[40:total]}, nil
	}
	return segment{}, errPacket
}

// Unwrap gives whom a packet is for, and the DNS messages that are whole in it.
func Unwrap(packet []byte) (netip.Addr, [][]byte, error) {
	s, err := parse(packet)
	switch {
	case err != nil:
		return netip.Addr{}, nil, err
	case s.protocol == udp && len(s.transport) >= udpHeader:
		return s.destination, [][]byte{s.transport[udpHeader:]}, nil
	case s.protocol == tcp && len(s.transport) >= 20:
		if header := int(s.transport[12]>>4) * 4; header >= 20 && header <= len(s.transport) {
			return s.destination, messages(s.transport[header:]), nil
		}
	}
	return netip.Addr{}, nil, errPacket
}

// messages cuts a stream, each of whose messages has its length before it.
func messages(stream []byte) [][]byte {
	var out [][]byte
	for len(stream) > 2 {
		n := 2 + int(binary.BigEndian.Uint16(stream))
		if n > len(stream) {
			break
		}
		out, stream = append(out, stream[2:n]), stream[n:]
	}
	return out
}

// Ends gives whom a packet is from and for, whatever is in it.
func Ends(packet []byte) (source, destination netip.Addr, ok bool) {
	if len(packet) >= 20 && packet[0]>>4 == 4 {
		return netip.AddrFrom4([4]byte(packet[12:16])), netip.AddrFrom4([4]byte(packet[16:20])), true
	}
	if len(packet) >= 40 && packet[0]>>4 == 6 {
		return netip.AddrFrom16([16]byte(packet[8:24])), netip.AddrFrom16([16]byte(packet[24:40])), true
	}
	return netip.Addr{}, netip.Addr{}, false
}

// Sum puts the checksum into a UDP packet, which of a packet of the same machine is left to a network card that never
// comes. Another packet stays as it is.
func Sum(packet []byte) {
	s, err := parse(packet)
	if err != nil || s.protocol != udp || len(s.transport) < udpHeader {
		return
	}
	length := int(binary.BigEndian.Uint16(s.transport[4:]))
	if length < udpHeader || length > len(s.transport) {
		return
	}
	binary.BigEndian.PutUint16(s.transport[6:], 0)
	sum := add(add(0, s.source.AsSlice()), s.destination.AsSlice())
	sum = add(sum+udp+uint32(length), s.transport[:length])
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	if sum = ^sum & 0xffff; sum == 0 {
		sum = 0xffff // zero stands for none
	}
	binary.BigEndian.PutUint16(s.transport[6:], uint16(sum))
}

func add(sum uint32, b []byte) uint32 {
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	return sum
}
