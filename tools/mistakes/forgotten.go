package main

// inForgotten let connections hang that the kernel's table has lost, or end others.
func inForgotten() []mistake {
	const file, pkg, test = "policy/ruleset/frame.go", "./policy/nft", "TestForgottenConnectionsEnd/IPv4"
	return []mistake{
		{
			name: "a lost connection hangs", file: "policy/ruleset/forgotten.go", tags: inKernel,
			right: "	if !n.Resets {\n", wrong: "	if n.Node != \"\" {\n", pkg: pkg, test: test, says: "hangs",
		},
		{
			name: "what is invalid ends a connection", file: file,
			right: "call(closed, State{StateInvalid | StateUntracked})", wrong: "call(lost, State{StateInvalid | StateUntracked})",
			pkg: "./policy/ruleset/walk", test: "TestOnlyTheLostAreReset",
		},
		{
			name: "the node does not hear its own resets", file: file, tags: inKernel,
			right: "\t\t\t\taccept(in(\"lo\"), State{StateRelated}, ResetFlag{}), // the kernel's own, see forgottenChains\n", wrong: "",
			pkg: pkg, test: test, says: "the node, the",
		},
	}
}

// inOwner leave the table to others.
func inOwner() []mistake {
	const file, pkg = "policy/nft/owner.go", "./policy/nft"
	return []mistake{
		{
			name: "anybody may flush the table", file: file, tags: inKernel,
			right: "flagsOfOwn  = 2 | 4", wrong: "flagsOfOwn  = 4", pkg: pkg, test: "TestNobodyOpensTheTable/IPv4", says: "a denied packet arrived",
		},
		{
			name: "the table goes with its owner", file: file, tags: inKernel,
			right: "flagsOfOwn  = 2 | 4", wrong: "flagsOfOwn  = 2", pkg: pkg, test: "TestNobodyOpensTheTable/IPv4", says: "a denied packet arrived after the owner's end",
		},
		{
			name: "nobody takes over what an agent left", file: file, tags: inKernel,
			right: "if !t.socket.found(flags & flagsOfOwn) {", wrong: "if t.socket.found(flags & flagsOfOwn); true {",
			pkg: pkg, test: "TestNobodyOpensTheTable/IPv4", says: "the next owner's table went with all others",
		},
	}
}
