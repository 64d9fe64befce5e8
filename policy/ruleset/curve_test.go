package ruleset

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
)

// BenchmarkPoliciesOfANamespace changes one of many policies of a namespace, each of which is for pods of another label.
func BenchmarkPoliciesOfANamespace(b *testing.B) {
	for _, n := range []int{100, 1000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			benchmarkPolicies(b, n, func(i int) string { return [...]string{"alone", fmt.Sprintf("app=app%d,!part%d", i%20, i)}[min(i, 1)] }, 100)
		})
	}
}

// BenchmarkPoliciesOfAPod changes one of many policies of one pod.
func BenchmarkPoliciesOfAPod(b *testing.B) {
	for _, n := range []int{10, 100, 1000, 5000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			benchmarkPolicies(b, n, func(int) string { return "alone" }, 1)
		})
	}
}

// benchmarkPolicies changes one of the policies of namespace ns0, of which so many pods run here. The first is alone.
func benchmarkPolicies(b *testing.B, policies int, subject func(int) string, pods int) {
	in := bigCluster(b)
	in.Policies, in.Attachments = nil, in.Attachments[:0]
	for i := range pods {
		p := &in.Pods[i*2]
		if i == 0 {
			p.Labels["alone"] = ""
		}
		p.Namespace = "ns0"
		in.Attachments = append(in.Attachments, Attachment{Pod: p.Key(), UID: p.UID, Interface: fmt.Sprintf("kith-%010x", i), Addresses: p.Addresses})
	}
	for i := range policies {
		p := bigPolicy(b, i)
		p.Namespace, p.Subject = "ns0", selector(b, subject(i))
		p.Ingress = isolate(policy.Rule{Peers: (*p.Ingress)[0].Peers, Ports: []policy.Port{tcp(uint16(i+1), uint16(i+1))}})
		in.Policies = append(in.Policies, p)
	}
	c := CompilerOf(in)
	c.Commit()
	for n := 0; b.Loop(); n++ {
		p := in.Policies[0]
		if n%2 == 0 {
			p.Ingress = isolate()
		}
		c.PutPolicy(p)
		c.Commit()
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/1e3/float64(b.N), "ms/change")
}

// BenchmarkChainsOfAMonster changes a policy that is as large as its bound allows, on pods each of which besides has a policy
// of its own.
func BenchmarkChainsOfAMonster(b *testing.B) {
	in := bigCluster(b)
	in.Policies, in.Attachments = nil, in.Attachments[:0]
	for i := range 100 {
		p := &in.Pods[i]
		p.Namespace, p.Labels = "ns0", map[string]string{"pod": fmt.Sprint(i)}
		in.Attachments = append(in.Attachments, Attachment{Pod: p.Key(), UID: p.UID, Interface: fmt.Sprintf("kith-%010x", i), Addresses: p.Addresses})
		in.Policies = append(in.Policies, policy.Policy{Namespace: "ns0", Name: fmt.Sprint(i), Subject: selector(b, fmt.Sprintf("pod=%d", i)), Egress: isolate()})
	}
	c := CompilerOf(in)
	c.Commit()
	p := policy.Policy{Namespace: "ns0", Name: "monster", Subject: selector(b, "*")}
	for n := 0; b.Loop(); n++ {
		p.Egress = isolate(policy.Rule{Peers: []policy.Peer{{Block: &policy.Block{CIDR: netip.MustParsePrefix("192.0.0.0/8"), Except: hosts(32_000 - n)}}}, Ports: portsApart(30_000)})
		c.PutPolicy(p)
		c.Commit()
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/1e3/float64(b.N), "ms/change")
}

// BenchmarkLabelChurn gives many pods labels that no pod had before, at once, where policies look at them.
func BenchmarkLabelChurn(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			c := loaded(b)
			for round := 0; b.Loop(); round++ {
				for i := range n {
					p := bigPod(i)
					p.Labels["churn"] = fmt.Sprint(round)
					c.PutPod(p)
				}
				c.Commit()
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/1e3/float64(b.N*n), "ms/pod")
		})
	}
}

// BenchmarkMonster puts a policy on a pod that is as large as its bound allows, in each of the ways in which it may be.
func BenchmarkMonster(b *testing.B) {
	rules := func(n int, rule func(int) policy.Rule) (out []policy.Rule) {
		for i := range n {
			out = append(out, rule(i))
		}
		return out
	}
	anybody := policy.Peer{Namespaces: selector(b, "*"), Pods: selector(b, "*")}
	block := func(i int) policy.Peer {
		return policy.Peer{Block: &policy.Block{CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{192, byte(i >> 16), byte(i >> 8), byte(i)}), 32)}}
	}
	ports := func(first, n int) (out []policy.Port) {
		for i := range n {
			out = append(out, tcp(uint16(first+2*i), uint16(first+2*i)))
		}
		return out
	}
	for _, m := range []struct {
		name  string
		rules []policy.Rule
	}{
		{"holes", []policy.Rule{{Peers: []policy.Peer{{Block: &policy.Block{CIDR: netip.MustParsePrefix("192.0.0.0/8"), Except: hosts(65_000)}}}, Ports: ports(1, 9)}}},
		{"networks", []policy.Rule{{Peers: times(32_000, func(i int) policy.Peer { return block(2 * i) }), Ports: ports(1, 30_000)}}},
		{"a rule for each network and port", rules(20_000, func(i int) policy.Rule { return policy.Rule{Peers: []policy.Peer{block(2 * i)}, Ports: ports(i, 1)} })},
		{"nested ranges of ports", rules(3000, func(i int) policy.Rule {
			return policy.Rule{Peers: times(20, func(n int) policy.Peer { return block(64*i + 2*n) }), Ports: []policy.Port{tcp(uint16(i+1), 60_000)}}
		})},
		{"nested networks", rules(3000, func(i int) policy.Rule {
			return policy.Rule{Peers: []policy.Peer{{Block: &policy.Block{CIDR: netip.MustParsePrefix("192.0.0.0/8"), Except: hosts(19)[:i%20]}}}, Ports: ports(i, 1)}
		})},
		{"broad selectors", rules(31, func(i int) policy.Rule {
			return policy.Rule{Peers: []policy.Peer{{Namespaces: selector(b, "*"), Pods: selector(b, fmt.Sprintf("app!=a%d", i))}}, Ports: ports(i, 1)}
		})},
		{"broad selectors, many ports", rules(31, func(i int) policy.Rule {
			return policy.Rule{Peers: []policy.Peer{{Namespaces: selector(b, "*"), Pods: selector(b, fmt.Sprintf("app!=a%d", i))}}, Ports: ports(i, 6)}
		})},
		{"selectors", rules(1000, func(i int) policy.Rule {
			return policy.Rule{Peers: []policy.Peer{{Namespaces: selector(b, "*"), Pods: selector(b, fmt.Sprintf("app=app%d,x!=a%d", i%20, i))}}, Ports: ports(i, 1)}
		})},
		{"one selector, a rule for each port", rules(1000, func(i int) policy.Rule { return policy.Rule{Peers: []policy.Peer{anybody}, Ports: ports(2*i, 1)} })},
		{"networks with a named port", []policy.Rule{{Peers: times(60_000, func(i int) policy.Peer { return block(2 * i) }), Ports: []policy.Port{{Protocol: identity.TCP, Name: "http"}}}}},
	} {
		b.Run(m.name, func(b *testing.B) { benchmarkRules(b, m.rules) })
	}
}

func times[T any](n int, of func(int) T) []T {
	out := make([]T, n)
	for i := range out {
		out[i] = of(i)
	}
	return out
}

func hosts(n int) []netip.Prefix {
	return times(n, func(i int) netip.Prefix {
		i *= 2
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{192, byte(i >> 16), byte(i >> 8), byte(i)}), 32)
	})
}
