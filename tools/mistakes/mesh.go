package main

// inGrants give a node what is another's, or nobody's to give.
func inGrants() []mistake {
	const file, pkg = "overlay/grant.go", "./overlay"
	return []mistake{
		{
			name: "blocks decide a node by its status alone", file: file,
			right: "for _, addr := range n.Reached {", wrong: "for _, addr := range n.Reached[:0] {",
			pkg: replays, test: "TestStatusDoesNotSayWhereANodeIs",
		},
		{
			name: "a claim's address that is another node's", file: file,
			right: "if cmp.Or(g.unfit(addr), g.anothers(i, addr)) == \"\" {", wrong: "if g.unfit(addr) == \"\" {",
			pkg: pkg, test: "TestAddressesRefused",
		},
		{
			name: "another's pod CIDR", file: file,
			right: "holder, taken := g.granted.holder(cidr); taken", wrong: "holder, taken := g.granted.holder(cidr); taken && false",
			pkg: pkg, test: "TestNobodyHoldsAnothersAddress",
		},
		{
			name: "a pod CIDR over the nodes' addresses", file: file,
			right: "elder <= known.node && known.node <= i ||", wrong: "elder == i && known.node == i ||",
			pkg: pkg, test: "TestCIDRsRefused/172.18.0.3/32",
		},
		{
			name: "a pod CIDR over this node's addresses", file: file,
			right: "owner.Name == g.bounds.Self {", wrong: "false && owner == nil {",
			pkg: pkg, test: "TestOwnAddressKeepsOut",
		},
		{
			name: "a node's address takes another's pod CIDR", file: file,
			right: "g.grant(i, cidr, i)", wrong: "g.grant(i, cidr, 0)",
			pkg: pkg, test: "TestAddressTakesNoCIDR",
		},
		{
			name: "a newcomer takes what another holds", file: file,
			right: "a.Created.Compare(b.Created)", wrong: "b.Created.Compare(a.Created)",
			pkg: pkg, test: "TestOldestKeeps",
		},
	}
}

// inBounds give a node what is outside of the pods' ranges, or let what is refused have its way elsewhere.
func inBounds() []mistake {
	const file, pkg = "overlay/grant.go", "./overlay"
	return []mistake{
		{
			name: "a pod CIDR that no node can have", file: file,
			right: "if cidr.Overlaps(r.Range) {\n\t\t\treturn fmt.Sprintf(\"%s are", wrong: "if false && cidr.Overlaps(r.Range) {\n\t\t\treturn fmt.Sprintf(\"%s are",
			pkg: pkg, test: "TestCIDRsRefused/127.0.0.0/24",
		},
		{
			name: "a pod CIDR outside of the pods' ranges", file: file,
			right: "len(b.Within) > 0 &&", wrong: "false &&",
			pkg: pkg, test: "TestCIDRsRefused/8.8.8.0/24",
		},
		{
			name: "a pod CIDR over the gateway", file: file,
			right: "if cidr.Overlaps(r.Range) {\n\t\t\treturn fmt.Sprintf(\"it covers", wrong: "if false {\n\t\t\treturn fmt.Sprintf(\"it covers",
			pkg: pkg, test: "TestCIDRsRefused/172.20.0.0/24",
		},
		{
			name: "a pod CIDR of Services' addresses", file: file,
			right: "i := slices.IndexFunc(b.Services, cidr.Overlaps); i >= 0", wrong: "i := slices.IndexFunc(b.Services, cidr.Overlaps); i >= 0 && false",
			pkg: "./cmd/kith-agent", test: "TestNodeTakesNothingByItsCIDRs/10.96.0.10/32",
		},
		{
			name: "another node's address", file: file,
			right: "if owner == i {\n", wrong: "if owner == i || true {\n",
			pkg: pkg, test: "TestAddressesRefused",
		},
		{
			name: "guard and addresses for pods by what Nodes ask for", file: "cmd/kith-agent/memory.go",
			right: "return k.Grants().Nodes }", wrong: "nodes := k.live.List(); for i := range nodes { nodes[i].PodCIDRs = nodes[i].Requested }; return nodes }",
			pkg: "./cmd/kith-agent", test: "TestNodeTakesNothingByItsCIDRs",
		},
		{
			name: "a pod has whatever address its status names", file: "identity/screen.go",
			right: "return !slices.ContainsFunc(s.homes[p.Node]", wrong: "return false && !slices.ContainsFunc(s.homes[p.Node]",
			pkg: "./identity", test: "TestAddressesOutsideOfTheNodeDoNotCount",
		},
		{
			name: "a refused CIDR stays the cluster's", file: "cmd/kith-agent/vacated.go",
			right: " || !fits(g.cidr)", wrong: " || false && fits(g.cidr)",
			pkg: "./cmd/kith-agent", test: "TestRefusedCIDRIsNotVacated",
		},
	}
}

// inMesh give a node what is another's, or leave a way for pods' packets past the mesh.
func inMesh() []mistake {
	const file, pkg = "overlay/compute.go", "./overlay"
	return []mistake{
		{
			name: "WireGuard's packets go into the tunnel", file: "overlay/endpoint.go",
			right: "holder, held := c.grants.holder(netip.PrefixFrom(addr, addr.BitLen())); held", wrong: "holder, held := c.grants.holder(netip.PrefixFrom(addr, addr.BitLen())); held && false",
			pkg: pkg, test: "TestRefusedEndpoints/in_a_pod_CIDR",
		},
		{
			name: "another's key", file: file,
			right: "holder, taken := c.keys[key]; taken", wrong: "holder, taken := c.keys[key]; taken && false",
			pkg: pkg, test: "TestComputeProblems/key_of_another",
		},
		{
			name: "this node's own key", file: file,
			right: "if slices.Contains(c.local.Keys[:], key) {", wrong: "if false {",
			pkg: pkg, test: "TestComputeProblems/this_node's_key",
		},
		{
			name: "no way into the device for a node without a key", file: file,
			right: "for _, cidr := range n.PodCIDRs {\n\t\tc.addRoute", wrong: "for _, cidr := range n.PodCIDRs {\n\t\tif _, known := c.claims[n.Name]; !known {\n\t\t\tbreak\n\t\t}\n\t\tc.addRoute",
			pkg: pkg, test: "TestComputeRoutesAwaitTheKey",
		},
		{
			name: "own addresses without a pod take the way out", file: file,
			right: "c.mesh.Unreachable = slices.Clone(own)\n", wrong: "",
			pkg: pkg, test: "TestComputeDualStack",
		},
		{
			name: "routes of more than fits the underlay", file: file,
			right: "MTU: c.local.routeMTU(c.outer)}", wrong: "MTU: c.local.UnderlayMTU}",
			pkg: pkg, test: "TestComputeMTU",
		},
	}
}

// inSizes let anybody who can send an ICMP error shrink the tunnel between two nodes.
func inSizes() []mistake {
	return []mistake{
		{
			name: "what ICMP says is a limit", file: "overlay/wireguard/underlay.go", tags: inKernel,
			right: "d.mode == Kernel && said >= leastMTU", wrong: "said >= leastMTU || d.mode != Kernel",
			pkg: "./overlay/wireguard", test: "TestForgedICMPIsNoLimit/ipv4_from_192.0.2.99", says: "the way is taken for 576",
		},
		{
			name: "wireguard-go believes what ICMP says", file: "overlay/wireguard/userspace/serve.go",
			right: "\tall.Go(func() { keepWhole(ctx, log) })\n", wrong: "",
			pkg: "./overlay/wireguard/userspace", test: "TestSocketsSendWhole", says: "udp4: discovers sizes by",
		},
		{
			name: "sockets that cut packets over IPv6", file: "overlay/wireguard/userspace/sockets.go",
			right: "unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE", wrong: "unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_WANT",
			pkg: "./overlay/wireguard/userspace", test: "TestSocketsSendWhole",
		},
		{
			name: "a hint is a limit", file: "overlay/path/way.go",
			right: "w.sizer.bound(now, target.Limit)", wrong: "w.sizer.bound(now, min(target.Limit, max(smallest, target.Hint)))",
			pkg: "./overlay/path", test: "TestHintIsNoLimit",
		},
		{
			name: "hints without end cost probes without end", file: "overlay/path/size.go",
			right: "if hint == s.hint || s.searching || s.tries > 0 || now.Before(s.pause) {", wrong: "if hint == s.hint || s.searching || s.tries > 0 {",
			pkg: "./overlay/path", test: "TestHintIsNoLimit", says: "probes, at most",
		},
		{
			name: "hints put off what is due", file: "overlay/path/size.go",
			right: "if s.suspected && s.mtu == before {", wrong: "if false && s.suspected && s.mtu == before {",
			pkg: "./overlay/path", test: "TestHintsPutNothingOff",
		},
	}
}

// inPlan do the right things in the wrong order, or too early.
func inPlan() []mistake {
	const diff, rotation, path = "overlay/diff.go", "overlay/rotation/rotation.go", "overlay/path/size.go"
	return []mistake{
		{
			name: "a peer is removed before its CIDR has another", file: diff,
			right: "d.setPeers(On{i})\n\t\td.removePeers(On{i})", wrong: "d.removePeers(On{i})\n\t\td.setPeers(On{i})",
			pkg: "./overlay", test: "TestPlanLeadsToTheWantedMesh",
		},
		{
			name: "a route that changes is removed afterwards", file: diff,
			right: "!slices.Contains(replaced, r.CIDR) && ", wrong: "len(replaced) >= 0 && ",
			pkg: "./overlay", test: "TestPlanLeadsToTheWantedMesh",
		},
		{
			name: "a peer stays when its preshared key changes", file: diff,
			right: "exists && p.Preshared != want.Preshared {", wrong: "false && exists && p.Preshared != want.Preshared {",
			pkg: "./overlay", test: "TestPlanLeadsToTheWantedMesh",
		},
		{
			name: "rotation breaks before it makes: a lane without a handshake", file: rotation,
			right: "return !p.Handshake[lane].IsZero() && in.Now.Sub(p.Handshake[lane]) < fresh", wrong: "return true",
			pkg: "./overlay/rotation", test: "TestNothingIsLostOverRotations",
		},
		{
			name: "rotation breaks before it makes: nobody is waited for", file: rotation,
			right: "if r.held(in, d.HeldBy) {", wrong: "if r.held(in, nil) {",
			pkg: "./overlay/rotation", test: "TestNothingIsLostOverRotations",
		},
		{
			name: "one node leads all others far ahead", file: rotation,
			right: "return all[(len(all)-1)/2]", wrong: "return all[len(all)-1]",
			pkg: "./overlay/rotation", test: "TestOneDoesNotLeadFar",
		},
		{
			name: "black holes are not looked for", file: path,
			right: "case s.tries == enough:\n\t\ts.search(smallest, s.mtu+1)", wrong: "case s.tries == enough:\n\t\ts.rest(now)\n\t\treturn nil",
			pkg: "./overlay/path", test: "TestBlackHoleIsFound",
		},
		{
			name: "a silence is taken for a black hole", file: path,
			right: "case len(s.asked) > 0 && !s.heard:", wrong: "case false:",
			pkg: "./overlay/path", test: "TestSilenceSaysNothingAboutSizes",
		},
	}
}

// inMesher are an agent's that has all it needs and does not use it.
func inMesher() []mistake {
	return []mistake{
		{
			name: "the mesh is not put right when its device changes", file: "cmd/kith-agent/mesher.go",
			right: "\t\tcase <-m.device.Changed():\n", wrong: "",
			pkg: replays, test: "TestMeshRestoredByEvent",
		},
		{
			name: "the mesh is taken down while the own Node is away", file: "cmd/kith-agent/mesher.go",
			right: "if p.Kind == overlay.OwnNodeMissing {", wrong: "if p.Kind == overlay.OwnNodeMissing && false {",
			pkg: replays, test: "TestMeshStaysWithoutOwnNode",
		},
		{
			name: "routes wider than the way", file: "cmd/kith-agent/mesher.go",
			right: "want.Within(m.ways.MTUs(), have.Routes))", wrong: "want)",
			pkg: replays, test: "TestRoutesFollowTheWays",
		},
		{
			name: "the device before the guard", file: "cmd/kith-agent/mesher.go",
			right: "\tm.network(nodes)\n\tm.follow(nodes, members)\n", wrong: "\tdefer m.network(nodes)\n\tm.follow(nodes, members)\n",
			pkg: replays, test: "TestGuardKnowsFirst",
		},
		{
			name: "pods of a Node that is gone are outsiders", file: "policy/ruleset/frame.go",
			right: "slices.Concat(c.network.Vacated, nodes)", wrong: "slices.Concat(nodes)",
			pkg: "./policy/ruleset/walk", test: "TestNodeThatIsGone",
		},
	}
}
