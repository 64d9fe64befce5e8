package ruleset

import (
	"fmt"
	"testing"
)

// BenchmarkPodStake: a pod of the cluster gets labels that nobody had, one of this node and one of another.
func BenchmarkPodStake(b *testing.B) {
	for name, i := range map[string]int{"local": 0, "remote": 1} {
		b.Run(name, func(b *testing.B) {
			c, at, p := loaded(b), 0, bigPod(i)
			p.Labels["app"] = "app7"
			for n := 0; b.Loop(); n++ {
				p.Labels["n"] = fmt.Sprint(n)
				if _, yes := c.PodStake(p); yes {
					at++
				}
			}
			b.ReportMetric(float64(at)/float64(b.N), "at-stake/op")
		})
	}
}
