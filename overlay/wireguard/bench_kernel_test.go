//go:build kernel

package wireguard_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/kithnet/kith/overlay"
)

// strangers are nodes that exist in the API alone.
func strangers(b *testing.B, count int) []*node {
	b.Helper()
	var out []*node
	for i := range count {
		var key overlay.Key
		key[0], key[1], key[2] = byte(i), byte(i>>8), 1
		name := fmt.Sprintf("stranger%d", i)
		out = append(out, &node{claim: overlay.Claim{Node: name, Keys: [overlay.Lanes]overlay.Key{key, {31: 1, 0: key[0], 1: key[1]}}}, api: overlay.Node{
			Name:        name,
			PodCIDRs:    []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.%d.%d.0/24", i>>8, i&255))},
			InternalIPs: []netip.Addr{netip.MustParseAddr(fmt.Sprintf("172.30.%d.%d", i>>8, i&255))},
		}})
	}
	return out
}

// reachStrangers gives handshakes somewhere to go where nobody answers: an address
// of the underlay whose neighbour is made up.
func (n *node) reachStrangers() {
	nobody := net.IPv4(172, 31, 0, 200)
	n.do(func() {
		link, err := netlink.LinkByName("eth0")
		if err == nil {
			err = netlink.NeighAdd(&netlink.Neigh{
				LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT, IP: nobody,
				HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 200},
			})
		}
		if err == nil {
			err = netlink.RouteAdd(&netlink.Route{Dst: &net.IPNet{IP: net.IPv4(172, 30, 0, 0), Mask: net.CIDRMask(16, 32)}, Gw: nobody})
		}
		if err != nil {
			n.lab.tb.Errorf("route to strangers: %v", err)
		}
	})
}

// apply makes one plan so.
func (n *node) apply(plan overlay.Plan) {
	n.lab.tb.Helper()
	var err error
	n.do(func() { err = n.dev.Apply(context.Background(), plan) })
	if err != nil {
		n.lab.tb.Fatalf("apply: %v", err)
	}
}

// BenchmarkConfigure brings 1,000 peers with their routes in, from nothing.
func BenchmarkConfigure(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		l := newLab(b, 1500)
		n := l.addNode(overlay.IPv4)
		n.reachStrangers()
		n.reconcile()
		l.nodes = append(l.nodes, strangers(b, 1000)...)
		b.StartTimer()
		n.apply(n.plan())
		b.StopTimer()
		if left := n.plan(); !left.Empty() {
			b.Fatalf("left:\n%s", left)
		}
		b.StartTimer()
	}
}

// BenchmarkAddPeer adds one peer to 1,000 and takes it away again: reading the kernel, the difference, applying it.
func BenchmarkAddPeer(b *testing.B) {
	l := newLab(b, 1500)
	n := l.addNode(overlay.IPv4)
	n.reachStrangers()
	n.await()
	all := append(l.nodes, strangers(b, 1001)...)
	l.nodes = all[:1001]
	n.reconcile()
	var apply time.Duration
	for i := 0; b.Loop(); i++ {
		l.nodes = all[:1001+(i+1)%2]
		plan := n.plan()
		start := time.Now()
		n.apply(plan)
		apply += time.Since(start)
	}
	b.ReportMetric(float64(apply.Microseconds())/float64(b.N), "apply-µs/op")
}

// BenchmarkThroughput is the tunnel without policy, one TCP stream.
func BenchmarkThroughput(b *testing.B) {
	const size = 256 << 20
	l := newLab(b, 1500)
	from, to := l.addNode(overlay.IPv4), l.addNode(overlay.IPv4)
	l.reconcile()
	transfer(b, from, to, podAddr(to.api.PodCIDRs[0]), 1<<20)
	b.SetBytes(size)
	for b.Loop() {
		transfer(b, from, to, podAddr(to.api.PodCIDRs[0]), size)
	}
}
