package main

// inUnknown let what nobody knows pass, or take those for it who are known.
func inUnknown() []mistake {
	return []mistake{
		{
			name: "what is not known is nobody", file: "policy/ruleset/rules.go",
			right: "if slices.ContainsFunc(ch.contents, (*content).closes) {", wrong: "if false {",
			pkg: "./policy/ruleset/walk", test: "TestDecideIsWhatTheRulesetDoes",
		},
		{
			name: "what no rule names is not known", file: "policy/ruleset/settle.go",
			right: "(c.namesAll || c.names[id] != nil)", wrong: "c.names[id] != nil",
			pkg: "./policy/ruleset/walk", test: "TestDecideIsWhatTheRulesetDoes",
		},
		{
			name: "nodes are not known", file: "policy/ruleset/unknown.go",
			right: "notIn(other4, setNodes4), ", wrong: "",
			pkg: "./policy/ruleset/walk", test: "TestDecideIsWhatTheRulesetDoes",
		},
		{
			name: "an unknown pod has no named ports", file: "policy/ruleset/class.go",
			right: "b.action == policy.Deny && !r.all && len(rule.names) > 0", wrong: "b.action == policy.Deny && false",
			pkg: "./policy/ruleset/walk", test: "TestDecideIsWhatTheRulesetDoes",
		},
		{
			name: "a status names others' addresses", file: "identity/screen.go",
			right: "return !slices.ContainsFunc(s.homes[p.Node],", wrong: "return false && !slices.ContainsFunc(s.homes[p.Node],",
			pkg: "./policy/ruleset/walk", test: "TestForgedStatusesMoveNothing",
		},
	}
}
