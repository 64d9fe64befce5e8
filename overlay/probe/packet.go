package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// kind tells a question from its answer.
type kind byte

const (
	question kind = 1
	answer   kind = 2
)

// packet is the head of a probe; what follows is there for its size.
type packet struct {
	kind   kind
	number uint64
}

const (
	magic      = "kith"
	version    = 1
	headLength = 16 // magic, version, kind, two bytes of zero, number
)

var errNotProbe = errors.New("not a probe")

// encode pads the packet to a length, or leaves it at its head's.
func (p packet) encode(length int) []byte {
	b := make([]byte, max(length, headLength))
	copy(b, magic)
	b[4], b[5] = version, byte(p.kind)
	binary.BigEndian.PutUint64(b[8:], p.number)
	return b
}

func parse(b []byte) (packet, error) {
	if len(b) < headLength || string(b[:4]) != magic || b[6] != 0 || b[7] != 0 {
		return packet{}, errNotProbe
	}
	if b[4] != version {
		return packet{}, fmt.Errorf("probe of version %d", b[4])
	}
	p := packet{kind: kind(b[5]), number: binary.BigEndian.Uint64(b[8:])}
	if p.kind != question && p.kind != answer {
		return packet{}, fmt.Errorf("probe of kind %d", p.kind)
	}
	return p, nil
}
