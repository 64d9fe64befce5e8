package overlay

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func diffMesh(want, got Mesh) string {
	return cmp.Diff(want, got, cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{}, netip.AddrPort{}), cmpopts.EquateEmpty())
}

func TestComputeDualStack(t *testing.T) {
	own4, own6 := netip.MustParseAddr("10.244.1.1"), netip.MustParseAddr("fd00:244:0:1::1")
	lane := func(device string, port uint16, letters string) Lane {
		peer := func(name, letter byte) Peer {
			return Peer{
				Name: string(name), Key: key(letter),
				Endpoint:   netip.AddrPortFrom(netip.MustParseAddr(fmt.Sprintf("172.18.0.%d", name-'a'+1)), port),
				AllowedIPs: prefixes(fmt.Sprintf("10.244.%d.0/24", name-'a'+1), fmt.Sprintf("fd00:244:0:%d::/64", name-'a'+1)),
				Keepalive:  25 * time.Second,
			}
		}
		return Lane{
			Device: device, Key: key(letters[0]), ListenPort: port, MTU: 1440, Up: true,
			Addresses: []netip.Addr{own4, own6}, Peers: []Peer{peer('b', letters[1]), peer('c', letters[2])},
		}
	}
	want := Mesh{
		Lanes: [Lanes]Lane{lane("kith0", 51820, "abc"), lane("kith1", 51821, "ABC")},
		Routes: []Route{
			{CIDR: netip.MustParsePrefix("10.244.2.0/24"), Src: own4, MTU: 1440},
			{CIDR: netip.MustParsePrefix("10.244.3.0/24"), Lane: 1, Src: own4, MTU: 1440},
			{CIDR: netip.MustParsePrefix("fd00:244:0:2::/64"), Src: own6, MTU: 1440},
			{CIDR: netip.MustParsePrefix("fd00:244:0:3::/64"), Lane: 1, Src: own6, MTU: 1440},
		},
		Unreachable: prefixes("10.244.1.0/24", "fd00:244:0:1::/64"),
	}
	got, problems := Compute(local(), cluster(), claims(cluster()), map[string]Path{"c": {Lane: 1}})
	if diff := diffMesh(want, got); diff != "" || len(problems) > 0 {
		t.Error(diff, problems)
	}
}

// TestOneEndShakesHandsOverAnIdleLane: both keep the lane alive that they send on, one of two alone the other lane.
func TestOneEndShakesHandsOverAnIdleLane(t *testing.T) {
	keepsAlive := func(self, other string, used, lane int) bool {
		l, nodes := local(), cluster()
		l.Name, l.Keys = self, keys(self[0])
		m, _ := Compute(l, nodes, claims(nodes), map[string]Path{other: {Lane: used}})
		for _, p := range m.Lanes[lane].Peers {
			if p.Name == other {
				return p.Keepalive == l.Keepalive
			}
		}
		t.Fatalf("%s has no peer %s on lane %d", self, other, lane)
		return false
	}
	for used := range Lanes {
		for _, pair := range [][2]string{{"a", "b"}, {"a", "c"}, {"b", "c"}} {
			a, b := pair[0], pair[1]
			if !keepsAlive(a, b, used, used) || !keepsAlive(b, a, used, used) {
				t.Errorf("%s, %s: an end does not keep lane %d alive, which they send on", a, b, used)
			}
			if !keepsAlive(a, b, used, 1-used) || keepsAlive(b, a, used, 1-used) {
				t.Errorf("%s, %s: the idle lane is not kept alive by %s alone", a, b, a)
			}
		}
	}
}

func TestComputeMTU(t *testing.T) {
	for _, test := range []struct {
		name             string
		underlay         int
		family           Family
		device, in4, in6 int
	}{
		{"IPv4 underlay", 1500, IPv4, 1440, 1440, 1440},
		{"IPv6 underlay", 1500, IPv6, 1420, 1420, 1420},
		{"jumbo", 9000, IPv4, 8940, 8940, 8940},
		{"least for IPv6", 1340, IPv4, 1280, 1280, 1280},
		{"too small for IPv6, room for padding", 1280, IPv4, 1280, 1216, 1216},
		{"absurd", 100, IPv4, 1280, 576, 576},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := local()
			l.UnderlayMTU, l.Underlay = test.underlay, test.family
			m, _ := Compute(l, cluster(), claims(cluster()), nil)
			got := [3]int{m.Lanes[1].MTU, m.Routes[0].MTU, m.Routes[2].MTU}
			if want := [3]int{test.device, test.in4, test.in6}; got != want {
				t.Errorf("device, IPv4 and IPv6 route MTU %v, want %v", got, want)
			}
		})
	}
}

func TestComputeEndpoints(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(l *Local, b *Node)
		claim  []netip.AddrPort
		want   string
	}{
		{"claim without an endpoint", nil, nil, "172.18.0.2:51820"},
		{"as claimed", nil, endpoints("9.9.9.9:1"), "9.9.9.9:1"},
		{"family of the first own address", nil, endpoints("[fd::2]:1", "9.9.9.9:1"), "9.9.9.9:1"},
		{"family as configured", func(l *Local, b *Node) {
			l.Underlay = IPv6
			b.InternalIPs = addrs("172.18.0.2", "fd00:18::2")
		}, nil, "[fd00:18::2]:51820"},
		{"other family rather than none", func(l *Local, _ *Node) { l.Underlay = IPv6 }, nil, "172.18.0.2:51820"},
		{"mapped address", nil, endpoints("[::ffff:9.9.9.9]:1"), "9.9.9.9:1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			l, nodes := local(), cluster()
			if test.change != nil {
				test.change(&l, &nodes[1])
			}
			all := claims(nodes)
			all[1].Endpoints = test.claim
			m, _ := Compute(l, nodes, all, nil)
			if got := m.Lanes[0].Peers[0].Endpoint.String(); got != test.want {
				t.Errorf("endpoint %s, want %s", got, test.want)
			}
		})
	}
}

// TestRefusedEndpoints: nothing is sent to what cannot be another node, or would come back into the tunnel.
func TestRefusedEndpoints(t *testing.T) {
	for _, test := range []struct{ name, claimed, why string }{
		{"in a pod CIDR", "10.244.3.9:51820", "it is in pod CIDR 10.244.3.0/24 of node c"},
		{"in its own", "[fd00:244:0:2::9]:51820", "it is in pod CIDR fd00:244:0:2::/64 of node b"},
		{"in this node's", "10.244.1.9:51820", "it is in pod CIDR 10.244.1.0/24 of node a"},
		{"loopback", "127.0.0.2:51820", "no other node can have it"},
		{"loopback, IPv6", "[::1]:51820", "no other node can have it"},
		{"multicast", "224.0.0.1:51820", "no other node can have it"},
		{"broadcast", "255.255.255.255:51820", "no other node can have it"},
		{"unspecified", "[::]:51820", "no other node can have it"},
		{"no port", "172.18.0.2:0", "there are no ports for all lanes"},
		{"no port for the other lane", "172.18.0.2:65535", "there are no ports for all lanes"},
	} {
		t.Run(test.name, func(t *testing.T) {
			all, refused := claims(cluster()), Problem{EndpointRefused, "b", "endpoint " + test.claimed + " refused: " + test.why}
			for _, of := range []struct {
				endpoints []netip.AddrPort
				want      netip.AddrPort
				problems  []Problem
			}{
				{endpoints(test.claimed), netip.AddrPort{}, []Problem{refused, {NoEndpoint, "b", "no address to reach it at: it must speak first"}}},
				{endpoints(test.claimed, "9.9.9.9:65534"), netip.MustParseAddrPort("9.9.9.9:65534"), []Problem{refused}},
			} {
				all[1].Endpoints = of.endpoints
				m, problems := Compute(local(), cluster(), all, nil)
				if diff := cmp.Diff(of.problems, problems); diff != "" {
					t.Error(diff)
				}
				for lane := range m.Lanes {
					if got, want := m.Lanes[lane].Peers[0].Endpoint, onLane(of.want, lane); got != want {
						t.Errorf("lane %d: endpoint %s, want %s", lane, got, want)
					}
				}
			}
		})
	}
}

// TestAddressTakesNothing: what a node says of its own addresses changes nothing for the others, and only the first few
// of them count.
func TestAddressTakesNothing(t *testing.T) {
	nodes := cluster()
	want, _ := Compute(local(), nodes, claims(nodes), nil)
	for i := range 1000 {
		nodes[2].InternalIPs = append(nodes[2].InternalIPs, addrs(fmt.Sprintf("10.244.2.%d", i%256))...)
	}
	got, problems := Compute(local(), nodes, claims(nodes), nil)
	if diff := diffMesh(want, got); diff != "" {
		t.Error(diff)
	}
	if len(problems) != 0 {
		t.Errorf("problems %v", problems)
	}
}

func TestComputeProblems(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(nodes []Node, claims []Claim) []Node
		want   []Problem
		peers  []string
	}{
		{"own node missing", func(n []Node, _ []Claim) []Node { return n[1:] },
			[]Problem{{OwnNodeMissing, "a", "this node's own Node object is not there"}}, []string{"b", "c"}},
		{"own claim not published", func(n []Node, c []Claim) []Node { c[0] = Claim{}; return n },
			[]Problem{{OwnKeyDiffers, "a", "this node's published claim is not its own yet"}}, []string{"b", "c"}},
		{"no pod CIDR", func(n []Node, _ []Claim) []Node { n[0].PodCIDRs = nil; return n },
			[]Problem{{NoPodCIDR, "a", "no pod CIDR yet"}}, []string{"b", "c"}},
		{"no claim yet", func(n []Node, c []Claim) []Node { c[1] = Claim{}; return n },
			[]Problem{{ClaimMissing, "b", "no claim that verifies yet: it has no place in the mesh"}}, []string{"c"}},
		{"no address", func(n []Node, _ []Claim) []Node { n[1].InternalIPs = nil; return n },
			[]Problem{{NoEndpoint, "b", "no address to reach it at: it must speak first"}}, []string{"b", "c"}},
		{"key of another", func(n []Node, c []Claim) []Node { c[2].Keys = c[1].Keys; return n },
			[]Problem{{KeyTaken, "c", "key " + key('b').String() + " refused: node b holds it"}}, []string{"b"}},
		{"this node's key", func(n []Node, c []Claim) []Node { c[2].Keys = c[0].Keys; return n },
			[]Problem{{KeyTaken, "c", "key " + key('a').String() + " refused: it is this node's own"}}, []string{"b"}},
		{"address in this node's CIDR, no other", func(n []Node, _ []Claim) []Node { n[2].InternalIPs = addrs("10.244.1.1"); return n },
			[]Problem{{NoEndpoint, "c", "no address to reach it at: it must speak first"}}, []string{"b", "c"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			all := claims(cluster())
			m, problems := Compute(local(), test.change(cluster(), all), all, nil)
			if diff := cmp.Diff(test.want, problems); diff != "" {
				t.Error(diff)
			}
			var peers []string
			for _, p := range m.Lanes[0].Peers {
				peers = append(peers, p.Name)
			}
			if diff := cmp.Diff(test.peers, peers); diff != "" {
				t.Errorf("peers: %s", diff)
			}
		})
	}
}

// Without a key there is no peer, but the way into the device is there: nothing leaves in clear.
func TestComputeRoutesAwaitTheKey(t *testing.T) {
	m, _ := Compute(local(), cluster(), claims(cluster()[:1:1]), nil)
	if len(m.Lanes[0].Peers) != 0 || len(m.Routes) != 4 {
		t.Errorf("%d peers and %d routes, want 0 and 4", len(m.Lanes[0].Peers), len(m.Routes))
	}
}

func TestMeshAddress(t *testing.T) {
	for cidr, want := range map[string]string{
		"10.244.1.0/24":     "10.244.1.1",
		"10.244.1.7/24":     "10.244.1.1",
		"10.244.1.8/31":     "10.244.1.8",
		"10.244.1.9/32":     "10.244.1.9",
		"fd00:244:0:1::/64": "fd00:244:0:1::1",
	} {
		if got := MeshAddress(netip.MustParsePrefix(cidr)); got.String() != want {
			t.Errorf("mesh address of %s: %s, want %s", cidr, got, want)
		}
	}
}

func TestParse(t *testing.T) {
	for word, want := range map[string]Family{"": Auto, "auto": Auto, "ipv4": IPv4, "ipv6": IPv6} {
		if got, err := ParseFamily(word); got != want || err != nil {
			t.Errorf("family %q: %s, %v", word, got, err)
		}
	}
	if _, err := ParseFamily("ip"); err == nil {
		t.Error("family ip is no error")
	}
}
