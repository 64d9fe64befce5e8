package ruleset

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// TestLimits: each address that is limited has a chain, and so a budget, of its own; a pod's families share one.
func TestLimits(t *testing.T) {
	in := coffee()
	in.Attachments = append(in.Attachments, Attachment{Interface: "kith-0000000009", Addresses: addresses("10.244.1.99", "fd00:1::99")})
	c := CompilerOf(in)
	c.Commit()
	c.SetLimits([]Limit{
		{Address: netip.MustParseAddr("10.244.1.99"), PerSecond: 32},
		{Address: netip.MustParseAddr("10.244.2.10"), PerSecond: 32},
		{Address: netip.MustParseAddr("fd00:1::99"), Side: Answers, PerSecond: 7},
	})
	golden(t, "limits/some.txt", c.Commit().String())
	c.SetRate(16)
	golden(t, "limits/all.txt", c.Commit().String())
	c.DeleteAttachment("kith-0000000009")
	golden(t, "limits/gone.txt", c.Commit().String())
	c.SetRate(0)
	c.SetLimits(nil)
	c.Commit()
	if left := chainsWith(c, limitPod); len(left) > 0 {
		t.Errorf("without limits there are the chains %v", left)
	}
	for _, set := range []string{mapOpens4, mapOpens6, mapAnswers4, mapAnswers6} {
		if n := len(c.Ruleset().Sets[set].Elements); n > 0 {
			t.Errorf("without limits %s has %d elements", set, n)
		}
	}
}

func chainsWith(c *Compiler, prefix string) []string {
	var out []string
	for name := range c.Ruleset().Chains {
		if strings.HasPrefix(name, prefix) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// TestLimitsDoNotDependOnOrder: whatever came first, the limits are the same; and the same limits again write nothing.
func TestLimitsDoNotDependOnOrder(t *testing.T) {
	some := []Limit{{Address: netip.MustParseAddr("10.244.1.10"), PerSecond: 32}, {Address: netip.MustParseAddr("10.244.1.10"), PerSecond: 3}}
	first := NewCompiler()
	first.SetLimits(some)
	first.SetRate(100)
	for _, a := range coffee().Attachments {
		first.PutAttachment(a)
	}
	then := CompilerOf(coffee())
	then.SetRate(100)
	then.Commit()
	slices.Reverse(some)
	then.SetLimits(some)
	for _, set := range []string{mapOpens4, mapOpens6} {
		a, b := first.Ruleset().Sets[set], then.Ruleset().Sets[set]
		if tx := Diff(Ruleset{Sets: map[string]*Set{set: a}}, Ruleset{Sets: map[string]*Set{set: b}}); !tx.Empty() {
			t.Errorf("%s differs:\n%s", set, tx)
		}
	}
	if a, b := chainsWith(first, limitPod), chainsWith(then, limitPod); !slices.Equal(a, b) || len(a) != 3 {
		t.Errorf("chains %v and %v", a, b)
	}
	then.Commit()
	then.SetLimits(slices.Clone(some))
	then.SetRate(100)
	if tx := then.Commit(); !tx.Empty() {
		t.Errorf("the same limits write\n%s", tx)
	}
}
