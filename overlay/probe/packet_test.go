package probe

import (
	"bytes"
	"testing"
)

func TestPacket(t *testing.T) {
	p := packet{kind: answer, number: 0x0102030405060708}
	for _, length := range []int{-12, 0, headLength, 1000} {
		b := p.encode(length)
		if len(b) != max(length, headLength) {
			t.Errorf("length %d: %d bytes", length, len(b))
		}
		if got, err := parse(b); err != nil || got != p {
			t.Errorf("length %d: %+v, %v", length, got, err)
		}
	}
	good := p.encode(0)
	for name, change := range map[string]func([]byte) []byte{
		"cut":             func(b []byte) []byte { return b[:headLength-1] },
		"another magic":   func(b []byte) []byte { b[0] = 'K'; return b },
		"another version": func(b []byte) []byte { b[4] = 2; return b },
		"another kind":    func(b []byte) []byte { b[5] = 3; return b },
		"not zero":        func(b []byte) []byte { b[7] = 1; return b },
	} {
		if got, err := parse(change(bytes.Clone(good))); err == nil {
			t.Errorf("%s: read as %+v", name, got)
		}
	}
}

// A packet that parses is written back to the same bytes, up to the padding.
func FuzzParse(f *testing.F) {
	f.Add(packet{kind: question, number: 1}.encode(0))
	f.Add(packet{kind: answer, number: 1 << 63}.encode(100))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := parse(b); err == nil && !bytes.Equal(p.encode(0), b[:headLength]) {
			t.Errorf("%x is written back as %x", b, p.encode(0))
		}
	})
}
