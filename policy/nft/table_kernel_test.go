//go:build kernel

package nft

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/kithnet/kith/policy/ruleset"
	"golang.org/x/sys/unix"
)

func mustRead(t testing.TB, table *Table) ruleset.Ruleset {
	t.Helper()
	have, err := table.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return have
}

// converge makes the table what is wanted, as the agent does.
func converge(t testing.TB, table *Table, want ruleset.Ruleset) ruleset.Transaction {
	t.Helper()
	tx := ruleset.Diff(mustRead(t, table), want)
	if err := table.Apply(t.Context(), tx); err != nil {
		t.Fatal(err)
	}
	return tx
}

func sameRuleset(t testing.TB, table *Table, want ruleset.Ruleset) {
	t.Helper()
	have := mustRead(t, table)
	if tx := ruleset.Diff(have, want); tx.Empty() && !tx.Replace {
		return
	}
	t.Errorf("the kernel has (+) what is not wanted (-):\n%s", cmp.Diff(want, have, cmpopts.EquateEmpty()))
}

func TestKernelHasWhatWasWritten(t *testing.T) {
	table := openTable(t, newNamespace(t))
	want := everything()
	converge(t, table, want)
	sameRuleset(t, table, want)
	before := generation(t, table)
	if tx := converge(t, table, want); !tx.Empty() {
		t.Errorf("a second run would write %+v", tx)
	}
	if after := generation(t, table); after != before {
		t.Errorf("a second run made generation %d of %d", after, before)
	}
}

func TestKernelRemovesWhatIsNotWanted(t *testing.T) {
	table := openTable(t, newNamespace(t))
	converge(t, table, everything())
	want := ruleset.Ruleset{}
	converge(t, table, want)
	sameRuleset(t, table, want)
}

// elements is a transaction that makes a set of many addresses.
func elements(n int) (ruleset.Ruleset, ruleset.Transaction) {
	r := ruleset.Ruleset{Sets: map[string]*ruleset.Set{}, Chains: map[string]*ruleset.Chain{}}
	putSet(r, "many", set{key: types{ruleset.TypeIPv4Addr}, data: ruleset.TypeClassID}, podAddress(0), ruleset.Value{Priority: 1})
	for i := range n {
		r.Sets["many"].Elements[podAddress(i)] = ruleset.Value{Priority: uint32(i + 1)}
	}
	return r, ruleset.Diff(ruleset.Ruleset{}, r)
}

func TestSmallTransactionsAreOneGeneration(t *testing.T) {
	table := openTable(t, newNamespace(t))
	before := generation(t, table)
	converge(t, table, everything())
	if got := generation(t, table) - before; got != 1 {
		t.Errorf("%d generations, want 1", got)
	}
}

func TestLargeTransactionsAreCut(t *testing.T) {
	const count, limit = 20000, 64 << 10
	table := openTable(t, newNamespace(t), BatchLimit(limit))
	want, _ := elements(count)
	before := generation(t, table)
	converge(t, table, want)
	if got := generation(t, table) - before; got < 5 || got > 30 {
		t.Errorf("%d elements took %d batches", count, got)
	}
	sameRuleset(t, table, want)
	for k, v := range want.Sets["many"].Elements {
		want.Sets["many"].Elements[k] = ruleset.Value{Priority: v.Priority + 1}
	}
	converge(t, table, want)
	sameRuleset(t, table, want)
	want.Sets["many"].Elements = nil
	converge(t, table, want)
	sameRuleset(t, table, want)
}

func TestCutTransactionsEndTheSame(t *testing.T) {
	table := openTable(t, newNamespace(t), BatchLimit(512))
	converge(t, table, everything())
	sameRuleset(t, table, everything())
	converge(t, table, ruleset.Ruleset{})
	sameRuleset(t, table, ruleset.Ruleset{})
	converge(t, table, everything())
	reshaped := everything()
	reshaped.Sets["names"].Key = types{ruleset.TypeIfName}
	reshaped.Sets["names"].Elements = nil
	delete(reshaped.Chains, "guard")
	if tx := converge(t, table, reshaped); !tx.Replace {
		t.Errorf("a set of another type is not replaced: %+v", tx)
	}
	sameRuleset(t, table, reshaped)
}

func TestErrorLeavesTheOldState(t *testing.T) {
	table := openTable(t, newNamespace(t))
	want := everything()
	converge(t, table, want)
	for name, c := range map[string]struct {
		tx   ruleset.Transaction
		want string
	}{
		"element": {ruleset.Transaction{
			AddElements:    []ruleset.ElementChange{{Set: "identity4", Key: podAddress(1)}, {Set: "identity4", Key: podAddress(2)}},
			DeleteElements: []ruleset.ElementChange{{Set: "pods4", Key: exact("kith-nowhere\x00\x00\x00\x00", "\x02\x00\x00\x00\x00\x09", ip("10.1.0.9"))}},
		}, "write table kith: delete from set pods4 element kith-nowhere . 02:00:00:00:00:09 . 10.1.0.9: no such file or directory"},
		"set in use": {ruleset.Transaction{
			AddElements: []ruleset.ElementChange{{Set: "identity4", Key: podAddress(1)}}, DeleteSets: []string{"pods4"},
		}, "write table kith: delete set pods4: device or resource busy"},
		"no chain": {ruleset.Transaction{
			AddElements: []ruleset.ElementChange{{Set: "identity4", Key: podAddress(1)}},
			SetRules: []ruleset.Chain{{ChainSpec: ruleset.ChainSpec{Name: "allowed"}, Rules: []ruleset.Rule{
				{Exprs: e{ruleset.Verdict{Kind: ruleset.Jump, Chain: "nowhere"}}}}}},
		}, "write table kith: add rule to chain allowed: jump nowhere: no such file or directory"},
		"no set":    {ruleset.Transaction{AddElements: []ruleset.ElementChange{{Set: "nowhere"}}}, "write table kith: there is no set nowhere"},
		"short key": {ruleset.Transaction{AddElements: []ruleset.ElementChange{{Set: "pods4"}}}, "write table kith: set pods4: a key has 0 and 0 bytes, not 28"},
	} {
		err := table.Apply(t.Context(), c.tx)
		if err == nil || err.Error() != c.want {
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		}
		if err := table.Apply(t.Context(), c.tx); !errors.Is(err, errUnread) {
			t.Errorf("%s: after an error, without reading: %v", name, err)
		}
		sameRuleset(t, table, want)
	}
}

// TestChainThatIsTooLong: whoever reads the error knows which chain it is, and what to do.
func TestChainThatIsTooLong(t *testing.T) {
	table := openTable(t, newNamespace(t))
	converge(t, table, everything())
	c := ruleset.Chain{ChainSpec: ruleset.ChainSpec{Name: "names"}}
	rule := ruleset.Rule{Exprs: e{ruleset.Counter{}, ruleset.Verdict{Kind: ruleset.Drop}}, Comment: "much"}
	for range socketBuffer * 2 / 100 {
		c.Rules = append(c.Rules, rule)
	}
	err := table.Apply(t.Context(), ruleset.Transaction{SetRules: []ruleset.Chain{c, {ChainSpec: ruleset.ChainSpec{Name: "allowed"}, Rules: []ruleset.Rule{rule}}}})
	want := fmt.Sprintf("chain names (much) has %d rules, more than the kernel takes at once: let its policies name fewer domains: ", len(c.Rules))
	if !errors.Is(err, unix.EMSGSIZE) || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
	sameRuleset(t, table, everything())
}

func TestOneAnothersHandIsADifference(t *testing.T) {
	ns := newNamespace(t)
	table := openTable(t, ns, Shared())
	want := everything()
	converge(t, table, want)
	for name, commands := range map[string]string{
		"rule in our chain":      "add rule inet kith forward tcp dport { 22, 23 } log accept",
		"rule before ours":       "insert rule inet kith in_1 accept",
		"rule deleted":           "flush chain inet kith allowed",
		"element added":          "add element inet kith identity4 { 10.9.9.9 : 1:1 }",
		"catch-all":              "add element inet kith ingress4 { * : accept }",
		"element deleted":        "delete element inet kith cluster4 { 10.0.0.0/8 }",
		"element of another map": "delete element inet kith identity4 { 10.1.0.5 }; add element inet kith identity4 { 10.1.0.5 : 1:1 }",
		"chain":                  "add chain inet kith mine { type filter hook input priority 0; policy drop; }; add rule inet kith mine accept",
		"chains that refer":      "add chain inet kith b; add chain inet kith a; add rule inet kith a jump b; add rule inet kith forward jump a",
		"map of chains":          "add chain inet kith b; add map inet kith m { type mark : verdict; elements = { 1 : jump b } }; add rule inet kith forward meta mark vmap @m",
		"set of unknown type":    "add set inet kith s { type mark; flags timeout; }; add rule inet kith forward meta mark @s accept",
		"policy that drops":      "add chain inet kith forward { type filter hook forward priority 0; policy drop; }",
		"table switched off":     "add table inet kith { flags dormant; }",
		"another's table":        "add table inet other; add chain inet other forward; add table ip kith; add set ip kith s { type mark; }",
		"everything deleted":     "flush ruleset",
	} {
		t.Run(name, func(t *testing.T) {
			nftTool(t, ns, commands, "-f", "-")
			tx := converge(t, table, want)
			if tx.Empty() != (name == "another's table") {
				t.Errorf("the difference is %+v", tx)
			}
			sameRuleset(t, table, want)
		})
	}
}
