package overlay

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// key makes a recognisable public key: its text begins with the letter.
func key(letter byte) Key {
	var k Key
	for i := range k {
		k[i] = letter
	}
	return k
}

// keys are a node's two: the letter's for lane 0, the capital's for lane 1.
func keys(letter byte) [Lanes]Key { return [Lanes]Key{key(letter), key(letter - 'a' + 'A')} }

func prefixes(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, text := range texts {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

func addrs(texts ...string) []netip.Addr {
	var out []netip.Addr
	for _, text := range texts {
		out = append(out, netip.MustParseAddr(text))
	}
	return out
}

func endpoints(texts ...string) []netip.AddrPort {
	var out []netip.AddrPort
	for _, text := range texts {
		out = append(out, netip.MustParseAddrPort(text))
	}
	return out
}

// local is node a of the test cluster.
func local() Local {
	return Local{
		Name: "a", Keys: keys('a'), Devices: [Lanes]string{"kith0", "kith1"}, ListenPort: 51820,
		UnderlayMTU: 1500, Keepalive: 25 * time.Second,
	}
}

// cluster has the dual-stack nodes a, b, c, created in this order.
func cluster() []Node {
	var nodes []Node
	for i, name := range []string{"a", "b", "c"} {
		nodes = append(nodes, Node{
			Name:        name,
			Created:     time.Unix(int64(i), 0),
			PodCIDRs:    prefixes(fmt.Sprintf("10.244.%d.0/24", i+1), fmt.Sprintf("fd00:244:0:%d::/64", i+1)),
			InternalIPs: addrs(fmt.Sprintf("172.18.0.%d", i+1)),
		})
	}
	return nodes
}

// claims has a claim of every node, with its letter's keys.
func claims(nodes []Node) []Claim {
	var out []Claim
	for _, n := range nodes {
		out = append(out, Claim{Node: n.Name, Keys: keys(n.Name[0])})
	}
	return out
}

func mesh(t *testing.T, nodes []Node, claims []Claim) Mesh {
	t.Helper()
	m, problems := Compute(local(), nodes, claims, nil)
	for _, p := range problems {
		t.Errorf("unexpected problem: %s", p)
	}
	return m
}
