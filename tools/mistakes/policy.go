package main

// all are the mistakes that are tried.
func all() []mistake { return append(inPolicy(), inGuards()...) }

const replays = "./cmd/kith-agent"

func inPolicy() []mistake {
	return []mistake{
		{
			name: "CVE-2023-27595, filters removed on restart", file: "cmd/kith-agent/enforcer.go",
			right: "if !isClosed(e.complete) {\n\t\t\tif err := e.closeAgain(ctx)", wrong: "if false {\n\t\t\tif err := e.closeAgain(ctx)",
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
			right: "rules := make(policy.Rules, len(np.Spec.Ingress))", wrong: "rules := make(policy.Rules, max(1, len(np.Spec.Ingress)))\n\t\trules[0] = policy.Rule{AllPeers: true, AllPorts: true}",
			pkg: replays, test: "TestEmptyListIsNotAllowAll",
		},
		{
			name: "CVE-2023-39347, pod labels forge a namespace", file: "policy/ruleset/peers.go",
			right: "selects(s.namespaces, id.NamespaceLabels())", wrong: "(selects(s.namespaces, id.NamespaceLabels()) || selects(s.namespaces, id.Labels()))",
			pkg: replays, test: "TestPodLabelsForgeNoNamespace",
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
			name: "address reuse with stale identity", file: "identity/table.go",
			right: "return age{r.created, r.uid, r.key()}.newer(age{o.created, o.uid, o.key()})", wrong: "return false",
			pkg: replays, test: "TestReusedAddressHasNoOldIdentity",
		},
	}
}

func inGuards() []mistake {
	return []mistake{
		{
			name: "CVE-2025-32793, an ending pod's packets in clear", file: "policy/ruleset/frame.go",
			right: "\t\t\tdrop(isIn(setCluster4, IPDestination)),\n", wrong: "",
			pkg: replays, test: "TestEndingPodSendsNothingInClear",
		},
		{
			name: "CVE-2020-10749, router advertisements of a pod", file: "policy/ruleset/frame.go",
			right: "accept(isIn(SetOpened, InInterface), isIn(setLinkLocal, IP6Source), ICMPType{58, icmp6NeighborAdvertisement})",
			wrong: "accept(isIn(SetOpened, InInterface), isIn(setLinkLocal, IP6Source))",
			pkg:   "./policy/ruleset/walk", test: "TestGuards",
		},
	}
}
