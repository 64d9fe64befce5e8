package main

// inGuard take out a part of the guard that holds whatever the policies are. The kernel shows that it is missed.
func inGuard() []mistake {
	const file, pkg = "policy/ruleset/frame.go", "./policy/nft"
	return []mistake{
		{
			name: "a pod sends under any address", file: file, tags: inKernel,
			right: "accept(isIn(SetPods4, InInterface, EtherSource, IPSource)),", wrong: "accept(isIn(SetOpened, InInterface)),",
			pkg: pkg, test: "TestPodsSendUnderTheirOwnAddresses/IPv4", says: "another pod's: passes true",
		},
		{
			name: "a pod sends under another MAC", file: file, tags: inKernel,
			right: "accept(isIn(SetPods6, InInterface, EtherSource, IP6Source)),", wrong: "accept(isIn(SetOpened, InInterface), isIn(setOwn6, IP6Source)),",
			pkg: pkg, test: "TestPodsSendUnderTheirOwnAddresses/IPv6", says: "its own, another MAC: passes true",
		},
		{
			name: "a pod reaches its node's loopback", file: file, tags: inKernel,
			right: "\t\t\tdrop(isIn(setLoopback, IPDestination)),\n", wrong: "",
			pkg: pkg, test: "TestPodsDoNotReachTheLoopback", says: "127.0.0.1: arrives true",
		},
		{
			name: "pods show themselves to nodes", file: file, tags: inKernel,
			right: "\t\trule(isIn(setOwn4, IPSource), isIn(setNodes4, IPDestination), Masquerade{}),\n", wrong: "",
			pkg: pkg, test: "TestNodesSeeNodes", says: "a node sees 10.244.1.10",
		},
		{
			name: "router advertisements of a pod, under its own address", file: file, tags: inKernel,
			right: "drop(ICMPType{58, icmp6RouterAdvertisement}),\n", wrong: "",
			pkg: pkg, test: "TestNeighbourMessagesOfPods", says: "ICMPv6 type 134",
		},
		{
			name: "redirects of a pod", file: file, tags: inKernel,
			right: "drop(ICMPType{58, icmp6Redirect}),\n", wrong: "",
			pkg: pkg, test: "TestNeighbourMessagesOfPods", says: "ICMPv6 type 137",
		},
		{
			name: "neighbour messages under another pod's address", file: file, tags: inKernel,
			right: "accept(isIn(SetOpened, InInterface), isIn(setLinkLocal, IP6Source), ICMPType{58, icmp6NeighborSolicitation})",
			wrong: "accept(isIn(SetOpened, InInterface), ICMPType{58, icmp6NeighborSolicitation})",
			pkg:   pkg, test: "TestNeighbourMessagesOfPods", says: "ICMPv6 type 135",
		},
		{
			name: "a closed attachment passes what is for it", file: file,
			right: "accept(isIn(SetOpened, OutInterface)), drop()}}", wrong: "accept(isIn(SetOpened, OutInterface))}}",
			pkg: "./policy/ruleset/walk", test: "TestGuards/to_a_closed_veth",
		},
		{
			name: "segments that do not fit the way", file: file, tags: inKernel,
			right: "\t\t\trule(ClampMSS{}),\n", wrong: "",
			pkg: pkg, test: "TestSegmentsFitTheRoute/IPv6",
		},
	}
}

// inErrors let ICMP errors carry what policies deny.
func inErrors() []mistake {
	const file, pkg, test = "policy/ruleset/errors.go", "./policy/nft", "TestErrorsComeFromEndsOfTheirConnection/IPv4"
	return []mistake{
		{
			name: "a pod's error about any connection", file: file, tags: inKernel,
			right: "to(podErrors, Protocol{protocol}", wrong: "to(errorKinds, Protocol{protocol}",
			pkg: pkg, test: test, says: "a pod to an isolated pod: passes true",
		},
		{
			name: "a stranger's error about a connection in the mesh", file: file,
			right: "drop(isIn(setCluster4, OriginalSource), isIn(setCluster4, ReplySource)),", wrong: "",
			pkg: "./policy/ruleset/walk", test: "TestErrorsFromAfar",
		},
		{
			name: "a pod's error about no connection", file: file, tags: inKernel,
			right: "unknown = append(unknown, drop(t))", wrong: "unknown = append(unknown, accept(t))",
			pkg: pkg, test: test, says: "a pod to one of no policy, of nobody's: passes true",
		},
		{
			name: "a node's error about others' connections", file: file,
			right: "to(meshErrors, Protocol{protocol}", wrong: "to(errorKinds, Protocol{protocol}",
			pkg: "./policy/ruleset/walk", test: "TestErrorsFromAfar",
		},
	}
}

// inMeshPorts let pods speak where nodes hear each other.
func inMeshPorts() []mistake {
	const file, pkg, test = "policy/ruleset/frame.go", "./policy/nft", "TestPodsDoNotReachTheMeshsPorts/IPv4"
	const ports = "isIn(setMeshPorts, L4Proto, DestinationPort)),\n"
	return []mistake{
		{
			name: "pods reach other nodes' mesh ports", file: file, tags: inKernel,
			right: "\t\t\tcall(farPorts, in(veths), " + ports, wrong: "",
			pkg: pkg, test: test, says: "pod to another node, UDP port 7946: arrives true",
		},
		{
			name: "pods reach their node's mesh ports", file: file, tags: inKernel,
			right: "\t\tcall(ownPorts, in(veths), " + ports, wrong: "",
			pkg: pkg, test: test, says: "pod to its node, UDP port 7946: arrives true",
		},
		{
			name: "a node port leads to the mesh's ports", file: file, tags: inKernel,
			right: "\t\tcall(ownPorts, Translated{}, " + ports, wrong: "",
			pkg: pkg, test: test, says: "stranger by a node port, UDP port 8001: arrives true",
		},
		{
			name: "remote pods reach the mesh's ports", file: file, tags: inKernel,
			right: "return call(meshOnly, in(device), ", wrong: "return call(passed, in(device), ",
			pkg: pkg, test: test, says: "remote pod, UDP port 7947: arrives true",
		},
	}
}

// inBorders let pods' packets in or out beside the mesh.
func inBorders() []mistake {
	const file, pkg = "policy/ruleset/frame.go", "./policy/nft"
	return []mistake{
		{
			name: "packets in clear from the underlay", file: file,
			right: "\t\t\t\tdrop(isIn(setCluster4, IPSource)),\n", wrong: "",
			pkg: "./policy/ruleset/walk", test: "TestGuards/pod_in_clear_to_the_node",
		},
		{
			name: "packets in clear from the underlay, IPv6", file: file,
			right: "\t\t\t\tdrop(isIn(setCluster6, IP6Source)),\n", wrong: "",
			pkg: "./policy/ruleset/walk", test: "TestGuards/pod_in_clear_to_the_node_over_IPv6",
		},
		{
			name: "packets in clear to the underlay, IPv6", file: file, tags: inKernel,
			right: "\t\t\t\tdrop(isIn(setCluster6, IP6Destination)),\n", wrong: "",
			pkg: pkg, test: "TestPodAddressesNeverOnTheUnderlay/IPv6", says: "packet to a remote pod left by the underlay",
		},
		{
			name: "packets in clear while the mesh has no route", file: file, tags: inKernel,
			right: `				drop(isIn(setCluster4, IPDestination)),
				drop(isIn(setCluster6, IP6Destination)),
				// Whatever NAT did not take for masquerading, such as a packet that belongs to no connection.
				drop(isIn(setOwn4, IPSource), notIn(IPDestination, setNoMasq4)),
`,
			wrong: "", pkg: replays, test: "TestNothingLeavesInClear/route_deleted", says: "with pod addresses on the cable",
		},
		{
			name: "packets without translation leave the cluster", file: file, tags: inKernel,
			right: "\t\t\t\tdrop(isIn(setOwn4, IPSource), notIn(IPDestination, setNoMasq4)),\n", wrong: "",
			pkg: pkg, test: "TestConnectionsToANodeThatIsGone/IPv4", says: "a packet of the connection left by the underlay",
		},
		{
			name: "the underlay delivers to pods", file: file, tags: inKernel,
			right: "\t\t\t\tdrop(isIn(setCluster4, IPDestination), notIn(IPSource, setNoMasq4)),\n", wrong: "",
			pkg: pkg, test: "TestUnderlayDoesNotReachPods/IPv4", says: "a stranger: reaches a pod true",
		},
		{
			name: "a node port launders a pod's address", file: file, tags: inKernel,
			right: "rule(isIn(setOwn4, IPSource), KeepSource{IPSource})", wrong: "accept(isIn(setOwn4, IPSource))",
			pkg: pkg, test: "TestPodsKeepTheirAddressByANodePort/IPv4", says: "a pod is seen as",
		},
		{
			name: "a node port launders a pod's address, by the order of registration", file: file, tags: inKernel,
			right: "prioritySourceNAT = 99", wrong: "prioritySourceNAT = 100",
			pkg: pkg, test: "TestPodsKeepTheirAddressByANodePort/IPv4", says: "first: a pod is seen as",
		},
		{
			name: "a process of the node speaks as another node", file: file, tags: inKernel,
			right: "accept(in(\"lo\"), isIn(setMesh4, IPSource)),\n\t\t\t\taccept(in(\"lo\"), isIn(setMesh6, IP6Source)),", wrong: "accept(in(\"lo\")),",
			pkg: pkg, test: "TestNodeIsOnlyItself", says: "as another node's: arrives true",
		},
		{
			name: "the mesh leads through this node to others", file: file, tags: inKernel,
			right: "accept(isIn(setOwn6, IP6Destination)),\n\t\t\tdrop(),", wrong: "accept(isIn(setOwn6, IP6Destination)),",
			pkg: pkg, test: "TestMeshLeadsToThisNodesPodsOnly", says: "the node's address: reached true",
		},
	}
}

// inLives are about what is there before an agent, after it, and beside it.
func inLives() []mistake {
	return []mistake{
		{
			name: "a node that is open until its agent knows all", file: "cmd/kith-agent/enforcer.go",
			right: "if err := e.table.Apply(ctx, ruleset.Diff(have, e.found)); err != nil {\n\t\treturn fmt.Errorf(\"write closed", wrong: "if err := ctx.Err(); err != nil && false {\n\t\treturn fmt.Errorf(\"write closed",
			pkg: replays, test: "TestNodeIsClosedFirstAndStaysSo",
		},
		{
			name: "an agent that takes the guard with it when it ends", file: "cmd/kith-agent/enforcer.go",
			right: "case <-ctx.Done():\n\t\t\treturn nil\n\t\tcase u := <-e.updates:", wrong: "case <-ctx.Done():\n\t\t\treturn e.table.Apply(ctx, ruleset.Diff(e.found, ruleset.Ruleset{}))\n\t\tcase u := <-e.updates:",
			pkg: replays, test: "TestNodeIsClosedFirstAndStaysSo",
		},
		{
			name: "pods name the way of their packets", file: "cni/upkeep.go", tags: inKernel,
			right: "\t\t{Family: v4, Name: \"accept_source_route\", Value: \"0\"},\n", wrong: "",
			pkg: "./cni/veth", test: "TestPodsNameNoWay", says: "ipv4: the pod's interface has accept_source_route=1",
		},
		{
			name: "the node remembers whom a pod invents", file: "cni/veth/veth.go", tags: inKernel,
			right: "setHost(a); err != nil {\n\t\treturn err\n\t}\n\tif err := netlink.LinkSetARPOff(link)", wrong: "setHost(a); err != nil {\n\t\treturn err\n\t}\n\tif err := error(nil)",
			pkg: "./cni/veth", test: "TestPodsFillNoNeighbourTable", says: "ARP requests under invented addresses: the node remembers 200 neighbours",
		},
		{
			name: "the node remembers whom an older pod invents", file: "cni/veth/sysctl.go", tags: inKernel,
			right: `"/arp_ignore", "8"`, wrong: `"/arp_ignore", "0"`,
			pkg: "./cni/veth", test: "TestPodsOfBeforeFillNoNeighbourTable", says: "the node remembers 200 neighbours",
		},
		{
			name: "a pod asks for neighbours by the hundred", file: "cni/veth/veth.go", tags: inKernel,
			right: "setPod(a); err != nil {\n\t\treturn err\n\t}\n\tif err := netlink.LinkSetARPOff(link)", wrong: "setPod(a); err != nil {\n\t\treturn err\n\t}\n\tif err := error(nil)",
			pkg: "./cni/veth", test: "TestPodWithoutRightsFillsNoNeighbourTable", says: "waits for 400 neighbours",
		},
		{
			name: "neighbours that pods can change", file: "cni/veth/objects.go", tags: inKernel,
			right: "netlink.NUD_PERMANENT", wrong: "netlink.NUD_REACHABLE",
			pkg: "./cni/veth", test: "TestForgedNeighboursChangeNothing",
		},
		{
			name: "a preshared key that the device does not get", file: "overlay/wireguard/peers.go", tags: inKernel,
			right: "config.PresharedKey = &preshared", wrong: "_ = preshared",
			pkg: "./overlay/wireguard", test: "TestPresharedKeyIsOfBoth",
		},
		{
			name: "a mesh device that ends with wireguard-go", file: "overlay/wireguard/userspace/tun.go", tags: inKernel,
			right: "unix.TUNSETPERSIST, 1", wrong: "unix.TUNSETPERSIST, 0",
			pkg: "./overlay/wireguard", test: "TestProcessRestartKeepsTheTunnel",
		},
	}
}
