package main

import (
	"encoding/binary"
	"hash/crc32"
)

const (
	chunkInit    = 1
	chunkInitAck = 2

	headerLen = 12
	chunkLen  = 20
	cookieLen = 8
)

// packet is an SCTP packet with one chunk, an INIT or the answer to one (RFC 9260, 3.3.2 and 3.3.3).
type packet struct {
	from, to     uint16
	verification uint32
	chunk        byte
	tag          uint32
}

func (p packet) bytes() []byte {
	length := chunkLen
	if p.chunk == chunkInitAck {
		length += cookieLen
	}
	b := make([]byte, headerLen+length)
	binary.BigEndian.PutUint16(b, p.from)
	binary.BigEndian.PutUint16(b[2:], p.to)
	binary.BigEndian.PutUint32(b[4:], p.verification)
	c := b[headerLen:]
	c[0] = p.chunk
	binary.BigEndian.PutUint16(c[2:], uint16(length))
	binary.BigEndian.PutUint32(c[4:], p.tag)
	binary.BigEndian.PutUint32(c[8:], 1<<16) // window
	binary.BigEndian.PutUint16(c[12:], 1)    // streams out
	binary.BigEndian.PutUint16(c[14:], 1)    // streams in
	if p.chunk == chunkInitAck {
		binary.BigEndian.PutUint16(c[20:], 7) // state cookie
		binary.BigEndian.PutUint16(c[22:], cookieLen)
	}
	// Connection tracking drops what has a wrong sum. CRC-32C is the one field in the other byte order.
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return b
}

func parse(b []byte) (packet, bool) {
	if len(b) < headerLen+chunkLen {
		return packet{}, false
	}
	return packet{
		from: binary.BigEndian.Uint16(b), to: binary.BigEndian.Uint16(b[2:]), verification: binary.BigEndian.Uint32(b[4:]),
		chunk: b[headerLen], tag: binary.BigEndian.Uint32(b[headerLen+4:]),
	}, true
}
