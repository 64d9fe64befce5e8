//go:build kernel

package nft

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
	"github.com/kithnet/kith/policy/ruleset"
	"golang.org/x/sys/unix"
)

// crowded is the lab's cluster with many more remote pods, and many policies on the same subject, pod0: each lets one
// kind of pod reach one port. The last lets pod1 in.
func (l *lab) crowded(pods, policies int) policy.Cluster {
	const kinds = 200
	c := l.cluster()
	c.Nodes[1].PodCIDRs = append(slices.Clone(c.Nodes[1].PodCIDRs), netip.MustParsePrefix("10.200.0.0/16"))
	for i := range pods {
		name := fmt.Sprintf("crowd%d", i)
		c.Pods = append(c.Pods, identity.Pod{
			Namespace: "even", Name: name, UID: name, Labels: map[string]string{"app": fmt.Sprintf("crowd%d", i%kinds)},
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 200, byte(i >> 8), byte(i)})},
		})
	}
	for i := range policies {
		p := isolates("pod0", policy.Ingress, only(fmt.Sprintf("crowd%d", i%kinds), port(identity.UDP, uint16(1000+i))))
		if i == policies-1 {
			p = isolates("pod0", policy.Ingress, only("pod1", port(identity.UDP, 80)))
		}
		p.Name = fmt.Sprintf("policy%05d", i)
		c.Policies = append(c.Policies, p)
	}
	return c
}

// stream is a UDP flow that never ends.
func (l *lab) stream(from, to end) net.Conn {
	l.Helper()
	var conn net.Conn
	var err error
	inside(l, from.ns, func() { conn, err = dialFlow(l.between(from, to, 0, identity.UDP, 80), late) })
	must(l, "dial", err)
	l.Cleanup(func() { conn.Close() })
	return conn
}

// perPacket sends a burst and gives the processor's time for one packet, from the sender's call to the receiver's
// socket: a veth delivers within the call. The time on the clock would also hold what else the machine does.
func perPacket(b testing.TB, conn net.Conn) time.Duration {
	const burst = 1000
	word := make([]byte, 64)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	start := threadTime(b)
	for range burst {
		if _, err := conn.Write(word); err != nil {
			b.Fatal(err)
		}
	}
	return (threadTime(b) - start) / burst
}

func threadTime(b testing.TB) time.Duration {
	var t unix.Timespec
	must(b, "read the thread's time", unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t))
	return time.Duration(t.Nano())
}

// BenchmarkPacket compares, turn by turn in one run, the same flow under few and under many policies.
func BenchmarkPacket(b *testing.B) {
	var few, many []time.Duration
	l10, l10000 := newLab(b), newLab(b)
	flows := make([]net.Conn, 2)
	for i, c := range []struct {
		lab *lab
		n   int
	}{{l10, 10}, {l10000, 10000}} {
		c.lab.serve()
		c.lab.enforce(c.lab.crowded(500, c.n), c.lab.attachments())
		flows[i] = c.lab.stream(c.lab.pods[1].end, c.lab.pods[0].end)
		if !talks(flows[i], late) {
			b.Fatalf("the flow under %d policies does not pass", c.n)
		}
	}
	for b.Loop() {
		few = append(few, perPacket(b, flows[0]))
		many = append(many, perPacket(b, flows[1]))
	}
	slices.Sort(few)
	slices.Sort(many)
	f, m := few[len(few)/2], many[len(many)/2]
	b.ReportMetric(float64(f), "ns/packet-10-policies")
	b.ReportMetric(float64(m), "ns/packet-10000-policies")
	b.ReportMetric(float64(m)/float64(f), "ratio")
}

// compiled is a compiler full of pods and policies, and the table that follows it.
func compiled(b *testing.B, pods, policies int) (*lab, *ruleset.Compiler) {
	b.Helper()
	l := newLab(b)
	in := l.input(l.crowded(pods, policies))
	c := ruleset.NewCompiler()
	c.SetNetwork(in.Network)
	c.ReplaceNamespaces(in.Namespaces)
	c.ReplacePods(in.Pods)
	c.ReplacePolicies(in.Policies)
	c.ReplaceAttachments(in.Attachments)
	mustRead(b, l.table)
	must(b, "load", l.table.Apply(b.Context(), c.Commit()))
	return l, c
}

// BenchmarkPod is a pod with known labels that comes and goes on another node: from the event to the changed kernel.
func BenchmarkPod(b *testing.B) {
	l, c := compiled(b, 10000, 1000)
	pod := identity.Pod{Namespace: "even", Name: "new", UID: "new", Labels: map[string]string{"app": "crowd7"}, Addresses: addrs("10.200.255.1")}
	var took []time.Duration
	for b.Loop() {
		for _, do := range []func(){func() { c.PutPod(pod) }, func() { c.DeletePod(pod.Key()) }} {
			start := time.Now()
			do()
			tx := c.Commit()
			if tx.Size() != 1 {
				b.Fatalf("a pod is not one element: %s", tx)
			}
			must(b, "apply", l.table.Apply(b.Context(), tx))
			took = append(took, time.Since(start))
		}
	}
	reportPercentiles(b, took)
}

// BenchmarkLocalPod is a replica that comes and goes on this node, under the policies of another that stays: its
// veth opens and closes.
func BenchmarkLocalPod(b *testing.B) {
	l, c := compiled(b, 10000, 1000)
	pod, replica := l.attachments()[2], l.cluster().Pods[2]
	replica.Labels = l.cluster().Pods[0].Labels
	c.PutPod(replica)
	must(b, "apply", l.table.Apply(b.Context(), c.Commit()))
	var took, applied []time.Duration
	for b.Loop() {
		for _, do := range []func(){func() { c.DeleteAttachment(pod.Interface) }, func() { c.PutAttachment(pod) }} {
			start := time.Now()
			do()
			tx := c.Commit()
			compiled := time.Now()
			must(b, "apply", l.table.Apply(b.Context(), tx))
			took, applied = append(took, time.Since(start)), append(applied, time.Since(compiled))
		}
	}
	reportPercentiles(b, took)
	slices.Sort(applied)
	b.ReportMetric(float64(applied[len(applied)/2])/1e3, "kernel-p50-µs")
}
