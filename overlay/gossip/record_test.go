package gossip

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/hashicorp/memberlist"

	"github.com/kithnet/kith/overlay"
)

func keys(letter byte) [overlay.Lanes]overlay.Key {
	return [overlay.Lanes]overlay.Key{overlay.Key(bytes.Repeat([]byte{letter}, 32)), overlay.Key(bytes.Repeat([]byte{letter, 1}, 16))}
}

func endpoints(texts ...string) []netip.AddrPort {
	var out []netip.AddrPort
	for _, text := range texts {
		out = append(out, netip.MustParseAddrPort(text))
	}
	return out
}

func largest() Record {
	r := Record{Keys: keys('k'), Epoch: 1<<64 - 1, Signature: bytes.Repeat([]byte{1}, maxSignature)}
	for range maxEndpoints {
		r.Endpoints = append(r.Endpoints, netip.MustParseAddrPort("[fd00::1]:51820"))
	}
	return r
}

func TestRecordRoundTrip(t *testing.T) {
	for name, r := range map[string]Record{
		"least":   {Keys: keys('k')},
		"usual":   {Keys: keys('k'), Endpoints: endpoints("172.18.0.2:51820", "[fd00::2]:51820"), Epoch: 7, Signature: []byte("signed")},
		"largest": largest(),
	} {
		t.Run(name, func(t *testing.T) {
			b, err := r.MarshalBinary()
			if err != nil {
				t.Fatal(err)
			}
			if len(b) > memberlist.MetaMaxSize {
				t.Errorf("%d bytes, at most %d", len(b), memberlist.MetaMaxSize)
			}
			got, err := ParseRecord(b)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(r, got, cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRecordRefused(t *testing.T) {
	good, err := Record{Keys: keys('k'), Endpoints: endpoints("172.18.0.2:51820")}.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	edit := func(at int, value byte) []byte {
		b := bytes.Clone(good)
		b[at] = value
		return b
	}
	for name, test := range map[string]struct {
		data []byte
		want error
	}{
		"empty":                {nil, ErrVersion},
		"other version":        {edit(0, 2), ErrVersion},
		"bytes after the end":  {append(bytes.Clone(good), 0), ErrMalformed},
		"too many endpoints":   {edit(73, maxEndpoints+1), ErrMalformed},
		"unknown family":       {edit(74, 5), ErrMalformed},
		"zero key":             {append([]byte{1}, make([]byte, 74)...), ErrMalformed},
		"signature too long":   {edit(len(good)-1, maxSignature+1), ErrMalformed},
		"signature cut":        {edit(len(good)-1, 1), ErrMalformed},
		"mapped IPv4 endpoint": {mapped(), ErrMalformed},
	} {
		if _, err := ParseRecord(test.data); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
	for n := range good {
		if _, err := ParseRecord(good[:n]); err == nil {
			t.Errorf("the first %d bytes are a record", n)
		}
	}
}

func mapped() []byte {
	b, _ := Record{Keys: keys('k'), Endpoints: endpoints("[fd00::1]:1")}.MarshalBinary()
	addr := netip.MustParseAddr("::ffff:1.2.3.4").As16()
	copy(b[75:], addr[:])
	return b
}

func TestRecordTooLarge(t *testing.T) {
	many := largest()
	many.Endpoints = append(many.Endpoints, many.Endpoints[0])
	long := largest()
	long.Signature = append(long.Signature, 1)
	zone := Record{Keys: keys('k'), Endpoints: endpoints("[fe80::1%eth0]:1")}
	for name, r := range map[string]Record{"endpoints": many, "signature": long, "zone": zone} {
		if _, err := r.MarshalBinary(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// A record that parses is written back to the same bytes: there is one spelling.
func FuzzParseRecord(f *testing.F) {
	for _, r := range []Record{{Keys: keys('k')}, largest(), {Keys: keys('k'), Endpoints: endpoints("1.2.3.4:5", "[fd00::1]:6"), Epoch: 9}} {
		b, err := r.MarshalBinary()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ParseRecord(data)
		if err != nil {
			return
		}
		b, err := r.MarshalBinary()
		if err != nil || !bytes.Equal(b, data) {
			t.Errorf("%x is written back as %x (%v)", data, b, err)
		}
	})
}

func TestSplitLine(t *testing.T) {
	for line, want := range map[string]string{
		"[ERR] memberlist: Failed to send\n":  "WARN Failed to send",
		"[WARN] memberlist: Refuting\n":       "INFO Refuting",
		"[INFO] memberlist: Marking a\n":      "INFO Marking a",
		"[DEBUG] memberlist: Stream\n":        "DEBUG Stream",
		"something else altogether [x] y\n":   "INFO something else altogether [x] y",
		"[ERR] Failed to shutdown transport ": "WARN Failed to shutdown transport",
	} {
		level, text := splitLine(line)
		if got := level.String() + " " + text; got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}
