package ruleset

import (
	"encoding/binary"
	"net/netip"
)

// part is one field of a key: a value, or a range with both ends.
type part struct{ low, high []byte }

func addrPart(a netip.Addr) part { return part{a.AsSlice(), a.AsSlice()} }

func rangePart(r addrRange) part { return part{r.from.AsSlice(), r.to.AsSlice()} }

func numberPart(n uint32) part {
	b := binary.BigEndian.AppendUint32(nil, n)
	return part{b, b}
}

func protocolPart(p uint8) part { return part{[]byte{p}, []byte{p}} }

func portPart(first, last uint16) part {
	return part{binary.BigEndian.AppendUint16(nil, first), binary.BigEndian.AppendUint16(nil, last)}
}

func macPart(m MAC) part { return part{m[:], m[:]} }

func interfacePart(name string) part {
	b := make([]byte, TypeIfName.Size())
	copy(b, name)
	return part{b, b}
}

// exactKey is the key of an element in a set without intervals.
func exactKey(parts ...part) Key {
	k := intervalKey(parts...)
	return Key{Low: k.Low}
}

// intervalKey is the key of an element in a set with intervals.
func intervalKey(parts ...part) Key {
	if len(parts) == 1 {
		return Key{string(parts[0].low), string(parts[0].high)}
	}
	var low, high []byte
	for _, p := range parts {
		low, high = pad(append(low, p.low...)), pad(append(high, p.high...))
	}
	return Key{string(low), string(high)}
}

func pad(b []byte) []byte {
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func interfaceKey(name string) Key { return exactKey(interfacePart(name)) }

// split cuts a key into its fields, without the padding.
func (s SetSpec) split(key string) []string {
	if len(s.Key) == 1 {
		return []string{key}
	}
	fields := make([]string, 0, len(s.Key))
	for _, t := range s.Key {
		padded := (t.Size() + 3) / 4 * 4
		if len(key) < padded {
			return fields
		}
		fields = append(fields, key[:t.Size()])
		key = key[padded:]
	}
	return fields
}
