package main

// inOrder let changes of labels overtake policies that were made before them.
func inOrder() []mistake {
	const pkg = "./cmd/kith-agent"
	return []mistake{
		{
			name: "changes of labels wait for nobody", file: "cmd/kith-agent/order.go",
			right: "o.on = true", wrong: "o.on = false",
			pkg: pkg, test: "TestLabelsDoNotOvertakePolicies",
		},
		{
			name: "ADD goes on with labels that are held", file: "cmd/kith-agent/gate.go",
			right: "!g.order.holds(pod)", wrong: "true",
			pkg: pkg, test: "TestADDWaitsForLabelsThatAreHeld",
		},
		{
			name: "an agent that starts writes lists of several moments", file: "cmd/kith-agent/asking.go",
			right: "err := o.sources.catchUp(ctx)", wrong: "var err error",
			pkg: pkg, test: "TestStartKnowsAllPolicies",
		},
		{
			name: "a question for every change", file: "cmd/kith-agent/asking.go",
			right: "time.Duration(len(now.questions))*perQuestion", wrong: "0*perQuestion",
			pkg: pkg, test: "TestLabelChurnIsBounded",
		},
		{
			name: "a pod that changes all the time is held for ever", file: "cmd/kith-agent/order.go",
			right: "o.held[k] = c\n", wrong: "o.held[k] = c\n\tdelete(o.asked, k)\n",
			pkg: pkg, test: "TestChurningPodIsNotHeldForEver",
		},
		{
			name: "a large change cuts up all others", file: "policy/nft/prefill.go",
			right: "apart[set] = true", wrong: "apart[set] = len(set) == 0",
			pkg: "./policy/nft", test: "TestLargeChangesCutNobodyElse", tags: inKernel,
		},
		{
			name: "what a large change allows comes before the rest", file: "policy/nft/prefill.go",
			right: "after.changes = append(after.changes, c)\n\t\t\t}\n\t\t}\n\t\treturn apart[e.Set]\n\t})\n\treturn before", wrong: "before.changes = append(before.changes, c)\n\t\t\t}\n\t\t}\n\t\treturn apart[e.Set]\n\t})\n\treturn before",
			pkg: "./policy/nft", test: "TestLargeChangesCutNobodyElse", tags: inKernel,
		},
	}
}

// inStakes let labels go on that open what a policy denies, or hold up those that cannot.
func inStakes() []mistake {
	const pkg = replays
	return []mistake{
		{
			name: "a peer's new labels wait for nobody", file: "policy/ruleset/stake.go",
			right: "add(now, before, policy.Deny)", wrong: "add(before, now, policy.Deny)",
			pkg: pkg, test: "TestPeersDoNotOvertakePolicies",
		},
		{
			name: "a peer that is denied no longer waits for nobody", file: "policy/ruleset/stake.go",
			right: "add(before, now, policy.Accept)", wrong: "add(now, before, policy.Accept)",
			pkg: "./policy/ruleset/walk", test: "TestWhoIsDeniedNoLongerIsAtStake",
		},
		{
			name: "a subject's new labels wait for nobody", file: "policy/ruleset/stake.go",
			right: "if len(before) == 0 {\n\t\treturn false", wrong: "if true {\n\t\treturn false",
			pkg: pkg, test: "TestLabelsDoNotOvertakePolicies",
		},
		{
			name: "a policy more never allows more", file: "policy/ruleset/stake.go",
			right: "!already && c.mayAllow(c.policies[n], before)", wrong: "!already && false && c.mayAllow(c.policies[n], before)",
			pkg: "./policy/ruleset", test: "TestOnePolicyMore",
		},
		{
			name: "other named ports allow no more", file: "policy/ruleset/stake.go",
			right: "if was != nil && is != nil && !slices.Equal(was.NamedPorts(), is.NamedPorts()) {", wrong: "if false {",
			pkg: "./policy/ruleset/walk", test: "TestNothingIsAtStake",
		},
		{
			name: "who becomes known has nothing at stake", file: "policy/ruleset/stake.go",
			right: "maps.Copy(concerned, c.denying())", wrong: "_ = c.denying()",
			pkg: "./policy/ruleset/walk", test: "TestNothingIsAtStake",
		},
		{
			name: "a namespace's new labels wait for nobody", file: "policy/ruleset/stake.go",
			right: "len(c.chains) > 0", wrong: "false",
			pkg: "./policy/ruleset/walk", test: "TestNothingIsAtStake",
		},
	}
}
