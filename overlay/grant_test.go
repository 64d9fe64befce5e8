package overlay

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// asking is the test cluster as its Node objects ask for it.
func asking() []Node {
	nodes := cluster()
	for i := range nodes {
		nodes[i].UID = "u" + nodes[i].Name
		nodes[i].Requested, nodes[i].PodCIDRs = nodes[i].PodCIDRs, nil
	}
	return nodes
}

func bounded() Bounds {
	return Bounds{
		Self: "a", Within: prefixes("10.244.0.0/16", "fd00:244::/48", "172.16.0.0/12"), Services: prefixes("10.96.0.0/12"),
		Reserved: []Reserved{{netip.MustParsePrefix("172.20.0.1/32"), "this node's gateway"}},
	}
}

// newcomer is a Node made after those of the test cluster.
func newcomer(cidrs ...string) Node {
	return Node{Name: "x", UID: "ux", Created: time.Unix(99, 0), Requested: prefixes(cidrs...)}
}

// grantedTo are the CIDRs that a node has.
func grantedTo(g Grants, name string) []string {
	var out []string
	for _, n := range g.Nodes {
		if n.Name == name {
			for _, cidr := range n.PodCIDRs {
				out = append(out, cidr.String())
			}
		}
	}
	return out
}

// TestHonestClusterIsRefusedNothing tries what kubeadm, kind, k3s and clouds give out, on each node, with and without
// bounds.
func TestHonestClusterIsRefusedNothing(t *testing.T) {
	for name, of := range map[string]struct {
		cidrs, addresses []string
		bounds           Bounds
	}{
		"kubeadm":          {[]string{"10.244.0.0/24", "10.244.1.0/24"}, []string{"192.168.1.10", "192.168.1.11"}, Bounds{Within: prefixes("10.244.0.0/16"), Services: prefixes("10.96.0.0/12")}},
		"k3s":              {[]string{"10.42.0.0/24", "10.42.1.0/24"}, []string{"10.0.0.4", "10.0.0.5"}, Bounds{Services: prefixes("10.43.0.0/16")}},
		"one large node":   {[]string{"10.128.0.0/9"}, []string{"192.168.1.10"}, Bounds{}},
		"pods beside /8":   {[]string{"10.0.0.0/24", "10.0.1.0/24"}, []string{"172.31.0.4", "172.31.0.5"}, Bounds{Within: prefixes("10.0.0.0/8"), Services: prefixes("10.96.0.0/12")}},
		"carrier's range":  {[]string{"100.64.0.0/24", "100.64.1.0/24"}, []string{"10.0.0.4", "10.0.0.5"}, Bounds{}},
		"IPv6":             {[]string{"2001:db8:42::/64", "2001:db8:42:1::/64"}, []string{"2001:db8::4", "2001:db8::5"}, Bounds{Services: prefixes("2001:db8:43::/112")}},
		"link-local nodes": {[]string{"10.244.0.0/24"}, []string{"169.254.7.7"}, Bounds{}},
	} {
		t.Run(name, func(t *testing.T) {
			var nodes []Node
			for i, cidr := range of.cidrs {
				nodes = append(nodes, Node{
					Name: fmt.Sprint("n", i), UID: fmt.Sprint(i), Requested: prefixes(cidr), InternalIPs: addrs(of.addresses[i]),
					ExternalIPs: addrs("198.51.100.1"), // of the one NAT that they are behind
				})
			}
			for _, self := range nodes {
				of.bounds.Self = self.Name
				g := Grant(of.bounds, nodes, nil)
				if len(g.Problems) > 0 {
					t.Errorf("problems %v", g.Problems)
				}
				for i, n := range nodes {
					if got := grantedTo(g, n.Name); !slices.Equal(got, of.cidrs[i:i+1]) {
						t.Errorf("node %s has %v", n.Name, got)
					}
					if got := g.Nodes[i].Addresses; len(got) != 2 {
						t.Errorf("node %s is known by %v", n.Name, got)
					}
				}
			}
		})
	}
}

// TestCIDRsRefused: a Node takes nothing from anybody by what it asks for, and what is refused is said with the fix.
func TestCIDRsRefused(t *testing.T) {
	for cidr, why := range map[string]string{
		"0.0.0.0/0":             "0.0.0.0/8 are this host's own (RFC 1122); " + fixNode,
		"::/0":                  "::/96 are loopback or unspecified; " + fixNode,
		"2000::/3":              "it is larger than a /32; " + fixNode,
		"8.0.0.0/7":             "it is larger than a /8; " + fixNode,
		"127.0.0.0/24":          "127.0.0.0/8 are loopback; " + fixNode,
		"169.254.169.254/32":    "169.254.0.0/16 are link-local; " + fixNode,
		"fe80::/64":             "fe80::/10 are link-local; " + fixNode,
		"239.0.0.0/24":          "224.0.0.0/3 are multicast or reserved; " + fixNode,
		"::ffff:10.244.9.0/120": "::ffff:0.0.0.0/96 are IPv4 in IPv6; " + fixNode,
		"8.8.8.0/24":            "it is outside of the pods' ranges [10.244.0.0/16 fd00:244::/48 172.16.0.0/12]; delete the Node, or add the range to podCIDRs of Kith's configuration",
		"10.244.2.128/25":       "node b holds 10.244.2.0/24; " + fixNode,
		"10.244.0.0/16":         "node a holds 10.244.1.0/24; " + fixNode,
		"172.18.0.0/16":         "it covers address 172.18.0.1 of node a; " + fixRange,
		"172.18.0.3/32":         "it covers address 172.18.0.3 of node c; " + fixRange,
		"172.20.0.0/24":         "it covers 172.20.0.1, this node's gateway; " + fixRange,
	} {
		t.Run(cidr, func(t *testing.T) {
			want := Grant(bounded(), asking(), nil)
			g := Grant(bounded(), append(asking(), newcomer(cidr)), want.Nodes)
			if len(g.Problems) != 1 || g.Problems[0].Node != "x" || g.Problems[0].Detail != "pod CIDR "+netip.MustParsePrefix(cidr).String()+" refused: "+why {
				t.Errorf("problems %v, want %s", g.Problems, why)
			}
			if diff := cmp.Diff(want.Nodes, slices.DeleteFunc(g.Nodes, func(n Node) bool { return n.Name == "x" }), cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{})); diff != "" {
				t.Errorf("it changes something for others: %s", diff)
			}
			if got := grantedTo(g, "x"); len(got) > 0 {
				t.Errorf("it has %v", got)
			}
		})
	}
	g := Grant(Bounds{Self: "a", Services: prefixes("10.96.0.0/12")}, append(asking(), newcomer("10.96.0.10/32", "10.7.0.0/24")), nil)
	if got := grantedTo(g, "x"); !slices.Equal(got, []string{"10.7.0.0/24"}) {
		t.Errorf("beside a Service's address it has %v", got)
	}
}

// TestOldestKeeps: of two that ask for one CIDR, the one that had it keeps it, or else the older, or else that of the smaller
// name.
func TestOldestKeeps(t *testing.T) {
	first, second := newcomer("10.244.9.0/24"), newcomer("10.244.9.0/25")
	second.Name, second.UID = "y", "uy"
	for name, of := range map[string]struct {
		x, y   time.Time
		before []Node
		want   string
	}{
		"older":                   {time.Unix(9, 0), time.Unix(8, 0), nil, "y"},
		"of one age":              {time.Unix(8, 0), time.Unix(8, 0), nil, "x"},
		"had it":                  {time.Unix(9, 0), time.Unix(8, 0), []Node{{Name: "x", UID: "ux", PodCIDRs: prefixes("10.244.9.0/24")}}, "x"},
		"another of its name did": {time.Unix(9, 0), time.Unix(8, 0), []Node{{Name: "x", UID: "old", PodCIDRs: prefixes("10.244.9.0/24")}}, "y"},
	} {
		t.Run(name, func(t *testing.T) {
			x, y := first, second
			x.Created, y.Created = of.x, of.y
			g := Grant(bounded(), append(asking(), x, y), of.before)
			for _, n := range []string{"x", "y"} {
				if has := len(grantedTo(g, n)) == 1; has != (n == of.want) {
					t.Errorf("node %s has %v", n, grantedTo(g, n))
				}
			}
		})
	}
}

// TestAddressTakesNoCIDR: a node that says that it has an address in a CIDR which is another's takes it from nobody, however
// old it is; a CIDR that covers an address of a node that was there before is not given.
func TestAddressTakesNoCIDR(t *testing.T) {
	before := Grant(bounded(), asking(), nil).Nodes
	liar := asking()
	liar[1].InternalIPs = append(liar[1].InternalIPs, addrs("10.244.3.7", "10.244.1.9")...)
	for name, before := range map[string][]Node{"known": before, "a first look": nil} {
		g := Grant(bounded(), liar, before)
		// Who never saw the CIDR granted cannot tell who was first: the older node's address counts.
		want := 2
		if before == nil {
			want = 1
		}
		if got := grantedTo(g, "c"); len(got) != want {
			t.Errorf("%s: node c has %v", name, got)
		}
		if got := grantedTo(g, "a"); len(got) != 2 {
			t.Errorf("%s: node a has %v", name, got)
		}
		if b := g.Nodes[1]; before != nil && !slices.Equal(b.Addresses, addrs("172.18.0.2")) {
			t.Errorf("%s: node b is known by %v", name, b.Addresses)
		}
	}
}

// TestOwnAddressKeepsOut: no node gets a CIDR that covers an address of the node that looks, however young that is, and even
// if it was granted before.
func TestOwnAddressKeepsOut(t *testing.T) {
	nodes := asking()
	nodes[2].InternalIPs = addrs("10.244.2.9")
	for _, before := range [][]Node{nil, {{Name: "b", UID: "ub", PodCIDRs: prefixes("10.244.2.0/24")}}} {
		if got := grantedTo(Grant(Bounds{Self: "c"}, nodes, before), "b"); len(got) != 1 {
			t.Errorf("node b has %v", got)
		}
		if got := grantedTo(Grant(Bounds{Self: "a"}, nodes, before), "b"); len(got) != 2 {
			t.Errorf("seen from elsewhere, node b has %v", got)
		}
	}
}

// TestAddressesRefused: policies know a node by no address that is a pod's, a Service's or another node's.
func TestAddressesRefused(t *testing.T) {
	nodes := asking()
	nodes[2].InternalIPs = append(nodes[2].InternalIPs, addrs("10.244.2.5", "fd00:244:0:2::5", "172.18.0.2", "10.96.0.1", "127.0.0.1")...)
	nodes[2].Reached = addrs("10.244.2.5", "172.18.0.2", "10.96.0.1") // Compute reports what is wrong with a claim
	nodes[1].ExternalIPs = addrs("198.51.100.1", "172.18.0.3", "198.51.100.1")
	g := Grant(bounded(), nodes, Grant(bounded(), asking(), nil).Nodes)
	for i, want := range [][]netip.Addr{addrs("172.18.0.1"), addrs("172.18.0.2", "198.51.100.1"), addrs("172.18.0.3")} {
		if got := g.Nodes[i].Addresses; !slices.Equal(got, want) {
			t.Errorf("node %s is known by %v, want %v", g.Nodes[i].Name, got, want)
		}
	}
	want := []Problem{
		{AddressRefused, "b", "node address 172.18.0.3 refused: it is the InternalIP of node c"},
		{AddressRefused, "c", "node address 10.244.2.5 refused: it is in pod CIDR 10.244.2.0/24 of node b"},
		{AddressRefused, "c", "node address 10.96.0.1 refused: 10.96.0.0/12 is the Services' range"},
		{AddressRefused, "c", "node address 127.0.0.1 refused: no other node can have it"},
		{AddressRefused, "c", "node address 172.18.0.2 refused: it is the InternalIP of node b"},
		{AddressRefused, "c", "node address fd00:244:0:2::5 refused: it is in pod CIDR fd00:244:0:2::/64 of node b"},
	}
	if diff := cmp.Diff(want, g.Problems); diff != "" {
		t.Error(diff)
	}
	nodes = asking()
	nodes[0].InternalIPs = append(nodes[0].InternalIPs, addrs("172.18.0.3")...)
	if g := Grant(Bounds{Self: "c"}, nodes, nil); !slices.Equal(g.Nodes[2].Addresses, addrs("172.18.0.3")) {
		t.Errorf("a node loses its own address: %v", g.Nodes[2].Addresses)
	}
	nodes[0].Reached = addrs("172.18.0.1")
	if g := Grant(Bounds{Self: "b"}, nodes, nil); !slices.Equal(g.Nodes[2].Addresses, addrs("172.18.0.3")) || slices.Contains(g.Nodes[0].Addresses, addrs("172.18.0.3")[0]) {
		t.Errorf("a node that is elsewhere by its claim takes an address by its status: %v, %v", g.Nodes[0].Addresses, g.Nodes[2].Addresses)
	}
}

// TestGrantsAreDisjoint draws Nodes that ask for each other's, in any order, and holds that no address is two nodes', that
// the order does not matter, and that what was granted stays.
func TestGrantsAreDisjoint(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for range 300 {
		var nodes []Node
		for i := range 6 {
			n := Node{Name: fmt.Sprint("n", i), UID: fmt.Sprint(r.IntN(2)), Created: time.Unix(int64(r.IntN(3)), 0), InternalIPs: addrs(fmt.Sprintf("10.244.%d.%d", r.IntN(9), r.IntN(4)))}
			for range r.IntN(4) {
				n.Requested = append(n.Requested, netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/%d", r.IntN(8), 21+r.IntN(4))))
			}
			nodes = append(nodes, n)
		}
		before := Grant(bounded(), nodes[:3], nil).Nodes
		g := Grant(bounded(), nodes, before)
		var held []netip.Prefix
		for _, n := range g.Nodes {
			for _, cidr := range n.PodCIDRs {
				if slices.ContainsFunc(held, cidr.Overlaps) {
					t.Fatalf("%s of node %s is another's, too: %v", cidr, n.Name, g.Nodes)
				}
				held = append(held, cidr)
			}
		}
		for _, n := range before {
			for _, cidr := range n.PodCIDRs {
				if !slices.Contains(grantedTo(g, n.Name), cidr.String()) {
					t.Fatalf("node %s lost %s to a newcomer: %v", n.Name, cidr, g.Problems)
				}
			}
		}
		r.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
		if diff := cmp.Diff(g, Grant(bounded(), nodes, before), cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{})); diff != "" {
			t.Fatalf("the order matters: %s", diff)
		}
	}
}
