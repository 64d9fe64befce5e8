package ruleset

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
)

// bigCluster has 10,000 pods in 50 namespaces on 100 nodes, each third pod with labels of its own, and 1,000 policies
// of which each selects pods of this node.
func bigCluster(b testing.TB) Input {
	in := Input{Network: Network{Node: "node0"}}
	for n := range 100 {
		prefix := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(100 + n), 0, 0}), 24)
		in.Network.Nodes = append(in.Network.Nodes, policy.Node{
			Name: fmt.Sprintf("node%d", n), PodCIDRs: []netip.Prefix{prefix},
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{172, 18, 0, byte(n)})}, Mesh: []netip.Addr{prefix.Addr().Next()},
		})
	}
	for n := range 50 {
		in.Namespaces = append(in.Namespaces, identity.Namespace{Name: fmt.Sprintf("ns%d", n), Labels: map[string]string{"team": fmt.Sprint(n % 10)}})
	}
	for i := range 10_000 {
		in.Pods = append(in.Pods, bigPod(i))
	}
	for i := range 100 {
		p := in.Pods[i*100]
		in.Attachments = append(in.Attachments, Attachment{Pod: p.Key(), UID: p.UID, Interface: fmt.Sprintf("kith-%010x", i), Addresses: p.Addresses})
	}
	for i := range 1000 {
		in.Policies = append(in.Policies, bigPolicy(b, i))
	}
	return in
}

func bigPod(i int) identity.Pod {
	labels := map[string]string{"app": fmt.Sprintf("app%d", i%20), "tier": fmt.Sprint(i % 3), "pod-template-hash": fmt.Sprintf("%x", i%20)}
	if i%3 == 0 {
		labels["statefulset.kubernetes.io/pod-name"] = fmt.Sprintf("pod-%d", i)
	}
	return identity.Pod{
		Namespace: fmt.Sprintf("ns%d", i/200%50), Name: fmt.Sprintf("pod-%d", i), UID: fmt.Sprintf("e0a1c5f2-0000-4000-8000-%012x", i),
		Created: time.Unix(int64(i), 0), Labels: labels,
		Ports:     []identity.NamedPort{{Name: "http", Protocol: identity.TCP, Number: 8080}},
		Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, byte(100 + i%100), 0, byte(2 + i/100)})},
	}
}

func bigPolicy(b testing.TB, i int) policy.Policy {
	own := policy.Peer{OwnNamespace: true, Pods: selector(b, fmt.Sprintf("app in (app%d,app%d)", i%20, (i+7)%20))}
	team := policy.Peer{Namespaces: selector(b, fmt.Sprintf("team=%d", i%10)), Pods: selector(b, fmt.Sprintf("app=app%d", i%20))}
	block := policy.Peer{Block: &policy.Block{CIDR: netip.MustParsePrefix("172.18.0.0/16"), Except: prefixes("172.18.7.0/24")}}
	return policy.Policy{
		Namespace: fmt.Sprintf("ns%d", i%50), Name: fmt.Sprintf("policy%d", i), Subject: selector(b, fmt.Sprintf("tier=%d", i/50%3)),
		Ingress: isolate(policy.Rule{Peers: []policy.Peer{own, team}, Ports: []policy.Port{tcp(8080, 8080), tcp(9000, 9010)}}),
		Egress:  isolate(policy.Rule{Peers: []policy.Peer{team, block}, AllPorts: true}),
	}
}

func BenchmarkCompile(b *testing.B) {
	in := bigCluster(b)
	for b.Loop() {
		Compile(in)
	}
	c := NewCompiler()
	c.ReplaceNamespaces(in.Namespaces)
	c.ReplacePods(in.Pods)
	b.ReportMetric(float64(c.Counts().Identities), "identities")
}

// loaded is a compiler that holds the big cluster.
func loaded(b *testing.B) *Compiler {
	in := bigCluster(b)
	c := NewCompiler()
	c.SetNetwork(in.Network)
	c.ReplaceNamespaces(in.Namespaces)
	c.ReplacePods(in.Pods)
	c.ReplacePolicies(in.Policies)
	c.ReplaceAttachments(in.Attachments)
	c.Commit()
	return c
}

// BenchmarkRemotePod adds and removes a pod with known labels on another node.
func BenchmarkRemotePod(b *testing.B) {
	c := loaded(b)
	p := bigPod(7)
	p.Name, p.UID, p.Addresses = "new", "new", addresses("10.101.0.250")
	for b.Loop() {
		c.PutPod(p)
		if c.Commit().Empty() {
			b.Fatal("nothing to write for a new pod that policies name")
		}
		c.DeletePod(p.Key())
		c.Commit()
	}
}

// BenchmarkNewIdentity adds and removes a pod with labels not seen before.
func BenchmarkNewIdentity(b *testing.B) {
	c := loaded(b)
	for n := 0; b.Loop(); n++ {
		p := bigPod(7)
		p.Name, p.UID, p.Addresses = "new", "new", addresses("10.101.0.250")
		p.Labels["unique"] = fmt.Sprint(n)
		c.PutPod(p)
		c.Commit()
		c.DeletePod(p.Key())
		c.Commit()
	}
}

// BenchmarkLocalPod adds and removes a pod of this node under policies.
func BenchmarkLocalPod(b *testing.B) {
	c := loaded(b)
	p := bigPod(7)
	p.Name, p.UID, p.Addresses = "new", "new", addresses("10.100.0.250")
	a := Attachment{Pod: p.Key(), UID: p.UID, Interface: "kith-new", Addresses: p.Addresses}
	for b.Loop() {
		c.PutPod(p)
		c.PutAttachment(a)
		if c.Commit().Empty() {
			b.Fatal("nothing to write for a new pod")
		}
		c.DeleteAttachment(a.Interface)
		c.DeletePod(p.Key())
		c.Commit()
	}
}

// BenchmarkPolicy changes a policy.
func BenchmarkPolicy(b *testing.B) {
	c := loaded(b)
	for n := 0; b.Loop(); n++ {
		p := bigPolicy(b, 1)
		if n%2 == 0 {
			p.Egress = isolate()
		}
		c.PutPolicy(p)
		c.Commit()
	}
}

// BenchmarkDistinctSelectors is the worst that labels can do: every policy names another one of as many identities.
func BenchmarkDistinctSelectors(b *testing.B) {
	const number = 10_000
	in := bigCluster(b)
	in.Policies = in.Policies[:0]
	for i := range number {
		in.Pods[i].Labels["number"] = fmt.Sprint(i)
		peer := policy.Peer{OwnNamespace: true, Pods: selector(b, fmt.Sprintf("number=%d", i))}
		in.Policies = append(in.Policies, policy.Policy{
			Namespace: in.Pods[i].Namespace, Name: fmt.Sprintf("policy%d", i), Subject: selector(b, fmt.Sprintf("tier=%d", i%3)),
			Ingress: isolate(policy.Rule{Peers: []policy.Peer{peer}, Ports: []policy.Port{tcp(8080, 8080)}}),
		})
	}
	for b.Loop() {
		Compile(in)
	}
}

// BenchmarkSoleUser adds and removes a pod of this node that alone stands under a thousand policies.
func BenchmarkSoleUser(b *testing.B) {
	in := bigCluster(b)
	for i := range in.Policies {
		in.Policies[i].Namespace, in.Policies[i].Subject = "ns0", selector(b, "alone")
	}
	c := NewCompiler()
	c.SetNetwork(in.Network)
	c.ReplaceNamespaces(in.Namespaces)
	c.ReplacePods(in.Pods)
	c.ReplacePolicies(in.Policies)
	c.Commit()
	p := bigPod(7)
	p.Namespace, p.Name, p.UID, p.Addresses = "ns0", "new", "new", addresses("10.100.0.250")
	p.Labels["alone"] = ""
	a := Attachment{Pod: p.Key(), UID: p.UID, Interface: "kith-new", Addresses: p.Addresses}
	for b.Loop() {
		c.PutPod(p)
		c.PutAttachment(a)
		if c.Commit().Empty() {
			b.Fatal("nothing to write for a new pod")
		}
		c.DeleteAttachment(a.Interface)
		c.DeletePod(p.Key())
		c.Commit()
	}
}

// BenchmarkDisjoint cuts an address of each of 1,000 nodes with three ranges of ports.
func BenchmarkDisjoint(b *testing.B) {
	var boxes []box
	for i := range 1000 {
		addr := netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1})
		for _, first := range []uint16{100, 1000, 10_000} {
			boxes = append(boxes, box{addrRange{addr, addr}, portRange{6, first, first + 9}})
		}
	}
	for b.Loop() {
		if cut, ok := disjoint(boxes); !ok || len(cut) != len(boxes) {
			b.Fatalf("%d boxes became %d", len(boxes), len(cut))
		}
	}
}

// BenchmarkCrossProduct is a policy of which one rule names 2,000 networks and 2,000 ports.
func BenchmarkCrossProduct(b *testing.B) { benchmarkRule(b, networks(2000), portsApart(2000)) }

// BenchmarkLargestPolicy is about the largest that the API takes.
func BenchmarkLargestPolicy(b *testing.B) { benchmarkRule(b, networks(9000), portsApart(9000)) }

// BenchmarkHoles is a policy that takes 8,000 networks out of one.
func BenchmarkHoles(b *testing.B) {
	var holes []netip.Prefix
	for _, p := range networks(8000) {
		holes = append(holes, p.Block.CIDR)
	}
	benchmarkRule(b, []policy.Peer{{Block: &policy.Block{CIDR: netip.MustParsePrefix("192.0.0.0/8"), Except: holes}}}, []policy.Port{tcp(443, 443)})
}

// BenchmarkPortsOfIdentities is a policy that lets 10,000 pods of a few thousand identities to 2,000 ports.
func BenchmarkPortsOfIdentities(b *testing.B) {
	benchmarkRule(b, []policy.Peer{{Namespaces: selector(b, "*"), Pods: selector(b, "*")}}, portsApart(2000))
}

func benchmarkRule(b *testing.B, peers []policy.Peer, ports []policy.Port) {
	benchmarkRules(b, []policy.Rule{{Peers: peers, Ports: ports}})
}

// benchmarkRules puts a policy with these rules on a pod of the big cluster.
func benchmarkRules(b *testing.B, rules []policy.Rule) {
	in := bigCluster(b)
	in.Policies = []policy.Policy{{Namespace: "ns0", Name: "one", Subject: selector(b, "*"), Egress: isolate()}}
	c := CompilerOf(in)
	c.Commit()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	before, n := m.TotalAlloc, 0
	for b.Loop() {
		in.Policies[0].Egress = isolate(rules...)
		c.PutPolicy(in.Policies[0])
		c.Commit()
		b.StopTimer()
		runtime.ReadMemStats(&m)
		allocated := m.TotalAlloc
		in.Policies[0].Egress = isolate()
		c.PutPolicy(in.Policies[0])
		c.Commit()
		runtime.ReadMemStats(&m)
		before += m.TotalAlloc - allocated
		n++
		b.StartTimer()
	}
	runtime.ReadMemStats(&m)
	b.ReportMetric(float64(b.Elapsed().Microseconds())/1e3/float64(n), "ms/compile")
	b.ReportMetric(float64(m.TotalAlloc-before)/1e6/float64(n), "MB/compile")
}
