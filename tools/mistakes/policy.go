package main

const replays = "./cmd/kith-agent"

func inPolicy() []mistake {
	return []mistake{
		{
			name: "CVE-2023-27595, filters removed on restart", file: "cmd/kith-agent/enforcer.go",
			right: "if !isClosed(e.complete) {\n\t\t\tif err := e.hold(ctx)", wrong: "if false {\n\t\t\tif err := e.hold(ctx)",
			pkg: replays, test: "TestNothingIsWrittenBeforeInputIsComplete",
		},
		{
			name: "CVE-2024-7598, policy gone before its pod", file: "policy/kube/departure.go",
			right: "n.DeletionTimestamp != nil", wrong: "false",
			pkg: "./policy/kube", test: "TestPolicyOutlivesItsNamespacesPods",
		},
		{
			name: "CVE-2025-64715, a selector of nobody read as everybody", file: "policy/kube/translate.go",
			right: "AllPeers: len(from) == 0,", wrong: "AllPeers: len(from) == 0 || from[0].NamespaceSelector != nil,",
			pkg: replays, test: "TestEmptyListIsNotAllowAll",
		},
		{
			name: "an empty list of rules read as all open", file: "policy/kube/translate.go",
			right: "\t\tp.Ingress = &in\n", wrong: "\t\tif len(in) == 0 {\n\t\t\tin = policy.Rules{{AllPeers: true, AllPorts: true}}\n\t\t}\n\t\tp.Ingress = &in\n",
			pkg: replays, test: "TestEmptyListIsNotAllowAll",
		},
		{
			name: "CVE-2023-39347, pod labels forge a namespace", file: "policy/ruleset/peers.go",
			right: "selects(s.namespaces, id.NamespaceLabels())", wrong: "(selects(s.namespaces, id.NamespaceLabels()) || selects(s.namespaces, id.Labels()))",
			pkg: replays, test: "TestPodLabelsForgeNoNamespace",
		},
		{
			name: "a policy of which it is not clear for whom it is opens others' pods", file: "policy/kube/translate.go",
			right: "\tif unclear {", wrong: "\tif unclear && false {",
			pkg: "./policy/kube", test: "TestUnclearPolicyAddsNothing",
		},
		{
			name: "endPort ignored", file: "policy/kube/translate.go",
			right: "last = *end", wrong: "_ = *end",
			pkg: replays, test: "TestEndPortIsNotIgnored",
		},
		{
			name: "except that leaks", file: "policy/kube/translate.go",
			right: "out.Except = append(out.Except, except)", wrong: "out.Except = []netip.Prefix{except}",
			pkg: replays, test: "TestExceptDoesNotLeak",
		},
		{
			name: "CVE-2026-25804, priorities wrap round", file: "policy/policy.go",
			right: "cmp.Compare(p.Priority, q.Priority)", wrong: "cmp.Compare(int8(p.Priority), int8(q.Priority))",
			pkg: replays, test: "TestPrioritiesDoNotWrapRound",
		},
		{
			name: "merged rules", file: "policy/ruleset/content.go",
			right: "strings.Join(slices.Compact(names), \"\\n\\n\")", wrong: "\"\"",
			pkg: replays, test: "TestRulesAreNotMerged",
		},
		{
			name: "address reuse with stale identity", file: "identity/table.go",
			right: "return age{r.created, r.uid, r.key()}.newer(age{o.created, o.uid, o.key()})", wrong: "return false",
			pkg: replays, test: "TestReusedAddressHasNoOldIdentity",
		},
	}
}

func inGuards() []mistake {
	return []mistake{
		{
			name: "CVE-2022-0567, one side's egress undoes another's ingress", file: "policy/ruleset/frame.go",
			right: "priorityIngress}}, append([]Rule{\n", wrong: "priorityIngress}}, append([]Rule{\naccept(isIn(setSubjects4, OriginalSource)),\n",
			pkg: replays, test: "TestOneEndsYesIsNotTheOthers",
		},
		{
			name: "same-node path not enforced", file: "policy/ruleset/arrived.go",
			right: "decide(ReplySource, mapIngress4), decide(ReplySource6, mapIngress6),",
			wrong: "rule(in(Devices[0]), VerdictMap{[]Field{ReplySource}, mapIngress4}), rule(in(Devices[0]), VerdictMap{[]Field{ReplySource6}, mapIngress6}),",
			pkg:   replays, test: "TestSameNodeIsNoWayRound",
		},
		{
			name: "ICMP bypass", file: "policy/ruleset/frame.go",
			right: "call(errors, State{StateRelated}),\n\t\t}, receivers()", wrong: "accept(ICMPType{1, 0}),\n\t\t}, receivers()",
			pkg: replays, test: "TestICMPIsNoWayRound",
		},
		{
			name: "open connections are let be", file: "policy/ruleset/frame.go",
			right: "to(senders, State{StateEstablished}),", wrong: "accept(State{StateEstablished}),",
			pkg: "./policy/ruleset/walk", test: "TestDecideIsWhatTheRulesetDoes",
		},
		{
			name: "CVE-2025-32793, an ending pod's packets in clear", file: "policy/ruleset/frame.go",
			right: `				drop(isIn(setCluster4, IPDestination)),
				drop(isIn(setCluster6, IP6Destination)),
				// Whatever NAT did not take for masquerading, such as a packet that belongs to no connection.
				drop(isIn(setOwn4, IPSource), notIn(IPDestination, setNoMasq4)),
`,
			wrong: "", pkg: replays, test: "TestEndingPodSendsNothingInClear",
		},
		{
			name: "an attachment opens between two chains", file: "policy/ruleset/frame.go",
			right: "\t\t\tdrop(out(veths), notIn(OutInterface, SetOpened)),\n", wrong: "",
			pkg: "./policy/ruleset/walk", test: "TestOpeningIsOneStep",
		},
		{
			name: "CVE-2020-10749, router advertisements of a pod", file: "policy/ruleset/frame.go",
			right: "accept(isIn(SetOpened, InInterface), isIn(setLinkLocal, IP6Source), ICMPType{58, icmp6NeighborAdvertisement}),\n\t\t\tdrop(),",
			wrong: "accept(isIn(SetOpened, InInterface), isIn(setLinkLocal, IP6Source)),\n\t\t\tdrop(),",
			pkg:   "./policy/ruleset/walk", test: "TestGuards",
		},
		{
			name: "a full set of open connections denies what was told", file: "policy/ruleset/domain.go",
			right: "x.act(slices.Concat([]Expr{told}, p)...))", wrong: "x.act(slices.Concat([]Expr{told}, p, []Expr{again})...))",
			pkg: "./policy/ruleset/walk", test: "TestFullSetDeniesNothing",
		},
	}
}

// inWrites are in the order of a write that is too large for one batch.
func inWrites() []mistake {
	const file, pkg = "policy/nft/order.go", "./policy/nft"
	return []mistake{
		{
			name: "a write that is cut: rules deny by numbers that addresses do not have yet", file: file,
			right: "\tcase spec.Data == ruleset.TypeClassID:\n\t\treturn stageName\n", wrong: "",
			pkg: pkg, test: "TestWhoIsKnownStaysKnown",
		},
		{
			name: "a write that is cut: numbers go before the rules that deny by them", file: file,
			right: "\t\treturn stageUnname\n", wrong: "\t\treturn stageRestrict\n",
			pkg: pkg, test: "TestWhoIsKnownStaysKnown",
		},
		{
			name: "a write that is cut: denials go before the subjects", file: file,
			right: "\tcase e.Restrains():\n\t\treturn stageUnforbid\n", wrong: "",
			pkg: pkg, test: "TestStages",
		},
	}
}
