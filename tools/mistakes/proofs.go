package main

// inProofs let forged ICMP errors cut the tunnel's packets although larger ones arrive.
func inProofs() []mistake {
	const frame, nft = "policy/ruleset/frame.go", "./policy/nft"
	return []mistake{
		{
			name: "the kernel hears of IPv4 sizes below what is proved", file: frame, tags: inKernel,
			right: "\t\trule(FragmentationNeeded{}, VerdictMap{[]Field{QuotedDestination}, mapProved4}),\n", wrong: "",
			pkg: nft, test: "TestForgedSizesAreNotBelieved/IPv4", says: "1500 bytes are proved: of",
		},
		{
			name: "the kernel hears of IPv6 sizes below what is proved", file: frame, tags: inKernel,
			right: "\t\trule(ICMPType{58, icmp6TooBig}, VerdictMap{[]Field{QuotedDestination6}, mapProved6}),\n", wrong: "",
			pkg: nft, test: "TestForgedSizesAreNotBelieved/IPv6", says: "1500 bytes are proved: of",
		},
		{
			name: "who says what is proved is not heard", file: "policy/nft/toobig.go", tags: inKernel,
			right: "&expr.Cmp{Op: expr.CmpOpLt,", wrong: "&expr.Cmp{Op: expr.CmpOpLte,",
			pkg: nft, test: "TestForgedSizesAreNotBelieved/IPv4",
		},
		{
			name: "what is proved no more keeps errors away", file: "policy/ruleset/proved.go",
			right: "\t\t\tc.want.delete(byFamily(addr, mapProved4, mapProved6), exactKey(addrPart(addr)))\n", wrong: "",
			pkg: "./policy/ruleset", test: "TestProvedIsTheLast",
		},
		{
			name: "routers cut probes of the kernel's WireGuard", file: frame, tags: inKernel,
			right: "\t\t\trule(isIn(setTunnels, L4Proto, SourcePort), KeepWhole{}),\n", wrong: "",
			pkg: nft, test: "TestMarkedPacketsStayWhole", says: "a probe: whole true wanted",
		},
	}
}

// inEvidence prove what was not seen, or do not look where somebody speaks against it.
func inEvidence() []mistake {
	const way = "overlay/path/way.go"
	return []mistake{
		{
			name: "pieces prove the whole", file: way,
			right: "return size > 0 && size <= w.target.Hint", wrong: "return size > 0",
			pkg: "./overlay/path", test: "TestCutProbesProveNothing",
		},
		{
			name: "a proof outlives its way", file: way,
			right: "if w.proved.size <= p.MTU {", wrong: "if w.proved.size > 0 {",
			pkg: "./overlay/path", test: "TestProofEndsWithTheWay",
		},
		{
			name: "a proof holds for ever", file: "cmd/kith-agent/scout.go",
			right: "case now.Sub(p.ProvedAt) < fresh:", wrong: "case p.Proved > 0:",
			pkg: "./cmd/kith-agent", test: "TestProofsHold",
		},
		{
			name: "a peer proves something of an address that is not its node's", file: "cmd/kith-agent/scout.go",
			right: ", endpoint.Addr().Unmap() != p.Endpoint.Addr().Unmap():", wrong: ":",
			pkg: "./cmd/kith-agent", test: "TestProofs", says: "where another is",
		},
		{
			name: "doubts without end cost probes without end", file: "overlay/path/size.go",
			right: "if s.mtu == 0 || s.searching || s.tries > 0 || now.Before(s.pause) {", wrong: "if s.mtu == 0 || s.searching || s.tries > 0 {",
			pkg: "./overlay/path", test: "TestDoubtsAreNoLimit", says: "probes, at most",
		},
		{
			name: "nobody looks where a proof is doubted", file: way,
			right: "\t\tw.sizer.again(now)\n", wrong: "",
			pkg: "./overlay/path", test: "TestDoubtIsLookedAtAtOnce",
		},
		{
			name: "what is said before there is a count is a doubt", file: "cmd/kith-agent/scout.go",
			right: "last, known := before[p.Chain()]; known && now", wrong: "last := before[p.Chain()]; now",
			pkg: "./cmd/kith-agent", test: "TestDoubts",
		},
		{
			name: "neighbours that a node needs are as others", file: "overlay/wireguard/neighbours.go", tags: inKernel,
			right: "return set(hop, now, netlink.NTF_EXT_LEARNED)", wrong: "return set(hop, now, 0)",
			pkg: "./overlay/wireguard", test: "TestNeighboursAreKept", says: "counts:",
		},
	}
}
