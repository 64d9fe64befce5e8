package walk

import (
	"encoding/binary"
	"net/netip"

	"github.com/kithnet/kith/policy/ruleset"
)

// key is the concatenation of the fields, as elements hold it; false when the packet does not have one of them.
func (w *walker) key(fields []ruleset.Field) (string, bool) {
	var b []byte
	for _, f := range fields {
		v, ok := w.load(f)
		if !ok {
			return "", false
		}
		b = append(b, v...)
		for len(fields) > 1 && len(b)%4 != 0 {
			b = append(b, 0)
		}
	}
	return string(b), true
}

func (w *walker) load(f ruleset.Field) ([]byte, bool) {
	p := w.packet
	switch f {
	case ruleset.InInterface:
		return name(p.In), p.In != ""
	case ruleset.OutInterface:
		return name(p.Out), p.Out != ""
	case ruleset.EtherSource:
		if p.EtherSource == nil {
			return nil, false
		}
		return p.EtherSource[:], true
	case ruleset.IPSource, ruleset.IP6Source:
		return addr(p.Source, familyOf(f))
	case ruleset.IPDestination, ruleset.IP6Destination:
		return addr(p.Destination, familyOf(f))
	case ruleset.QuotedDestination, ruleset.QuotedDestination6:
		return addr(p.Quoted, familyOf(f))
	case ruleset.L4Proto:
		return []byte{p.Protocol}, true
	case ruleset.Priority:
		return binary.BigEndian.AppendUint32(nil, w.priority), true
	case ruleset.SourcePort, ruleset.DestinationPort:
		return w.port(f)
	}
	return w.connField(f)
}

func (w *walker) port(f ruleset.Field) ([]byte, bool) {
	p := w.packet.Ports
	if p == nil {
		return nil, false
	}
	if f == ruleset.SourcePort {
		return binary.BigEndian.AppendUint16(nil, p.Source), true
	}
	return binary.BigEndian.AppendUint16(nil, p.Destination), true
}

func (w *walker) connField(f ruleset.Field) ([]byte, bool) {
	if !w.tracked() {
		return nil, false
	}
	c := w.packet.Conn
	switch f {
	case ruleset.OriginalSource, ruleset.OriginalSource6:
		return addr(c.Original, familyOf(f))
	case ruleset.ReplySource, ruleset.ReplySource6:
		return addr(c.Reply, familyOf(f))
	}
	return nil, false
}

// addr is the address if it is of the field's length.
func addr(a netip.Addr, size int) ([]byte, bool) {
	b := a.AsSlice()
	return b, len(b) == size
}

func familyOf(f ruleset.Field) int { return f.Type().Size() }

func name(s string) []byte {
	b := make([]byte, ruleset.TypeIfName.Size())
	copy(b, s)
	return b
}

// inside compares field by field, as the kernel does with intervals.
func inside(s ruleset.SetSpec, e ruleset.Key, key string) bool {
	if e.High == "" {
		return e.Low == key
	}
	at := 0
	for _, t := range s.Key {
		n := t.Size()
		if key[at:at+n] < e.Low[at:at+n] || key[at:at+n] > e.High[at:at+n] {
			return false
		}
		at += (n + 3) / 4 * 4
	}
	return at >= len(key) || len(s.Key) == 1
}
