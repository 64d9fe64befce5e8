package nft

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// attribute is one netlink attribute; data is a part of the message that it was read from.
type attribute struct {
	typ  uint16
	data []byte
}

// attributes reads a sequence of netlink attributes. What is cut short is left out.
func attributes(b []byte) []attribute {
	var out []attribute
	for len(b) >= unix.SizeofNlAttr {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofNlAttr || n > len(b) {
			break
		}
		typ := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
		out = append(out, attribute{typ, b[unix.SizeofNlAttr:n]})
		b = b[min(len(b), (n+3)&^3):]
	}
	return out
}

// text is a string attribute without its end.
func text(b []byte) string {
	s, _, _ := bytes.Cut(b, []byte{0})
	return string(s)
}

func number(b []byte) uint32 {
	if len(b) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}
