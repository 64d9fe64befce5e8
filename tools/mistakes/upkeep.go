package main

// inUpkeep give a deleted pod its route back, or meddle with operations.
func inUpkeep() []mistake {
	const agent, keeper = "./cmd/kith-agent", "cmd/kith-agent/upkeep.go"
	return []mistake{
		{
			name: "a deleted pod's route comes back", file: keeper,
			right: "if !there || !a.Complete {", wrong: "if a = d.Attachment; false && there {",
			pkg: agent, test: "TestUpkeepRevivesNobody",
		},
		{
			name: "an interface is put right amid its ADD", file: "cni/upkeep.go",
			right: "if !a.Complete {", wrong: "if false {",
			pkg: "./cni", test: "TestDamages/ADD_is_running",
		},
		{
			name: "an interface is put right amid an operation", file: "cni/server/locks.go",
			right: "\tcase lock.held <- struct{}{}:\n\tdefault:\n\t\tl.leave(id, lock)\n\t\tl.everyone.Release(1)\n\t\treturn nil, false\n", wrong: "\tcase lock.held <- struct{}{}:\n\tdefault:\n\t\treturn func() {}, true\n",
			pkg: "./cni/server", test: "TestHold", says: "held during ADD",
		},
		{
			name: "an interface is put right whose DEL is pending", file: "cni/server/server.go",
			right: "if free && s.Pending.Has(k) {", wrong: "if false {",
			pkg: "./cni/server", test: "TestHold", says: "a DEL is pending",
		},
		{
			name: "nobody looks again when an operation has ended", file: "cni/server/locks.go",
			right: "return func() { l.release(id, lock); l.ended() }, nil", wrong: "return func() { l.release(id, lock) }, nil",
			pkg: "./cni/server", test: "TestHold", says: "nothing is heard",
		},
		{
			name: "two programs undo each other as fast as they can", file: keeper,
			right: "if u.times < undoneOften {", wrong: "if true {",
			pkg: agent, test: "TestUpkeepDoesNotFight",
		},
	}
}

// inUndone leave what others undid of pods' interfaces and of the mesh.
func inUndone() []mistake {
	const veth, kernel = "./cni/veth", "cni/veth/watch.go"
	return []mistake{
		{
			name: "a neighbour that goes is not noticed", file: kernel, tags: inKernel,
			right: "case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:\n\t\treturn w.has(index(m.Data, 4)) && ofOnePod(m.Data)", wrong: "case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:\n\t\treturn false",
			pkg: veth, test: "TestWhatOthersChangeIsPutRight/ip_neigh_del_10.1.0.2_dev_HOST", says: "nothing is signalled",
		},
		{
			name: "a pod has the node read all as often as it likes", file: kernel, tags: inKernel,
			right: "return m.Header.Type == unix.RTM_DELLINK ||", wrong: "return true ||",
			pkg: veth, test: "TestPodsMakeNoWork", says: "has all read",
		},
		{
			name: "a route that is replaced is not noticed", file: kernel, tags: inKernel,
			right: "return m.Header.Flags&unix.NLM_F_REPLACE != 0 && ofOneAddress(m.Data)", wrong: "return false",
			pkg: veth, test: "TestWhatOthersChangeIsPutRight/ip_route_replace_10.1.0.2_dev_lo", says: "nothing is signalled",
		},
		{
			name: "a node that forwards no more is not noticed", file: kernel, tags: inKernel,
			right: "groupIPv4Netconf, groupIPv6Netconf,\n", wrong: "groupIPv6Netconf,\n",
			pkg: veth, test: "TestForwardingIsWatched", says: "nothing is signalled",
		},
		{
			name: "a removed interface is another's of its name", file: "cni/veth/restore.go", tags: inKernel,
			right: "if !isHostSide(link) {\n\t\treturn fmt.Errorf(\"restore", wrong: "if false {\n\t\treturn fmt.Errorf(\"restore",
			pkg: veth, test: "TestOtherInterfacesStay", says: "restored a bridge",
		},
		{
			name: "nobody hears of the mesh's settings", file: "overlay/wireguard/watch.go", tags: inKernel,
			right: "unix.RTNLGRP_IPV6_ROUTE, groupIPv4Netconf, groupIPv6Netconf,", wrong: "unix.RTNLGRP_IPV6_ROUTE,",
			pkg: "./overlay/wireguard", test: "TestWhatIsDeletedByHandComesBack", says: "no signal",
		},
	}
}
