package ruleset

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
)

// scaled is a compiler of a cluster of so many of each, with a policy on each namespace whose rule selects all pods.
func scaled(b *testing.B, nodes, namespaces, pods, local int) *Compiler {
	c := NewCompiler()
	n := Network{Node: "node0"}
	for i := range nodes {
		n.Nodes = append(n.Nodes, scaledNode(i))
	}
	c.SetNetwork(n)
	for i := range namespaces {
		c.PutNamespace(identity.Namespace{Name: fmt.Sprintf("ns%d", i), Labels: map[string]string{"team": fmt.Sprint(i % 10)}})
	}
	all := policy.Peer{Namespaces: selector(b, "*"), Pods: selector(b, "*")}
	block := policy.Peer{Block: &policy.Block{CIDR: netip.MustParsePrefix("0.0.0.0/0"), Except: prefixes("172.16.0.0/12")}}
	for i := range min(namespaces, 100) {
		c.PutPolicy(policy.Policy{Namespace: fmt.Sprintf("ns%d", i), Name: "all", Subject: selector(b, "*"),
			Ingress: isolate(policy.Rule{Peers: []policy.Peer{all}, Ports: []policy.Port{tcp(8080, 8080)}}, policy.Rule{Peers: []policy.Peer{block}, AllPorts: true})})
	}
	for i := range pods {
		p := scaledPod(i, namespaces)
		c.PutPod(p)
		if i < local {
			c.PutAttachment(Attachment{Pod: p.Key(), UID: p.UID, Interface: fmt.Sprintf("kith-%010x", i), Addresses: p.Addresses})
		}
	}
	c.Commit()
	return c
}

func scaledNode(i int) policy.Node {
	prefix := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)
	return policy.Node{
		Name: fmt.Sprintf("node%d", i), PodCIDRs: []netip.Prefix{prefix},
		Addresses: []netip.Addr{netip.AddrFrom4([4]byte{172, 18, byte(i >> 8), byte(i)})}, Mesh: []netip.Addr{prefix.Addr().Next()},
	}
}

// scaledPod has labels of its own.
func scaledPod(i, namespaces int) identity.Pod {
	return identity.Pod{
		Namespace: fmt.Sprintf("ns%d", i%namespaces), Name: fmt.Sprintf("pod-%d", i), UID: fmt.Sprintf("e0a1c5f2-0000-4000-8000-%012x", i),
		Labels:    map[string]string{"app": fmt.Sprintf("app%d", i%20), "statefulset.kubernetes.io/pod-name": fmt.Sprintf("pod-%d", i)},
		Addresses: []netip.Addr{netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)})},
	}
}

// benchmarkScale changes something again and again, and says what the whole keeps of memory.
func benchmarkScale(b *testing.B, c *Compiler, change func(n int)) {
	kept := heap()
	for n := 0; b.Loop(); n++ {
		change(n)
		c.Commit()
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/1e3/float64(b.N), "ms/change")
	b.ReportMetric(float64(kept)/1e6, "MB")
	runtime.KeepAlive(c)
}

// BenchmarkIdentities gives a pod labels that nobody had, among so many identities, where 10 policies here select all.
func BenchmarkIdentities(b *testing.B) {
	for _, n := range []int{1000, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			c := scaled(b, 100, 10, n, 100)
			benchmarkScale(b, c, func(round int) {
				p := scaledPod(n-1, 10)
				p.Labels["churn"] = fmt.Sprint(round)
				c.PutPod(p)
			})
		})
	}
}

// BenchmarkNamespaces gives one of so many namespaces, which share 10,000 pods, another label.
func BenchmarkNamespaces(b *testing.B) {
	for _, n := range []int{10, 100, 1000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			c := scaled(b, 100, n, 10_000, 100)
			benchmarkScale(b, c, func(round int) {
				c.PutNamespace(identity.Namespace{Name: "ns1", Labels: map[string]string{"team": fmt.Sprint(round)}})
			})
		})
	}
}

// BenchmarkNodes lets one of so many nodes come and go, where 10 policies here have a network each, and all pods of 1,000
// identities.
func BenchmarkNodes(b *testing.B) {
	for _, n := range []int{100, 1000, 5000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			c := scaled(b, n, 10, 1000, 100)
			all := Network{Node: "node0"}
			for i := range n {
				all.Nodes = append(all.Nodes, scaledNode(i))
			}
			benchmarkScale(b, c, func(round int) {
				some := all
				some.Nodes = all.Nodes[:n-round%2]
				c.SetNetwork(some)
			})
		})
	}
}

// BenchmarkPodsOfANode starts and ends a pod of a node that has so many.
func BenchmarkPodsOfANode(b *testing.B) {
	for _, n := range []int{10, 110, 500, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			c := scaled(b, 100, 10, 10_000, n)
			p := scaledPod(9999, 10)
			benchmarkScale(b, c, func(round int) {
				if round%2 == 1 {
					c.DeleteAttachment("kith-new")
					return
				}
				c.PutAttachment(Attachment{Pod: p.Key(), UID: p.UID, Interface: "kith-new", Addresses: p.Addresses})
			})
		})
	}
}
