//go:build kernel

package nft

import (
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
)

// list is networks that do not touch, and last the lab's pods.
func list(n int) []policy.Peer {
	var out []policy.Peer
	for i := range n - 1 {
		out = append(out, policy.Peer{Block: &policy.Block{CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{192, byte(i >> 7), byte(i << 1), 0}), 24)}})
	}
	return append(out, policy.Peer{Block: &policy.Block{CIDR: netip.MustParsePrefix("10.244.0.0/16")}})
}

// BenchmarkHalveList halves a list of 10,000 networks at one port, and makes it whole again: from the event to the changed
// kernel.
func BenchmarkHalveList(b *testing.B) {
	l, c := compiled(b, 100, 10)
	put := func(n int) time.Duration {
		p := isolates("pod0", policy.Egress, policy.Rule{Peers: list(n), Ports: []policy.Port{port(identity.TCP, 443)}})
		start := time.Now()
		c.PutPolicy(p)
		must(b, "apply", l.table.Apply(b.Context(), c.Commit()))
		return time.Since(start)
	}
	var halve, fill []time.Duration
	for b.Loop() {
		fill = append(fill, put(10_000))
		halve = append(halve, put(5_000))
	}
	slices.Sort(halve)
	slices.Sort(fill)
	b.ReportMetric(float64(halve[len(halve)/2].Microseconds())/1e3, "ms/halve")
	b.ReportMetric(float64(fill[len(fill)/2].Microseconds())/1e3, "ms/fill")
}

// BenchmarkPacketOfLists compares, turn by turn in one run, one flow under a rule of one network and port, one look-up; under
// long lists of both, which are two; and under 200 rules of which each has ports of its own.
func BenchmarkPacketOfLists(b *testing.B) {
	ports := func(first, n int) []policy.Port {
		out := []policy.Port{port(identity.UDP, 80)}
		for i := range n {
			out = append(out, port(identity.UDP, uint16(first+2*i)))
		}
		return out
	}
	rules := map[string]policy.Rules{
		"one":   {{Peers: list(1), Ports: ports(0, 0)}},
		"lists": {{Peers: list(10_000), Ports: ports(1001, 2000)}},
	}
	for i := range 200 {
		rules["classes"] = append(rules["classes"], policy.Rule{Peers: list(2 + i)[i:], Ports: ports(1001+20*i, 9)[min(1, 199-i):]})
	}
	flows, took := map[string]net.Conn{}, map[string][]time.Duration{}
	for name, rule := range rules {
		l := newLab(b)
		l.serve()
		cluster := l.cluster()
		cluster.Policies = []policy.Policy{isolates("pod0", policy.Ingress, rule...)}
		l.enforce(cluster, l.attachments())
		flows[name] = l.stream(l.pods[1].end, l.pods[0].end)
		if !talks(flows[name], late) {
			b.Fatalf("%s: the flow does not pass", name)
		}
	}
	for b.Loop() {
		for name := range rules {
			took[name] = append(took[name], perPacket(b, flows[name]))
		}
	}
	median := func(name string) float64 {
		slices.Sort(took[name])
		return float64(took[name][len(took[name])/2])
	}
	b.ReportMetric(median("one"), "ns/packet-one")
	b.ReportMetric(median("lists"), "ns/packet-lists")
	b.ReportMetric(median("classes"), "ns/packet-classes")
	b.ReportMetric(median("lists")/median("one"), "ratio-lists")
	b.ReportMetric(median("classes")/median("one"), "ratio-classes")
}
