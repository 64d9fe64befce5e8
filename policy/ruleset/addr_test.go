package ruleset

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kithnet/kith/policy"
)

func small(i int) netip.Addr { return netip.AddrFrom4([4]byte{0, 0, 0, byte(i)}) }

func smallRange(r *rand.Rand) addrRange {
	from := r.IntN(256)
	return addrRange{small(from), small(from + r.IntN(256-from))}
}

func texts(rs []addrRange) []string {
	var out []string
	for _, r := range rs {
		out = append(out, r.from.String()+"-"+r.to.String())
	}
	return out
}

func TestBlockRanges(t *testing.T) {
	nodes := twoNodes().Nodes
	tests := []struct {
		name   string
		cidr   string
		except []string
		want   []string
	}{
		{"plain", "11.0.0.0/8", nil, []string{"11.0.0.0-11.255.255.255"}},
		{"host bits are not looked at", "11.1.2.3/8", nil, []string{"11.0.0.0-11.255.255.255"}},
		{"hole", "11.0.0.0/8", []string{"11.1.0.0/16"}, []string{"11.0.0.0-11.0.255.255", "11.2.0.0-11.255.255.255"}},
		{"hole at the start", "11.0.0.0/8", []string{"11.0.0.0/9"}, []string{"11.128.0.0-11.255.255.255"}},
		{"hole in a hole", "11.0.0.0/8", []string{"11.0.0.0/9", "11.1.0.0/16"}, []string{"11.128.0.0-11.255.255.255"}},
		{"all hole", "11.0.0.0/8", []string{"11.0.0.0/9", "11.128.0.0/9"}, nil},
		{"everything", "0.0.0.0/0", []string{"172.18.0.0/16"},
			[]string{"0.0.0.0-10.244.1.0", "10.244.1.2-10.244.2.0", "10.244.2.2-172.17.255.255", "172.19.0.0-255.255.255.255"}},
		{"hole at the end", "255.0.0.0/8", []string{"255.255.0.0/16"}, []string{"255.0.0.0-255.254.255.255"}},
		{"other family", "fd00::/8", []string{"10.0.0.0/8"}, []string{"fd00::-fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"}},
		{"a node", "172.18.0.3/32", nil, []string{"10.244.2.1-10.244.2.1", "172.18.0.3-172.18.0.3"}},
		{"the pods' range", "10.244.0.0/16", nil, []string{"10.244.0.0-10.244.1.0", "10.244.1.2-10.244.2.0", "10.244.2.2-10.244.255.255"}},
		{"a family that the nodes themselves do not have", "fd00:2::/64", nil, []string{"fd00:2::-fd00:2::ffff:ffff:ffff:ffff"}},
		{"not the node in the hole", "172.18.0.2/31", []string{"172.18.0.2/32"}, []string{"10.244.2.1-10.244.2.1", "172.18.0.3-172.18.0.3"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := policy.Block{CIDR: netip.MustParsePrefix(tt.cidr), Except: prefixes(tt.except...)}
			if d := cmp.Diff(tt.want, texts(mergeRanges(withNodes(mergeRanges(blockRanges(b)), nodes)))); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}

func TestSubtract(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 0))
	for range 300 {
		whole := smallRange(r)
		holes := []addrRange{smallRange(r), smallRange(r)}
		left := subtract(whole, holes)
		for i := range 256 {
			a := small(i)
			want := whole.contains(a) && !holes[0].contains(a) && !holes[1].contains(a)
			got := 0
			for _, l := range left {
				if l.contains(a) {
					got++
				}
			}
			if got > 1 || (got == 1) != want {
				t.Fatalf("%v without %v is %v: %s is in %d of it", whole, holes, left, a, got)
			}
		}
	}
}

func TestDisjoint(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 0))
	for range 60 {
		var boxes []box
		for range r.IntN(6) {
			first := uint16(r.IntN(10))
			boxes = append(boxes, box{smallRange(r), portRange{uint8(6 + 11*r.IntN(2)), first, first + uint16(r.IntN(5))}})
		}
		cut, _ := disjoint(boxes)
		for i := range 256 {
			for port := range uint16(16) {
				for _, proto := range []uint8{6, 17} {
					in, out := hits(boxes, small(i), proto, port), hits(cut, small(i), proto, port)
					if out > 1 || (in > 0) != (out == 1) {
						t.Fatalf("%v cut into %v: %d %d/%d is in %d and %d", boxes, cut, i, port, proto, in, out)
					}
				}
			}
		}
	}
}

func hits(boxes []box, a netip.Addr, protocol uint8, port uint16) int {
	n := 0
	for _, b := range boxes {
		if b.addr.contains(a) && b.port.protocol == protocol && b.port.first <= port && port <= b.port.last {
			n++
		}
	}
	return n
}

func TestDisjointAtTheEnds(t *testing.T) {
	all := addrRange{netip.MustParseAddr("::"), netip.MustParseAddr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")}
	top := addrRange{netip.MustParseAddr("ffff::"), all.to}
	got, _ := disjoint([]box{{all, portRange{6, 80, 80}}, {top, portRange{6, 0, 65535}}})
	want := []box{
		{addrRange{all.from, top.from.Prev()}, portRange{6, 80, 80}},
		{top, portRange{6, 0, 65535}},
	}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestPorts(t *testing.T) {
	got := mergePorts([]portRange{{17, 5, 9}, {6, 80, 80}, {6, 81, 90}, {6, 85, 86}, {6, 65535, 65535}, {6, 100, 65535}})
	want := []portRange{{6, 80, 90}, {6, 100, 65535}, {17, 5, 9}}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(portRange{})); d != "" {
		t.Errorf("merge (-want +got)\n%s", d)
	}
	single, wide := singles([]portRange{{6, 80, 80}, {6, 85, 85}, {6, 81, 90}, {17, 85, 85}})
	if d := cmp.Diff([]portRange{{6, 80, 80}, {17, 85, 85}}, single, cmp.AllowUnexported(portRange{})); d != "" {
		t.Errorf("singles (-want +got)\n%s", d)
	}
	if d := cmp.Diff([]portRange{{6, 81, 90}}, wide, cmp.AllowUnexported(portRange{})); d != "" {
		t.Errorf("wide (-want +got)\n%s", d)
	}
}
