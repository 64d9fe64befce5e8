package ruleset

import (
	"fmt"
	"testing"

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
