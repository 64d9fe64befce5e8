package walk

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/kithnet/kith/policy/ruleset"
)

// TestOnlyTheLostAreReset: what the kernel calls invalid may be of a connection that is open, and must not end it. A reset is
// not answered, and where the kernel has none, nothing is.
func TestOnlyTheLostAreReset(t *testing.T) {
	addr := netip.MustParseAddr
	for _, tt := range []struct {
		name  string
		state ruleset.CTState
		flags uint8
		none  bool // the kernel cannot reset
		want  string
	}{
		{"of a connection that is lost", ruleset.StateNew, 16, false, "reject"},
		{"invalid", ruleset.StateInvalid, 16, false, "drop"},
		{"untracked", ruleset.StateUntracked, 16, false, "drop"},
		{"of a connection that is lost, and nobody can say so", ruleset.StateNew, 16, true, "drop"},
		{"that opens a connection", ruleset.StateNew, 2, false, "drop"},
	} {
		in := guardedInput()
		in.Network.Resets = !tt.none
		p := Packet{In: "kith0", Out: veth, Source: addr("10.244.2.5"), Destination: addr("10.244.1.5"), Protocol: 6, TCPFlags: tt.flags, Ports: &Ports{40000, 80}}
		p.Conn = Conn{State: tt.state, Original: p.Source, Reply: p.Destination}
		got, err := Hook(ruleset.Compile(in), "forward", p)
		if err != nil || !got.Dropped || strings.Contains(got.By, "reject") != (tt.want == "reject") {
			t.Errorf("a segment %s: dropped %t by %q, %v, want %s", tt.name, got.Dropped, got.By, err, tt.want)
		}
	}
}
