package main

// inLists make policies cost more than they say, or let what is cut or alike take another's place.
func inLists() []mistake {
	const pkg = "./policy/ruleset"
	return []mistake{
		{
			name: "each network with each port", file: "policy/ruleset/class.go",
			right: "len(g.ports) > few || g.size > maxBoxes || len(boxes)+g.size > maxAllBoxes", wrong: "false",
			pkg: pkg, test: "TestPolicyCostsItsSum", says: "networks and ports",
		},
		{
			name: "each identity with each port", file: "policy/ruleset/class.go",
			right: "len(wide) == 0 && len(single) <= few", wrong: "len(wide) == 0",
			pkg: pkg, test: "TestPolicyCostsItsSum", says: "identities and ports",
		},
		{
			name: "a block has nodes in it that it excepts", file: "policy/ruleset/addr.go",
			right: "case contained && !covered:", wrong: "case contained && !covered && false:",
			pkg: pkg, test: "TestBlockRanges/everything",
		},
		{
			name: "two lists with one hash", file: "policy/ruleset/list.go",
			right: "slices.Equal(c.lists[name].keys, keys)", wrong: "slices.Equal(keys, keys)",
			pkg: pkg, test: "TestHashesMayMeet",
		},
		{
			name: "two chains with one hash", file: "policy/ruleset/chain.go",
			right: "known == nil || known.text() == text", wrong: "true",
			pkg: pkg, test: "TestHashesMayMeet",
		},
		{
			name: "two classes of ports with one hash", file: "policy/ruleset/class.go",
			right: "taken := b.sets[set]; !taken {", wrong: "taken := b.sets[set]; !taken || taken {",
			pkg: pkg, test: "TestHashesMayMeet",
		},
		{
			name: "two runs of rules with one hash", file: "policy/ruleset/content.go",
			right: "x.prefix == prefix && x.text != text", wrong: "x.prefix == prefix && x.text != text && false",
			pkg: pkg, test: "TestHashesMayMeet",
		},
	}
}

// inOrderAndBound let what is written come too late, and what is too large be as if it were not.
func inOrderAndBound() []mistake {
	return []mistake{
		{
			name: "lists filled after the rules that name them", file: "policy/nft/order.go",
			right: "func stageOfAddition(e ruleset.ElementChange, spec ruleset.SetSpec) int {\n\tswitch {\n\tcase e.Listed():\n\t\treturn stageFill\n",
			wrong: "func stageOfAddition(e ruleset.ElementChange, spec ruleset.SetSpec) int {\n\tswitch {\n",
			pkg:   "./policy/nft", test: "TestStages",
		},
		{
			name: "a chain is asked before its rules are in it", file: "policy/nft/order.go",
			right: "s[stageFill].rules = append(s[stageFill].rules, c)", wrong: "s[stageRules].rules = append(s[stageRules].rules, c)",
			pkg: "./policy/nft", test: "TestWaysAreThereFirst",
		},
		{
			name: "all classes one after the other", file: "policy/ruleset/ways.go",
			right: "if len(b.classes) > maxClasses {", wrong: "if false {",
			pkg: "./policy/ruleset", test: "TestPolicyCostsItsSum", says: "a class for each: chain",
		},
		{
			name: "what passes to the next tier comes back", file: "policy/ruleset/ways.go",
			right: "if !ok || b.action == policy.Pass {", wrong: "if !ok || false && b.action == policy.Pass {",
			pkg: "./policy/ruleset/walk", test: "TestManyRulesOfPorts",
		},
		{
			name: "a denial beyond the bound denies nothing", file: "policy/bound.go",
			right: "if r.Action == Accept {", wrong: "if true {",
			pkg: "./policy", test: "TestBounded", says: "a denial",
		},
		{
			name: "rules of nothing count nothing", file: "policy/bound.go",
			right: "n = max(n, 1)", wrong: "",
			pkg: "./policy", test: "TestBounded", says: "rules of nothing",
		},
		{
			name: "any number of rules is kept", file: "policy/kube/kube.go",
			right: "spec.Ingress, spec.Egress = few(spec.Ingress), few(spec.Egress)", wrong: "",
			pkg: "./policy/kube", test: "TestRulesAreBounded", says: "rules are kept",
		},
		{
			name: "every version of an object waits", file: "cmd/kith-agent/inbox.go",
			right: "if len(b.changes) > 2*len(b.last)+batch {", wrong: "if false {",
			pkg: "./cmd/kith-agent", test: "TestInboxForgets", says: "are kept of one object",
		},
		{
			name: "a pod opens without what was handed in before its ADD went on", file: "cmd/kith-agent/enforcer.go",
			right: "e.inbox.drain(e.compiler)", wrong: "",
			pkg: "./cmd/kith-agent", test: "TestAwaitSeesWhatWasHandedInBefore",
		},
		{
			name: "the bound is not asked", file: "cmd/kith-agent/agent.go",
			right: "c = c.Bounded(a.cfg.Policy.MaxElements)", wrong: "",
			pkg: "./cmd/kith-agent", test: "TestPolicyTooLargeCloses",
		},
	}
}
