package dns

import (
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/kithnet/kith/policy"
)

func a(name, address string, ttl uint32) dnsmessage.Resource {
	addr := netip.MustParseAddr(address)
	var body dnsmessage.ResourceBody = &dnsmessage.AAAAResource{AAAA: addr.As16()}
	if addr.Is4() {
		body = &dnsmessage.AResource{A: addr.As4()}
	}
	return resource(name, ttl, body)
}

func cname(name, target string, ttl uint32) dnsmessage.Resource {
	return resource(name, ttl, &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName(target)})
}

func resource(name string, ttl uint32, body dnsmessage.ResourceBody) dnsmessage.Resource {
	return dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName(name), Class: dnsmessage.ClassINET, TTL: ttl}, Body: body}
}

func answer(question string, answers ...dnsmessage.Resource) dnsmessage.Message {
	return dnsmessage.Message{
		Header:    dnsmessage.Header{Response: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(question), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
		Answers:   answers,
	}
}

func pack(t testing.TB, m dnsmessage.Message) []byte {
	t.Helper()
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRead(t *testing.T) {
	const www, real = policy.Domain("www.example.com"), policy.Domain("real.example.net")
	four, six := netip.MustParseAddr("203.0.113.7"), netip.MustParseAddr("2001:db8::7")
	query, failed := answer("www.example.com.", a("www.example.com.", "203.0.113.7", 30)), answer("www.example.com.", a("www.example.com.", "203.0.113.7", 30))
	query.Response, failed.RCode = false, dnsmessage.RCodeNameError
	long := []dnsmessage.Resource{a("z.example.", "203.0.113.7", 1)}
	for i := range 20 {
		next := string(rune('a'+i+1)) + ".example."
		if i == 19 {
			next = "z.example."
		}
		long = append(long, cname(string(rune('a'+i))+".example.", next, 1))
	}
	for name, tt := range map[string]struct {
		message dnsmessage.Message
		want    []Telling
	}{
		"an address":             {answer("www.example.com.", a("www.example.com.", "203.0.113.7", 30)), []Telling{{www, four, 30 * time.Second}}},
		"large letters":          {answer("WWW.Example.com.", a("www.EXAMPLE.com.", "2001:db8::7", 0)), []Telling{{www, six, 0}}},
		"an alias":               {answer("www.example.com.", cname("www.example.com.", "real.example.net.", 5), a("real.example.net.", "203.0.113.7", 30)), []Telling{{www, four, 5 * time.Second}, {real, four, 5 * time.Second}}},
		"in whatever order":      {answer("www.example.com.", a("real.example.net.", "203.0.113.7", 3), cname("www.example.com.", "real.example.net.", 5)), []Telling{{www, four, 3 * time.Second}, {real, four, 3 * time.Second}}},
		"what nobody asked for":  {answer("www.example.com.", a("bank.example.", "203.0.113.7", 30)), nil},
		"an alias to nowhere":    {answer("www.example.com.", cname("www.example.com.", "real.example.net.", 5)), nil},
		"aliases in a circle":    {answer("www.example.com.", cname("www.example.com.", "www.example.com.", 5)), nil},
		"too many aliases":       {answer("a.example.", long...), nil},
		"a question":             {query, nil},
		"no such name":           {failed, nil},
		"addresses of no name":   {answer("www.example.com.", a("www.example.com.", "169.254.169.254", 1), a("www.example.com.", "127.0.0.1", 1), a("www.example.com.", "::ffff:1.2.3.4", 1), a("www.example.com.", "fe80::1", 1)), nil},
		"another kind of record": {answer("www.example.com.", resource("www.example.com.", 1, &dnsmessage.TXTResource{TXT: []string{"x"}}), a("www.example.com.", "203.0.113.7", 30)), []Telling{{www, four, 30 * time.Second}}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Read(pack(t, tt.message))
			if d := cmp.Diff(tt.want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" || err != nil {
				t.Errorf("%v (-want +got)\n%s", err, d)
			}
		})
	}
}

// packet wraps bytes in IP: protocol 17 or 6, with headers of the least length.
func packet(source, destination string, protocol byte, payload []byte) []byte {
	from, to := netip.MustParseAddr(source), netip.MustParseAddr(destination)
	transport := append([]byte{0, 53, 0x9c, 0x40, byte((8 + len(payload)) >> 8), byte(8 + len(payload)), 0xbe, 0xef}, payload...)
	if protocol == tcp {
		transport = append(append([]byte{0, 53, 0x9c, 0x40}, make([]byte, 16)...), payload...)
		transport[12] = 5 << 4
	}
	if from.Is4() {
		n := 20 + len(transport)
		ip := append([]byte{0x45, 0, byte(n >> 8), byte(n), 0, 0, 0x40, 0, 64, protocol, 0, 0}, append(from.AsSlice(), to.AsSlice()...)...)
		return append(ip, transport...)
	}
	ip := append([]byte{0x60, 0, 0, 0, byte(len(transport) >> 8), byte(len(transport)), protocol, 64}, append(from.AsSlice(), to.AsSlice()...)...)
	return append(ip, transport...)
}

func TestUnwrap(t *testing.T) {
	for name, tt := range map[string]struct {
		packet []byte
		want   string
	}{
		"UDP":                   {packet("10.96.0.10", "10.244.1.5", udp, []byte("message")), "10.244.1.5 message"},
		"UDP, IPv6":             {packet("fd00:96::a", "fd00:1::5", udp, []byte("message")), "fd00:1::5 message"},
		"TCP, two messages":     {packet("10.96.0.10", "10.244.1.5", tcp, []byte("\x00\x03one\x00\x03two")), "10.244.1.5 one two"},
		"TCP, part of a second": {packet("fd00:96::a", "fd00:1::5", tcp, []byte("\x00\x03one\x00\x09two")), "fd00:1::5 one"},
		"TCP, no data":          {packet("10.96.0.10", "10.244.1.5", tcp, nil), "10.244.1.5"},
		"neither":               {packet("10.96.0.10", "10.244.1.5", 132, nil), "error"},
		"cut":                   {packet("10.96.0.10", "10.244.1.5", udp, []byte("message"))[:30], "error"},
		"nothing":               {nil, "error"},
	} {
		t.Run(name, func(t *testing.T) {
			to, messages, err := Unwrap(tt.packet)
			got := to.String()
			for _, m := range messages {
				got += " " + string(m)
			}
			if err != nil {
				got = "error"
			}
			if got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

// TestSum compares with sums that were not made here.
func TestSum(t *testing.T) {
	for name, tt := range map[string]struct{ packet, want string }{
		"IPv4": {hex.EncodeToString(packet("10.0.0.1", "10.0.0.2", udp, []byte("abc"))), "8afd"},
		"IPv6": {hex.EncodeToString(packet("fd00::1", "fd00::2", udp, []byte("abcd"))), "a495"},
	} {
		t.Run(name, func(t *testing.T) {
			b, _ := hex.DecodeString(tt.packet)
			Sum(b)
			if s, _ := parse(b); !strings.EqualFold(hex.EncodeToString(s.transport[6:8]), tt.want) {
				t.Errorf("sum %x, want %s", s.transport[6:8], tt.want)
			}
		})
	}
}

// FuzzRead: no bytes make reading fail badly, and what is told is of a kind that rules can use.
func FuzzRead(f *testing.F) {
	f.Add(pack(f, answer("www.example.com.", cname("www.example.com.", "b.example.", 5), a("b.example.", "203.0.113.7", 30))))
	f.Add(packet("fd00:96::a", "fd00:1::5", tcp, []byte("\x00\x03one")))
	f.Fuzz(func(t *testing.T, b []byte) {
		told, _ := Read(b)
		for _, x := range told {
			if x.Name == "" || x.Name != policy.MakeDomain(string(x.Name)) || !reachable(x.Address) || x.TTL < 0 {
				t.Errorf("told %+v", x)
			}
		}
		if _, messages, err := Unwrap(b); err == nil {
			for _, m := range messages {
				_, _ = Read(m)
			}
		}
		Sum(b)
		_, _, _ = Ends(b)
	})
}
