//go:build kernel

package nft

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/kithnet/kith/policy/ruleset"
)

// crowd is a ruleset in the compiler's shape, with so many identities and so many chains of policies.
func crowd(pods, policies int) ruleset.Ruleset {
	r := everything()
	for i := range pods {
		r.Sets["identity4"].Elements[podAddress(i)] = ruleset.Value{Priority: uint32(i + 1)}
	}
	for i := range policies {
		name := fmt.Sprintf("in_%016x", i)
		for suffix, like := range map[string]string{"_any": "in_1_any", "_port": "in_1_port"} {
			s := *r.Sets[like]
			s.Name = name + suffix
			r.Sets[s.Name] = &s
		}
		c := *r.Chains["in_1"]
		c.Name = name
		r.Chains[name] = &c
	}
	return r
}

func podAddress(i int) ruleset.Key {
	return ruleset.Key{Low: string([]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})}
}

// BenchmarkElement is what a pod with known labels costs on a node where it does not run: its identity comes, and
// goes.
func BenchmarkElement(b *testing.B) {
	const pods, policies = 10000, 1000
	table := openTable(b, newNamespace(b))
	converge(b, table, crowd(pods, policies))
	e := []ruleset.ElementChange{{Set: "identity4", Key: podAddress(pods), Value: ruleset.Value{Priority: 7}}}
	add, remove := ruleset.Transaction{AddElements: e}, ruleset.Transaction{DeleteElements: e}
	var took []time.Duration
	for b.Loop() {
		for _, tx := range []ruleset.Transaction{add, remove} {
			start := time.Now()
			if err := table.Apply(b.Context(), tx); err != nil {
				b.Fatal(err)
			}
			took = append(took, time.Since(start))
		}
	}
	reportPercentiles(b, took)
}

func reportPercentiles(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2])/1e3, "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100])/1e3, "p99-µs")
}

// BenchmarkLoad is the first start: the whole table from nothing.
func BenchmarkLoad(b *testing.B) {
	want := crowd(10000, 1000)
	tx := ruleset.Diff(ruleset.Ruleset{}, want)
	for b.Loop() {
		b.StopTimer()
		table := openTable(b, newNamespace(b))
		mustRead(b, table)
		b.StartTimer()
		if err := table.Apply(b.Context(), tx); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkResync is reading everything and finding nothing to write.
func BenchmarkResync(b *testing.B) {
	table := openTable(b, newNamespace(b))
	want := crowd(10000, 1000)
	converge(b, table, want)
	before := generation(b, table)
	for b.Loop() {
		if tx := converge(b, table, want); !tx.Empty() {
			b.Fatalf("a resync would write %d objects", tx.Size())
		}
	}
	if after := generation(b, table); after != before {
		b.Fatalf("the resync wrote: generation %d was %d", after, before)
	}
}
