package main

// inConnections let one pod take the table of connections from all, or the next pod go on with the last one's.
func inConnections() []mistake {
	const agent = "./cmd/kith-agent"
	return []mistake{
		{
			name: "a pod's connections outlive it", file: "cni/operations.go",
			right: "if len(a.Addresses) > 0 {\n\t\tif err := d.Connections.End", wrong: "if false {\n\t\tif err := d.Connections.End",
			pkg: "./cni", test: "TestConnectionsEndWithTheirPod",
		},
		{
			name: "a pod's connections outlive it, in the kernel", file: "cmd/kith-agent/ending.go", tags: inKernel,
			right: "err := e.table.DeleteOf(addresses)", wrong: "err := e.table.DeleteOf(nil)",
			pkg: agent, test: "TestNextPodInheritsNothing/IPv4", says: "goes on with what the one before had open",
		},
		{
			name: "the kernel's filter is believed for IPv6", file: "policy/conntrack/kernel/table.go", tags: inKernel,
			right: "unix.NLM_F_DUMP, unix.AF_INET6)", wrong: "unix.NLM_F_DUMP, unix.AF_INET)",
			pkg: "./policy/conntrack/kernel", test: "TestOnlyTheirConnectionsEnd",
		},
		{
			name: "all that an address has ends, and that of others", file: "policy/conntrack/kernel/table.go", tags: inKernel,
			right: "if is == h.Address && len(names)", wrong: "if (is == h.Address || true) && len(names)",
			pkg: "./policy/conntrack/kernel", test: "TestOnlyTheirConnectionsEnd",
		},
		{
			name: "a kernel without limits is asked for them", file: "cmd/kith-agent/connections.go",
			right: "if g.unable == nil {", wrong: "if true {",
			pkg: agent, test: "TestKernelWithoutLimits",
		},
		{
			name: "the next pod at an address is limited as the last one was", file: "cmd/kith-agent/connections.go",
			right: "\tg.forget()\n", wrong: "",
			pkg: agent, test: "TestLimitEndsWithItsPod",
		},
		{
			name: "nobody is limited", file: "cmd/kith-agent/connections.go", tags: inKernel,
			right: "g.limit(limitsOf(j.Limited, g.capacity))", wrong: "",
			pkg: agent, test: "TestGreedyPodTakesNothingFromOthers/IPv4", says: "connections in a table for",
		},
		{
			name: "each packet that nobody answered counts as a connection", file: "policy/ruleset/frame.go", tags: inKernel,
			right: "call(makers, Unconfirmed{}),\n\t\t\tcall(farPorts", wrong: "call(makers, State{StateNew}),\n\t\t\tcall(farPorts",
			pkg: agent, test: "TestRatePerPod/IPv4", says: "unanswered stream",
		},
		{
			name: "what pods open to their own node has no limit", file: "policy/ruleset/frame.go", tags: inKernel,
			right: "\t\tcall(makers, Unconfirmed{}),\n\t})}", wrong: "\t})}",
			pkg: agent, test: "TestRatePerPod/IPv4", says: "connections opened",
		},
		{
			name: "who answers pays for what pods open", file: "policy/ruleset/limits.go", tags: inKernel,
			right: "\t\tunless(isIn(setCluster4, IPSource), notIn(IPSource, setMeshes4)),\n", wrong: "",
			pkg: agent, test: "TestWhoAnswersPays/IPv4", says: "a pod's connection",
		},
	}
}

// inShares take from who has no more than its share, or keep more than there is room for.
func inShares() []mistake {
	const judge = "policy/conntrack/judge.go"
	return []mistake{
		{
			name: "what the node opened is a pod's", file: "policy/conntrack/conntrack.go",
			right: "own := a.own[c.Opener]; own ||", wrong: "own := a.own[c.Opener]; own && false ||",
			pkg: "./policy/conntrack", test: "TestHolder",
		},
		{
			name: "pods pay for what their node holds", file: judge,
			right: "max(room-(c.total-sum), room/2)", wrong: "max(room-(c.total-sum), 0)",
			pkg: "./policy/conntrack", test: "TestNodeTakesNothingFromItsPods",
		},
		{
			name: "a busy server is limited for what is closing", file: judge,
			right: "if n.all-n.ending > share ||", wrong: "if n.all > share ||",
			pkg: "./policy/conntrack", test: "TestJudge",
		},
		{
			name: "who was limited is free at its share", file: judge,
			right: "held <= share && 2*held >= was.Share", wrong: "held <= share && held > was.Share",
			pkg: "./policy/conntrack", test: "TestJudge",
		},
		{
			name: "any number of connections ends at once", file: judge,
			right: "if sum <= MostEnds {", wrong: "if true {",
			pkg: "./policy/conntrack", test: "TestJudgementHolds", says: "end at once",
		},
		{
			name: "what is open ends before what is closing", file: "policy/conntrack/select.go",
			right: "if r.ends != other.ends {", wrong: "if r.ends != other.ends && false {",
			pkg: "./policy/conntrack", test: "TestSelection",
		},
		{
			name: "a census without a bound", file: judge,
			right: "if !known && len(c.counts) == mostHolders {", wrong: "if !known && false {",
			pkg: "./policy/conntrack", test: "TestMemoryIsBounded",
		},
	}
}
