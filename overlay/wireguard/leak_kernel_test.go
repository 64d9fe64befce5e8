//go:build kernel

package wireguard_test

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/kithnet/kith/overlay"
)

// TestNodeSendsAsItsOwnPodsOnly has a node send into the tunnel under the address of another node's pod: what its peer's
// allowed IPs do not name is dropped at the other end, on each lane.
func TestNodeSendsAsItsOwnPodsOnly(t *testing.T) {
	l := threeNodes(t, overlay.IPv4, 1500)
	a, b, c := l.nodes[0], l.nodes[1], l.nodes[2]
	for lane := range overlay.Lanes {
		a.paths[c.api.Name], c.paths[a.api.Name] = overlay.Path{Lane: lane}, overlay.Path{Lane: lane}
		l.reconcile()
		for i, cidr := range a.api.PodCIDRs {
			own, another := podAddr(c.api.PodCIDRs[i]), podAddr(b.api.PodCIDRs[i])
			mustReach(t, c, podAddr(cidr))
			c.do(func() { addAddr(t, "lo", netip.PrefixFrom(another, another.BitLen())) })
			if !c.isHeard(a, podAddr(cidr), own, patience) {
				t.Errorf("lane %d: %s is not heard under its own pod's address %s", lane, c.api.Name, own)
			}
			if c.isHeard(a, podAddr(cidr), another, time.Second) {
				t.Errorf("lane %d: %s is heard under another node's pod's address %s", lane, c.api.Name, another)
			}
			c.do(func() { removeAddr(t, "lo", another) })
		}
	}
}

// isHeard sends from an address until somebody hears it.
func (n *node) isHeard(by *node, at, from netip.Addr, limit time.Duration) bool {
	n.lab.tb.Helper()
	var heard, sent *net.UDPConn
	var err error
	by.do(func() { heard, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(at, 0))) })
	if err != nil {
		n.lab.tb.Fatal(err)
	}
	defer heard.Close()
	n.do(func() {
		sent, err = net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), heard.LocalAddr().(*net.UDPAddr))
	})
	if err != nil {
		n.lab.tb.Fatal(err)
	}
	defer sent.Close()
	for end := time.Now().Add(limit); time.Now().Before(end); {
		if _, err := sent.Write([]byte("kith")); err != nil {
			n.lab.tb.Fatal(err)
		}
		_ = heard.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if _, err := heard.Read(make([]byte, 16)); err == nil {
			return true
		}
	}
	return false
}

// TestPresharedKeyIsOfBoth: where one end has a preshared key and the other has another or none, nothing passes, and no
// handshake lowers it.
func TestPresharedKeyIsOfBoth(t *testing.T) {
	l := newLab(t, 1500)
	a, b := l.addNode(overlay.IPv4), l.addNode(overlay.IPv4)
	b.echo()
	for _, n := range l.nodes {
		n.await()
	}
	pod := podAddr(b.api.PodCIDRs[0])
	agree := func(n, with *node, secret byte) {
		n.paths[with.api.Name] = overlay.Path{Preshared: [overlay.Lanes]overlay.Preshared{{secret}, {secret}}}
		n.apply(n.plan())
	}
	for _, secrets := range [][2]byte{{1, 0}, {1, 2}, {0, 2}} {
		agree(a, b, secrets[0])
		agree(b, a, secrets[1])
		if a.reaches(pod, 2*time.Second) {
			t.Errorf("packets pass between preshared keys %d", secrets)
		}
	}
	agree(a, b, 2)
	mustReach(t, a, pod)
}
