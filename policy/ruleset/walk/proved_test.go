package walk

import (
	"net/netip"
	"testing"

	"github.com/kithnet/kith/policy/ruleset"
)

// TestSizesBelowWhatIsProved: at input, of what came to this node from outside, an error ends that says less than what is proved
// of where its packet was for. (The kernel says the same: TestForgedSizesAreNotBelieved.)
func TestSizesBelowWhatIsProved(t *testing.T) {
	c := ruleset.NewCompiler()
	four, six := netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::2")
	c.SetProved([]ruleset.Proof{{Address: four, Size: 1500}, {Address: six, Size: 1400}})
	for name, p := range map[string]struct {
		Packet
		drop bool
	}{
		"less":                    {Packet{Protocol: 1, ICMPType: 3, ICMPCode: 4, Quoted: four, Claimed: 1499}, true},
		"nothing":                 {Packet{Protocol: 1, ICMPType: 3, ICMPCode: 4, Quoted: four}, true},
		"as much":                 {Packet{Protocol: 1, ICMPType: 3, ICMPCode: 4, Quoted: four, Claimed: 1500}, false},
		"of another":              {Packet{Protocol: 1, ICMPType: 3, ICMPCode: 4, Quoted: four.Next(), Claimed: 576}, false},
		"a closed port":           {Packet{Protocol: 1, ICMPType: 3, ICMPCode: 3, Quoted: four}, false},
		"less, IPv6":              {Packet{Protocol: 58, ICMPType: 2, Quoted: six, Claimed: 1399}, true},
		"as much, IPv6":           {Packet{Protocol: 58, ICMPType: 2, Quoted: six, Claimed: 1400}, false},
		"no way, IPv6":            {Packet{Protocol: 58, ICMPType: 1, Quoted: six}, false},
		"more than two bytes say": {Packet{Protocol: 58, ICMPType: 2, Quoted: six, Claimed: 1 << 20}, false},
	} {
		p.In, p.Source, p.Destination = underlay, netip.MustParseAddr("192.0.2.9"), netip.MustParseAddr("192.0.2.1")
		if p.Protocol == 58 {
			p.Source, p.Destination = netip.MustParseAddr("2001:db8::9"), netip.MustParseAddr("2001:db8::1")
		}
		got, err := Hook(c.Ruleset(), "input", p.Packet)
		if err != nil || got.Dropped != p.drop {
			t.Errorf("%s: dropped %v by %q, error %v", name, got.Dropped, got.By, err)
		}
	}
}
