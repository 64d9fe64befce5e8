package nft

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/kithnet/kith/policy/ruleset"
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
			instrs, err := instrsOf(rule, specs)
			if err != nil {
				t.Errorf("%s rule %d: %v", name, i, err)
				continue
			}
			if diff := cmp.Diff(rule, ruleOf(instrs, []byte(userData(rule.Comment)), specs)); diff != "" {
				t.Errorf("%s rule %d (-written +read):\n%s", name, i, diff)
			}
		}
	}
}

func TestForeignRulesEqualNothing(t *testing.T) {
	specs := specsOf(everything())
	drop := instr{op: opVerdict, key: nfDrop}
	for name, in := range map[string][]instr{
		"unknown instruction":       {{}, drop},
		"another register":          {{op: opMeta, key: loads[ruleset.InInterface].key, reg: 2}, compare(ruleset.Equal, "kith-"), drop},
		"a dependency for nothing":  {{op: opMeta, key: loads[ruleset.L4Proto].key - 1, reg: 1}, compare(ruleset.Equal, "\x02"), drop},
		"a set that is not there":   {load(ruleset.L4Proto, 1), {op: opLookup, reg: 1, data: "nowhere"}, drop},
		"a key of another type":     {load(ruleset.L4Proto, 1), {op: opLookup, reg: 1, data: "opened"}, drop},
		"no comparison":             {load(ruleset.InInterface, 1)},
		"a comparison of nothing":   {compare(ruleset.Equal, "x")},
		"a mask that is cut":        {{op: opConnection, reg: 1}, {op: opMask, data: "x"}, drop},
		"a name that is too long":   {load(ruleset.InInterface, 1), compare(ruleset.Equal, strings.Repeat("x", 20)), drop},
		"a verdict that is unknown": {{op: opVerdict, key: 99}},
	} {
		if got := ruleOf(in, nil, specs); got.Comment != foreign {
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
		_, err := instrsOf(ruleset.Rule{Exprs: []ruleset.Expr{e}}, specs)
		if err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// FuzzParse feeds the readers with bytes that no kernel would give: they must come back.
func FuzzParse(f *testing.F) {
	r := everything()
	specs := specsOf(r)
	var m batch
	m.reset()
	for _, c := range r.Chains {
		for _, rule := range c.Rules {
			at := len(m.b)
			if err := m.addRule(c.Name, rule, specs); err != nil {
				f.Fatal(err)
			}
			f.Add(m.b[at+headerLen:])
		}
	}
	for _, s := range r.Sets {
		at := len(m.b)
		m.addSet(s.SetSpec)
		f.Add(m.b[at+headerLen:])
		for k, v := range s.Elements {
			at := len(m.b)
			m.element(12, s.SetSpec, ruleset.ElementChange{Set: s.Name, Key: k, Value: v})
			m.closeList()
			f.Add(m.b[at+headerLen:])
		}
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
	})
}
