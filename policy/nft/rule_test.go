package nft

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/kithnet/kith/policy/ruleset"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// specsOf are the sets that rules refer to.
func specsOf(r ruleset.Ruleset) map[string]ruleset.SetSpec {
	specs := map[string]ruleset.SetSpec{}
	for name, s := range r.Sets {
		specs[name] = s.SetSpec
	}
	return specs
}

func TestRulesReadAsWritten(t *testing.T) {
	r := everything()
	specs := specsOf(r)
	for name, c := range r.Chains {
		for i, rule := range c.Rules {
			exprs, err := exprsOf(rule, specs)
			if err != nil {
				t.Errorf("%s rule %d: %v", name, i, err)
				continue
			}
			if diff := cmp.Diff(rule, ruleOf(exprs, rule.Comment, specs)); diff != "" {
				t.Errorf("%s rule %d (-written +read):\n%s", name, i, diff)
			}
		}
	}
}

func TestForeignRulesEqualNothing(t *testing.T) {
	specs := specsOf(everything())
	drop := &expr.Verdict{Kind: expr.VerdictDrop}
	lookup := func(set string) expr.Any { return &expr.Lookup{SourceRegister: 1, SetName: set} }
	for name, in := range map[string][]expr.Any{
		"unknown expression":        {nil, drop},
		"another register":          {load(ruleset.InInterface, 2), compare(ruleset.Equal, "kith-"), drop},
		"a dependency for nothing":  {&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, compare(ruleset.Equal, "\x02"), drop},
		"a set that is not there":   {load(ruleset.L4Proto, 1), lookup("nowhere"), drop},
		"a key of another type":     {load(ruleset.L4Proto, 1), lookup("opened"), drop},
		"a key not swapped":         {load(ruleset.Priority, 1), load(ruleset.L4Proto, 9), load(ruleset.DestinationPort, 10), lookup("in_1_range")},
		"no comparison":             {load(ruleset.InInterface, 1)},
		"a comparison of nothing":   {compare(ruleset.Equal, "x")},
		"a mask that is cut":        {&expr.Ct{Key: expr.CtKeySTATE, Register: 1}, mask("x"), drop},
		"a name that is too long":   {load(ruleset.InInterface, 1), compare(ruleset.Equal, strings.Repeat("x", 20)), drop},
		"a verdict that is unknown": {&expr.Verdict{Kind: expr.VerdictQueue}},
		"the connection's source":   {&expr.Ct{Key: expr.CtKeySRC, Register: 1}, lookup("subjects4"), drop},
	} {
		if got := ruleOf(in, "", specs); got.Comment != foreign {
			t.Errorf("%s: read as %v", name, got)
		}
	}
}

func TestRulesThatCannotBeWritten(t *testing.T) {
	specs := specsOf(everything())
	for want, e := range map[string]ruleset.Expr{
		`ip saddr @nowhere: there is no set nowhere`:                                         ruleset.Lookup{Fields: []ruleset.Field{ruleset.IPSource}, Set: "nowhere"},
		`ip saddr @self4: set self4 has 2 fields in its key, not 1`:                          ruleset.Lookup{Fields: []ruleset.Field{ruleset.IPSource}, Set: "self4"},
		`ip6 saddr @subjects4: field 1 of set subjects4 is of type ipv4_addr, not ipv6_addr`: ruleset.Lookup{Fields: []ruleset.Field{ruleset.IP6Source}, Set: "subjects4"},
		`icmp type 3: protocol 6 has no ICMP types`:                                          ruleset.ICMPType{Protocol: 6, Type: 3},
	} {
		_, err := exprsOf(ruleset.Rule{Exprs: []ruleset.Expr{e}}, specs)
		if err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// wireOf is what the library makes of a table, put right for the kernel.
func wireOf(tb testing.TB, r ruleset.Ruleset) []netlink.Message {
	tb.Helper()
	var sent []netlink.Message
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithTestDial(func(batch []netlink.Message) ([]netlink.Message, error) {
		for _, m := range batch {
			putRight(m)
		}
		sent = append(sent, batch...)
		return nil, nil
	}))
	if err != nil {
		tb.Fatal(err)
	}
	kernel := &nftables.Table{Name: ruleset.Table, Family: nftables.TableFamilyINet}
	w := writer{Table: &Table{conn: conn, kernel: kernel, limit: defaultBatch, sets: specsOf(r)}}
	if err := w.whole(tb.Context(), ruleset.Diff(ruleset.Ruleset{}, r)); err != nil {
		tb.Fatal(err)
	}
	return sent
}

// TestMessagesReadAsWritten covers what the library and we make of a rule together, and what we read of it.
func TestMessagesReadAsWritten(t *testing.T) {
	r := everything()
	got := map[string][]ruleset.Rule{}
	for _, m := range wireOf(t, r) {
		if m.Header.Type == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWRULE {
			chain, rule := parseRule(m.Data[sizeofNfgenmsg:], specsOf(r))
			got[chain] = append(got[chain], rule)
		}
	}
	for name, c := range r.Chains {
		if diff := cmp.Diff(c.Rules, got[name]); diff != "" {
			t.Errorf("%s (-written +read):\n%s", name, diff)
		}
	}
}

// FuzzParse feeds the readers with bytes that no kernel would give: they must come back.
func FuzzParse(f *testing.F) {
	r := everything()
	specs := specsOf(r)
	for _, m := range wireOf(f, r) {
		f.Add(m.Data[sizeofNfgenmsg:])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		parseRule(b, specs)
		parseSet(b)
		parseChain(b)
		for _, s := range specs {
			elementsOf(s, parseElements(s, b))
		}
		for _, r := range replies(b) {
			parseRefusal(r, 0)
		}
		parseComment(b)
		putRight(netlink.Message{Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWRULE}, Data: append(make([]byte, sizeofNfgenmsg), b...)})
	})
}
