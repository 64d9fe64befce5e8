package main

// inNames let one pod's answers take from others', or lose what is held.
func inNames() []mistake {
	const folder, pkg = "policy/dns/tap/", "./policy/dns/tap"
	return []mistake{
		{
			name: "a pod has no pace", file: folder + "rules.go", tags: inKernel,
			right: "add(chainHeld, append(t.paced(), to(chainBusy)), ", wrong: "add(chainHeld, ",
			pkg: pkg, test: "TestFloodSilencesNobody/70_addresses,_5,000_a_second",
		},
		{
			name: "whoever answers from port 53 is a name server", file: folder + "rules.go", tags: inKernel,
			right: "append(f.address(f.source, setServers), to(chainHeard)),", wrong: "append(f.load(f.source, f.size), to(chainHeard)),",
			pkg: pkg, test: "TestOnlyNameServersAreHeard",
		},
		{
			name: "answers are held though nobody reads", file: folder + "rules.go", tags: inKernel,
			right: "\t\t\tr = append(r, protocolIn(t, setHearing)...)\n", wrong: "",
			pkg: pkg, test: "TestHeldAnswersGoOn/nobody_reads",
		},
		{
			name: "what says nothing waits", file: folder + "rules.go", tags: inKernel,
			right: "\t\tconcat(udp, transport(countAt, 2), []expr.Any{equal(0, 0), accept()}),\n", wrong: "",
			pkg: pkg, test: "TestEmptyAnswersDoNotWait",
		},
		{
			name: "answers are held for as long as it takes", file: folder + "tap.go", tags: inKernel,
			right: "t.queue.overdue(now.Add(-t.patience))", wrong: "t.queue.overdue(now.Add(-t.patience - time.Hour))",
			pkg: pkg, test: "TestHeldAnswersGoOn/nobody_is_done_hearing_it",
		},
		{
			name: "what is held ends with us", file: folder + "tap.go", tags: inKernel,
			right: "\t\tt.letGo()\n", wrong: "",
			pkg: pkg, test: "TestHeldAnswersGoOn/the_tap_is_closed",
		},
		{
			name: "a pod is heard until nothing waits for it", file: folder + "queue.go",
			right: "q.turns = append(q.turns, link)", wrong: "q.turns = append([]int{link}, q.turns...)",
			pkg: pkg, test: "TestPodsAreHeardInTurn",
		},
		{
			name: "what is held is sent twice", file: folder + "queue.go",
			right: "return !was", wrong: "return was || !was",
			pkg: pkg, test: "TestEachAnswerIsSentOnce",
		},
		{
			name: "who comes late to a name's set learns nothing", file: "cmd/kith-agent/share.go",
			right: "more := most.held[e.Set] - known.held[e.Set]", wrong: "more := most.held[e.Set] - most.held[e.Set]",
			pkg: "./cmd/kith-agent", test: "TestPodsShareASet",
		},
	}
}
