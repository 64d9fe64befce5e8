package kernel

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/kithnet/kith/policy/conntrack"
)

// nest is an attribute of the kernel's messages.
func nest(typ uint16, parts ...[]byte) []byte {
	var value []byte
	for _, p := range parts {
		value = append(value, p...)
	}
	out := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
	out = append(binary.NativeEndian.AppendUint16(out, typ), value...)
	for len(out)%4 != 0 {
		out = append(out, 0)
	}
	return out
}

func addresses(source, destination string) []byte {
	from, to := netip.MustParseAddr(source), netip.MustParseAddr(destination)
	first := uint16(1)
	if from.Is6() {
		first = 3
	}
	const nested = 1 << 15
	return append(nest(nested|1, nest(first, from.AsSlice()), nest(first+1, to.AsSlice())),
		nest(nested|2, nest(1, []byte{6}), nest(2, []byte{1, 2}), nest(3, []byte{0, 80}))...)
}

// message is what the kernel says of an open connection that was rewritten on its way to 10.0.0.9.
func message() []byte {
	const nested = 1 << 15
	out := []byte{2, 0, 0, 0}
	for _, a := range [][]byte{
		nest(nested|1, addresses("10.0.0.5", "10.96.0.1")), nest(nested|2, addresses("10.0.0.9", "10.0.0.5")),
		nest(3, []byte{0, 0, 1, 0x8e}), nest(nested|4, nest(nested|1, nest(1, []byte{3}), nest(2, []byte{7}))),
		nest(7, []byte{0, 0, 0, 90}), nest(8, []byte{0, 0, 0, 0}), nest(18, []byte{0, 5}), nest(12, []byte{1, 2, 3, 4}),
	} {
		out = append(out, a...)
	}
	return out
}

func TestParse(t *testing.T) {
	got, name, ok := parse(message())
	want := conntrack.Connection{
		Opener: netip.MustParseAddr("10.0.0.5"), Answerer: netip.MustParseAddr("10.0.0.9"),
		Class: conntrack.Class{Protocol: 6, State: 3, Answered: true}, Answered: true, Rest: 90 * time.Second,
	}
	if !ok || got != want {
		t.Errorf("got %+v, %t, want %+v", got, ok, want)
	}
	attrs := append(append(nest(1<<15|1, addresses("10.0.0.5", "10.96.0.1")), nest(18, []byte{0, 5})...), nest(12, []byte{1, 2, 3, 4})...)
	if got, want := name(), (Name{2, string(attrs)}); got != want {
		t.Errorf("name %q, want %q", got, want)
	}
	six := append([]byte{10, 0, 0, 0}, append(nest(1, addresses("fd00::5", "fd00::6")), nest(2, addresses("fd00::6", "fd00::5"))...)...)
	if got, _, ok := parse(six); !ok || got.Opener != netip.MustParseAddr("fd00::5") || got.Answerer != netip.MustParseAddr("fd00::6") {
		t.Errorf("IPv6: %+v, %t", got, ok)
	}
}

// FuzzParse: whatever comes, it is read or skipped, and its name is made of what came.
func FuzzParse(f *testing.F) {
	f.Add(message())
	f.Add([]byte{2, 0, 0, 0, 3, 0, 1, 0})
	f.Add([]byte{2, 0, 0, 0, 255, 255, 1, 128})
	f.Fuzz(func(t *testing.T, msg []byte) {
		c, name, ok := parse(msg)
		if !ok {
			return
		}
		if !c.Opener.IsValid() || !c.Answerer.IsValid() {
			t.Errorf("without an address: %+v", c)
		}
		if n := name(); len(n.attrs) > len(msg) {
			t.Errorf("a name of %d bytes from a message of %d", len(n.attrs), len(msg))
		}
	})
}
