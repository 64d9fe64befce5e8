//go:build kernel

package wireguard_test

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/kithnet/kith/overlay"
)

// strangers are nodes that exist in the API alone.
func strangers(b *testing.B, count int) []*node {
	b.Helper()
	var out []*node
	for i := range count {
		var key overlay.Key
		key[0], key[1], key[2] = byte(i), byte(i>>8), 1
		out = append(out, &node{api: overlay.Node{
			Name:        fmt.Sprintf("stranger%d", i),
			PodCIDRs:    []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.%d.%d.0/24", i>>8, i&255))},
			InternalIPs: []netip.Addr{netip.MustParseAddr(fmt.Sprintf("172.30.%d.%d", i>>8, i&255))},
			PublicKey:   key.String(),
		}})
	}
	return out
}

// apply makes one plan so and waits for the kernel.
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
