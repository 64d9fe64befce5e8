package walk

import (
	"net/netip"
	"testing"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
	"github.com/kithnet/kith/policy/ruleset"
	"k8s.io/apimachinery/pkg/labels"
)

const veth, other = "kith-0000000001", "kith-0000000002"

// guarded is a node with one open pod, isolated in both directions, and one veth that is not open.
func guarded() ruleset.Ruleset { return ruleset.Compile(guardedInput()) }

func guardedInput() ruleset.Input {
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	pod := identity.Pod{Namespace: "a", Name: "p", UID: "1"}
	return ruleset.Input{
		Pods:       []identity.Pod{pod},
		Namespaces: []identity.Namespace{{Name: "a"}},
		Policies:   []policy.Policy{{Namespace: "a", Name: "deny", Subject: labels.Everything(), Ingress: &policy.Rules{}, Egress: &policy.Rules{}}},
		Attachments: []ruleset.Attachment{
			{Pod: pod.Key(), UID: "1", Interface: veth, MAC: ruleset.MAC{2, 5: 1}, Addresses: []netip.Addr{addr("10.244.1.5"), addr("fd00:1::5")}},
			{Pod: identity.PodKey{Namespace: "a", Name: "unknown"}, Interface: other, MAC: ruleset.MAC{2, 5: 2}, Addresses: []netip.Addr{addr("10.244.1.6"), addr("fd00:1::6")}},
		},
		Network: ruleset.Network{
			Node: "one", NoMasquerade: []netip.Prefix{prefix("10.9.0.0/16")},
			Nodes: []policy.Node{
				{Name: "one", PodCIDRs: []netip.Prefix{prefix("10.244.1.0/24"), prefix("fd00:1::/64")}, Mesh: []netip.Addr{addr("10.244.1.1"), addr("fd00:1::1")}},
				{Name: "two", PodCIDRs: []netip.Prefix{prefix("10.244.2.0/24"), prefix("fd00:2::/64")}},
			},
		},
	}
}

func TestGuards(t *testing.T) {
	r := guarded()
	mine, fake := &ruleset.MAC{2, 5: 1}, &ruleset.MAC{2, 5: 9}
	tests := []struct {
		name, hook, in, out string
		mac                 *ruleset.MAC
		src, dst            string
		protocol, icmp      uint8
		drop                bool
	}{
		{"pod", "prerouting", veth, "", mine, "10.244.1.5", "10.244.2.5", 6, 0, false},
		{"pod, IPv6", "prerouting", veth, "", mine, "fd00:1::5", "fd00:2::5", 6, 0, false},
		{"pod to its node's loopback", "prerouting", veth, "", mine, "10.244.1.5", "127.0.0.1", 6, 0, true},
		{"another's source", "prerouting", veth, "", mine, "10.244.1.6", "10.244.2.5", 6, 0, true},
		{"another's MAC", "prerouting", veth, "", fake, "10.244.1.5", "10.244.2.5", 6, 0, true},
		{"not open", "prerouting", other, "", &ruleset.MAC{2, 5: 2}, "10.244.1.6", "10.244.2.5", 6, 0, true},
		{"link-local TCP", "prerouting", veth, "", mine, "fe80::5", "fd00:2::5", 6, 0, true},
		{"neighbour solicitation", "prerouting", veth, "", mine, "fe80::5", "ff02::1", 58, 135, false},
		{"duplicate address detection", "prerouting", veth, "", mine, "::", "ff02::1", 58, 135, false},
		{"neighbour advertisement", "prerouting", veth, "", mine, "fe80::5", "fe80::1", 58, 136, false},
		{"neighbour solicitation, another's source", "prerouting", veth, "", mine, "fd00:1::6", "ff02::1", 58, 135, true},
		{"neighbour solicitation, not open", "prerouting", other, "", &ruleset.MAC{2, 5: 2}, "fe80::6", "ff02::1", 58, 135, true},
		{"router advertisement", "prerouting", veth, "", mine, "fe80::5", "ff02::1", 58, 134, true},
		{"router advertisement, own source", "prerouting", veth, "", mine, "fd00:1::5", "ff02::1", 58, 134, true},
		{"redirect", "prerouting", veth, "", mine, "fd00:1::5", "ff02::1", 58, 137, true},
		{"pod in clear", "prerouting", "eth0", "", nil, "10.244.2.5", "10.244.1.5", 6, 0, true},
		{"pod in clear to the node", "prerouting", "eth0", "", nil, "10.244.2.5", "172.18.0.1", 6, 0, true},
		{"pod in clear to the node over IPv6", "prerouting", "eth0", "", nil, "fd00:2::5", "2001:db8::1", 6, 0, true},
		{"own pod in clear", "prerouting", "eth0", "", nil, "fd00:1::5", "fd00:1::6", 6, 0, true},
		{"outside to a pod", "prerouting", "eth0", "", nil, "203.0.113.7", "10.244.1.5", 6, 0, true},
		{"outside to a pod, IPv6", "prerouting", "eth0", "", nil, "2001:db8::7", "fd00:1::5", 6, 0, true},
		{"where pods show themselves to a pod", "prerouting", "eth0", "", nil, "10.9.1.1", "10.244.1.5", 6, 0, false},
		{"client outside", "prerouting", "eth0", "", nil, "203.0.113.7", "172.18.0.1", 6, 0, false},
		{"node to itself", "prerouting", "lo", "", nil, "10.244.1.1", "10.244.1.1", 6, 0, false},
		{"node to itself, IPv6", "prerouting", "lo", "", nil, "fd00:1::1", "fd00:1::1", 6, 0, false},
		{"node to itself under its other addresses", "prerouting", "lo", "", nil, "172.18.0.1", "10.244.1.1", 6, 0, false},
		{"node to itself as a pod", "prerouting", "lo", "", nil, "10.244.1.5", "10.244.1.1", 6, 0, true},
		{"node to itself as another node", "prerouting", "lo", "", nil, "fd00:2::1", "fd00:1::1", 6, 0, true},
		{"mesh", "prerouting", "kith0", "", nil, "10.244.2.5", "10.244.1.5", 6, 0, false},
		{"mesh to the node's address", "prerouting", "kith0", "", nil, "10.244.2.5", "172.18.0.1", 6, 0, true},
		{"mesh to a third node", "prerouting", "kith0", "", nil, "fd00:2::5", "fd00:3::5", 6, 0, true},
		{"into the mesh", "postrouting", "", "kith0", nil, "10.244.1.5", "10.244.2.5", 6, 0, false},
		{"to a pod in clear", "postrouting", "", "eth0", nil, "172.18.0.1", "10.244.2.5", 6, 0, true},
		{"to a pod in clear, IPv6", "postrouting", "", "eth0", nil, "fd00:1::5", "fd00:2::5", 6, 0, true},
		{"to an open veth", "postrouting", "", veth, nil, "10.244.1.1", "10.244.1.5", 6, 0, false},
		{"to a closed veth", "postrouting", "", other, nil, "10.244.1.1", "10.244.1.6", 6, 0, true},
		{"neighbour solicitation to a closed veth", "postrouting", "", other, nil, "fe80::1", "ff02::1", 58, 135, true},
		{"out without translation", "postrouting", "", "eth0", nil, "10.244.1.5", "203.0.113.7", 6, 0, true},
		{"out where pods show themselves", "postrouting", "", "eth0", nil, "10.244.1.5", "10.9.1.1", 6, 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Hook(r, tt.hook, Packet{
				In: tt.in, Out: tt.out, EtherSource: tt.mac, Source: netip.MustParseAddr(tt.src), Destination: netip.MustParseAddr(tt.dst),
				Protocol: tt.protocol, ICMPType: tt.icmp,
			})
			if err != nil || got.Dropped != tt.drop {
				t.Errorf("dropped %t by %q, %v; want dropped %t", got.Dropped, got.By, err, tt.drop)
			}
		})
	}
}

// TestNodeThatIsGone: what is sent to the pods of a node that is gone ends here. Without its pod CIDR, it would take the
// way out behind this node's address.
func TestNodeThatIsGone(t *testing.T) {
	addr := netip.MustParseAddr
	own := policy.Node{
		Name: "one", Mesh: []netip.Addr{addr("10.244.1.1"), addr("fd00:1::1")},
		PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:1::/64")},
	}
	gone := []netip.Prefix{netip.MustParsePrefix("10.244.2.0/24"), netip.MustParsePrefix("fd00:2::/64")}
	for _, flow := range []struct{ src, dst, address string }{
		{"10.244.1.5", "10.244.2.5", "172.18.0.1"}, {"fd00:1::5", "fd00:2::5", "fc00::1"}, // a pod's
		{"172.18.0.1", "10.244.2.5", "172.18.0.1"}, {"fc00::1", "fd00:2::5", "fc00::1"}, // the node's
	} {
		for _, vacated := range [][]netip.Prefix{gone, nil} {
			r := ruleset.Compile(ruleset.Input{Network: ruleset.Network{Node: "one", Nodes: []policy.Node{own}, Vacated: vacated}})
			p := Packet{In: "", Out: "eth0", Source: addr(flow.src), Destination: addr(flow.dst), Protocol: tcp, Address: addr(flow.address)}
			p.Conn = Conn{State: ruleset.StateNew, Original: p.Source, Reply: p.Destination}
			got, err := Hook(r, "postrouting", p)
			if kept := vacated != nil; err != nil || got.Dropped != kept || (kept && got.Masquerade) {
				t.Errorf("%s to %s, its CIDR kept %t: %+v, %v", flow.src, flow.dst, kept, got, err)
			}
		}
	}
}

// TestForward: what cannot be judged is closed for subjects, and errors about a connection pass.
func TestForward(t *testing.T) {
	r := guarded()
	subject, stranger := netip.MustParseAddr("10.244.1.5"), netip.MustParseAddr("203.0.113.7")
	const syn, ack = 2, 16
	neighbour, remote := netip.MustParseAddr("10.244.1.6"), netip.MustParseAddr("10.244.2.5")
	tests := []struct {
		name     string
		src, dst netip.Addr
		protocol uint8
		flags    uint8
		icmp     uint8
		conn     Conn
		drop     bool
	}{
		{"no connection, from a subject", subject, stranger, 17, 0, 0, Conn{State: ruleset.StateUntracked}, true},
		{"no connection, to a subject", stranger, subject, 17, 0, 0, Conn{State: ruleset.StateInvalid}, true},
		{"no connection, others", stranger, stranger, 17, 0, 0, Conn{State: ruleset.StateInvalid}, false},
		{"picked up, others", stranger, stranger, 6, ack, 0, Conn{State: ruleset.StateNew, Original: stranger, Reply: stranger}, false},
		{"picked up, subject", subject, stranger, 6, ack, 0, Conn{State: ruleset.StateNew, Original: subject, Reply: stranger}, true},
		{"an end's error about a connection", subject, stranger, 1, 0, 3, Conn{State: ruleset.StateRelated, Original: stranger, Reply: subject}, false},
		{"a third party's error", neighbour, subject, 1, 0, 3, Conn{State: ruleset.StateRelated, Original: subject, Reply: stranger}, true},
		{"a third party's source quench", neighbour, subject, 1, 0, 4, Conn{State: ruleset.StateRelated, Original: subject, Reply: remote}, true},
		{"an error about nothing", neighbour, stranger, 1, 0, 3, Conn{State: ruleset.StateInvalid}, true},
		{"echo is no error", stranger, subject, 1, 0, 8, Conn{State: ruleset.StateRelated, Original: subject, Reply: stranger}, true},
		{"to itself", subject, subject, 6, syn, 0, Conn{State: ruleset.StateNew, Original: subject, Reply: subject}, false},
		{"denied", subject, stranger, 6, syn, 0, Conn{State: ruleset.StateNew, Original: subject, Reply: stranger}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := Packet{In: veth, Out: "eth0", Source: tt.src, Destination: tt.dst, Protocol: tt.protocol, TCPFlags: tt.flags, ICMPType: tt.icmp, Conn: tt.conn}
			got, err := Hook(r, "forward", p)
			if err != nil || got.Dropped != tt.drop {
				t.Errorf("dropped %t by %q, %v; want dropped %t", got.Dropped, got.By, err, tt.drop)
			}
		})
	}
}

// TestErrorsFromAfar: a router's error passes where the connection leaves the cluster, and in the mesh a node speaks of its
// own pods' connections only.
func TestErrorsFromAfar(t *testing.T) {
	r := guarded()
	addr := netip.MustParseAddr
	for _, tt := range []struct {
		in, src, original, reply string
		drop                     bool
	}{
		{"eth0", "203.0.113.7", "10.244.1.5", "198.51.100.1", false},
		{"eth0", "203.0.113.7", "10.244.1.5", "10.244.2.5", true},
		{"kith0", "10.244.2.1", "10.244.1.5", "10.244.2.5", false},
		{"kith1", "10.244.2.5", "10.244.1.5", "10.244.2.5", false},
		{"kith0", "10.244.3.1", "10.244.1.5", "10.244.2.5", true},
		{"kith0", "10.244.2.1", "10.244.1.5", "198.51.100.1", true},
	} {
		for _, hook := range []string{"forward", "input"} {
			p := Packet{In: tt.in, Source: addr(tt.src), Destination: addr("10.244.1.5"), Protocol: 1, ICMPType: 3}
			p.Conn = Conn{State: ruleset.StateRelated, Direction: ruleset.Reply, Original: addr(tt.original), Reply: addr(tt.reply)}
			if got, err := Hook(r, hook, p); err != nil || got.Dropped != tt.drop {
				t.Errorf("%+v at %s: dropped %t by %q, %v", tt, hook, got.Dropped, got.By, err)
			}
		}
	}
}

// TestOpeningIsOneStep: between the chain that judges and the one where packets leave, the table may change. Both must
// know whether the attachment is open, or a packet passes that neither table would have let through.
func TestOpeningIsOneStep(t *testing.T) {
	r := guarded()
	stranger := netip.MustParseAddr("203.0.113.7")
	for _, tt := range []struct {
		out  string
		drop bool
	}{{other, true}, {"eth1", false}} {
		conn := Conn{State: ruleset.StateNew, Original: stranger, Reply: netip.MustParseAddr("10.244.1.6")}
		p := Packet{In: "eth0", Out: tt.out, Source: stranger, Destination: conn.Reply, Protocol: 17, Conn: conn}
		if got, err := Hook(r, "forward", p); err != nil || got.Dropped != tt.drop {
			t.Errorf("to %s: dropped %t by %q, %v", tt.out, got.Dropped, got.By, err)
		}
	}
}
