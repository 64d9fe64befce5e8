package kernel

import (
	"encoding/binary"
	"iter"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/kithnet/kith/policy/conntrack"
)

// statusAnswered is IPS_SEEN_REPLY of a connection's status.
const statusAnswered = 1 << 1

// attribute is one of a netlink message: its type, its value, and all of it with its header and padding.
type attribute struct {
	typ          int
	value, whole []byte
}

// attributes are those in b, up to the first that is cut short.
func attributes(b []byte) iter.Seq[attribute] {
	return func(yield func(attribute) bool) {
		for len(b) >= unix.NLA_HDRLEN {
			n := int(binary.NativeEndian.Uint16(b))
			if n < unix.NLA_HDRLEN || n > len(b) {
				return
			}
			end := min((n+unix.NLA_ALIGNTO-1)&^(unix.NLA_ALIGNTO-1), len(b))
			a := attribute{int(binary.NativeEndian.Uint16(b[2:]) & nl.NLA_TYPE_MASK), b[unix.NLA_HDRLEN:n], b[:end]}
			if !yield(a) {
				return
			}
			b = b[end:]
		}
	}
}

// parse reads a connection from the kernel's message about it.
func parse(msg []byte) (conntrack.Connection, func() Name, bool) {
	var c conntrack.Connection
	if len(msg) < nl.SizeofNfgenmsg {
		return c, nil, false
	}
	body := msg[nl.SizeofNfgenmsg:]
	for a := range attributes(body) {
		switch a.typ {
		case nl.CTA_TUPLE_ORIG:
			c.Opener, c.Class.Protocol = tuple(a.value)
		case nl.CTA_TUPLE_REPLY:
			c.Answerer, _ = tuple(a.value)
		case nl.CTA_STATUS:
			c.Answered = number(a.value)&statusAnswered != 0
			c.Class.Answered = c.Answered
		case nl.CTA_TIMEOUT:
			c.Rest = time.Duration(number(a.value)) * time.Second
		case nl.CTA_PROTOINFO:
			c.Class.State = stateOfTCP(a.value)
		}
	}
	return c, func() Name { return nameOf(msg[0], body) }, c.Opener.IsValid() && c.Answerer.IsValid()
}

func nameOf(family uint8, body []byte) Name {
	var attrs []byte
	for a := range attributes(body) {
		if a.typ == nl.CTA_TUPLE_ORIG || a.typ == nl.CTA_ZONE || a.typ == nl.CTA_ID {
			attrs = append(attrs, a.whole...)
		}
	}
	return Name{family, string(attrs)}
}

// tuple reads the source and the protocol of one direction.
func tuple(b []byte) (source netip.Addr, protocol uint8) {
	for a := range attributes(b) {
		for inner := range attributes(a.value) {
			switch {
			case a.typ == nl.CTA_TUPLE_IP && (inner.typ == nl.CTA_IP_V4_SRC || inner.typ == nl.CTA_IP_V6_SRC):
				source, _ = netip.AddrFromSlice(inner.value)
			case a.typ == nl.CTA_TUPLE_PROTO && inner.typ == nl.CTA_PROTO_NUM && len(inner.value) == 1:
				protocol = inner.value[0]
			}
		}
	}
	return source, protocol
}

func stateOfTCP(b []byte) uint8 {
	for a := range attributes(b) {
		for inner := range attributes(a.value) {
			if a.typ == nl.CTA_PROTOINFO_TCP && inner.typ == nl.CTA_PROTOINFO_TCP_STATE && len(inner.value) == 1 {
				return inner.value[0]
			}
		}
	}
	return 0
}

// number reads an unsigned number of four bytes, most significant first.
func number(b []byte) uint32 {
	if len(b) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}
