package announce

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kithnet/kith/identity"
)

func address(s string) netip.Addr { return netip.MustParseAddr(s) }

func sample() identity.Hint {
	return identity.Hint{
		Pin:       identity.Pin{Pod: identity.PodKey{Namespace: "shop", Name: "api-0"}, UID: "u1"},
		Addresses: []netip.Addr{address("10.1.0.5"), address("fd00::5")}, Sequence: 0x0102030405060708,
	}
}

func encoded(t testing.TB, h identity.Hint) []byte {
	b, err := encode(h)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestPacket(t *testing.T) {
	long := sample()
	long.Pod.Name = strings.Repeat("x", maxText)
	for _, h := range []identity.Hint{sample(), long, {Addresses: []netip.Addr{address("10.1.0.5")}}} {
		got, err := parse(encoded(t, h))
		if d := cmp.Diff(h, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); err != nil || d != "" {
			t.Errorf("%v (-said +heard)\n%s", err, d)
		}
	}
	long.Pod.Name += "x"
	for _, h := range []identity.Hint{long, {}, {Addresses: make([]netip.Addr, maxAddresses+1)}} {
		if b, err := encode(h); err == nil {
			t.Errorf("%+v is written as %x", h, b)
		}
	}
	good := encoded(t, sample())
	for name, change := range map[string]func([]byte) []byte{
		"cut":               func(b []byte) []byte { return b[:len(b)-1] },
		"cut head":          func(b []byte) []byte { return b[:headLength-1] },
		"more":              func(b []byte) []byte { return append(b, 0) },
		"another magic":     func(b []byte) []byte { b[0] = 'K'; return b },
		"another version":   func(b []byte) []byte { b[4] = 2; return b },
		"no address":        func(b []byte) []byte { b[5] = 0; return b },
		"too many":          func(b []byte) []byte { b[5] = maxAddresses + 1; return b },
		"length of a name":  func(b []byte) []byte { b[headLength]++; return b },
		"IPv4 within IPv6":  func(b []byte) []byte { copy(b[len(b)-16:], netip.MustParseAddr("::ffff:10.0.0.1").AsSlice()); return b },
		"not an address":    func(b []byte) []byte { return append(b[:len(b)-17], 3, 1, 2, 3) },
		"fewer than it has": func(b []byte) []byte { b[5] = 1; return b },
	} {
		if got, err := parse(change(bytes.Clone(good))); err == nil {
			t.Errorf("%s: read as %+v", name, got)
		}
	}
}

// A packet that parses is written back to the same bytes.
func FuzzParse(f *testing.F) {
	f.Add(encoded(f, sample()))
	f.Add(encoded(f, identity.Hint{Addresses: []netip.Addr{address("10.1.0.5")}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := parse(b); err == nil && !bytes.Equal(encoded(t, h), b) {
			t.Errorf("%x is written back as %x", b, encoded(t, h))
		}
	})
}
