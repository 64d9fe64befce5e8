package main

// inClaims let one member speak for another, or its old self.
func inClaims() []mistake {
	const pkg = "./overlay"
	return []mistake{
		{
			name: "another's name: a claim that nobody has signed", file: "overlay/claim.go",
			right: "if !key.Verify(", wrong: "if false && !key.Verify(",
			pkg: pkg, test: "TestLiesAreRefused/another's_name",
		},
		{
			name: "a bent signature", file: "overlay/claim.go",
			right: "c.signed(s.raw[:len(s.raw)-len(s.sig)]), s.sig)", wrong: "c.signed(s.raw[:len(s.raw)-len(s.sig)]), s.sig) && s.sig[63] == 0",
			pkg: pkg, test: "TestLiesAreRefused/bent_signature",
		},
		{
			name: "a claim of the Node object before", file: "overlay/claim.go",
			right: "{purpose, c.Node, c.UID}", wrong: "{purpose, c.Node}",
			pkg: pkg, test: "TestNoClaimForAnother", says: "a claim of the Node object before",
		},
		{
			name: "another's WireGuard key, without proof", file: "overlay/claim.go",
			right: "if !held.IsZero() && ", wrong: "if false && ",
			pkg: pkg, test: "TestLiesAreRefused/another's_key",
		},
		{
			name: "another's WireGuard key, with its own proof", file: "overlay/claim.go",
			right: "append(append(c.owner(\"kith lane key 1\"), byte(lane))", wrong: "append(append([]byte(\"kith lane key 1\"), byte(lane))",
			pkg: pkg, test: "TestNoClaimForAnother", says: "another's WireGuard key with its proof",
		},
		{
			name: "a forged proof of the WireGuard key", file: "overlay/possession.go",
			right: "return ed25519.Verify(public[:], message, proof[:])", wrong: "return len(message) > 0",
			pkg: pkg, test: "TestWireGuardKeys", says: "proof of another message",
		},
	}
}

// inOldClaims take what a node has said before, or more than there is time for.
func inOldClaims() []mistake {
	const pkg = "./overlay"
	return []mistake{
		{
			name: "an old epoch, by gossip", file: "overlay/ledger.go",
			right: "if s.Epoch() < a.claim.Epoch {\n\t\treturn oldEpoch(h.Name", wrong: "if false {\n\t\treturn oldEpoch(h.Name",
			pkg: pkg, test: "TestLiesAreRefused/old_epoch",
		},
		{
			name: "an old epoch, by the Node object", file: "overlay/ledger.go",
			right: "if s.Epoch() < a.claim.Epoch {\n\t\treturn oldEpoch(name", wrong: "if false {\n\t\treturn oldEpoch(name",
			pkg: pkg, test: "TestGossipMovesANode",
		},
		{
			name: "another's claim from one's own address", file: "overlay/ledger.go",
			right: "if !l.at(a.claim, h.Address) {", wrong: "if false {",
			pkg: pkg, test: "TestLiesAreRefused/another's_claim_at_the_own_address",
		},
		{
			name: "a flood of records under one name", file: "overlay/ledger.go",
			right: "if !a.budget.Take(now) || !l.budget.Take(now) {", wrong: "if !l.budget.Take(now) {",
			pkg: pkg, test: "TestFloodIsBounded",
		},
		{
			name: "an epoch that is used again", file: "cmd/kith-agent/speaker.go",
			right: "max(s.claim.Epoch+1, uint64(s.now().Unix()))", wrong: "uint64(s.now().Unix())",
			pkg: replays, test: "TestEpochsOnlyGrow",
		},
		{
			name: "a claim heard before it is on disk", file: "cmd/kith-agent/speaker.go",
			right: "if err == nil {\n\t\terr = s.folder.SaveOwn", wrong: "s.claim, s.sealed = next, sealed\n\tif err == nil {\n\t\terr = s.folder.SaveOwn",
			pkg: replays, test: "TestClaimIsOnDiskFirst",
		},
	}
}

// inSigningKeys let who may write Nodes speak for one.
func inSigningKeys() []mistake {
	const file, pkg = "overlay/ledger.go", "./overlay"
	return []mistake{
		{
			name: "another signing key under the same UID", file: file,
			right: "a.uid == n.UID && a.pinned && (", wrong: "a.uid == n.UID && false && (",
			pkg: pkg, test: "TestNobodyChangesASigningKey",
		},
		{
			name: "a signing key that holds until a restart", file: file,
			right: "(n.KeyHeld || l.accepts(n))", wrong: "l.accepts(n)",
			pkg: replays, test: "TestSigningKeysOutliveARestart",
		},
		{
			name: "a signing key accepted for the Node object before", file: "overlay/acceptance.go",
			right: "a.UID == n.UID && a.Key", wrong: "a.Key",
			pkg: pkg, test: "TestAcceptedKey",
		},
		{
			name: "a signing key that nobody was heard by holds", file: file,
			right: "a.pinned = !l.follows && (n.KeyHeld", wrong: "a.pinned = !l.follows && (true",
			pkg: pkg, test: "TestNodeThatWasNotHeard",
		},
		{
			name: "preshared keys agreed on with whom the Node object names", file: "cmd/kith-agent/lanes.go",
			right: "\t\tout = append(out, o)\n", wrong: "\t\to.party.Signing, _ = overlay.ParseSigningKey(n.SigningKey)\n\t\tout = append(out, o)\n",
			pkg: replays, test: "TestPresharedKeysGoByTheHeldKey",
		},
		{
			name: "a new gossip key takes accepted signing keys away", file: "cmd/kith/gossip.go",
			right: "if secret.Data == nil {", wrong: "if true {",
			pkg: "./cmd/kith", test: "TestRotationKeepsAcceptedKeys",
		},
	}
}

// inAdmissionCheck keep quiet about policies that hold nobody.
func inAdmissionCheck() []mistake {
	const file, test = "cmd/kith-agent/admission_policy.go", "TestWeakAdmissionPolicyIsNamed"
	return []mistake{
		{
			name: "a policy that only warns", file: file,
			right: "!slices.Contains(got.ValidationActions, admission1.Deny)", wrong: "len(got.ValidationActions) == 0",
			pkg: replays, test: test,
		},
		{
			name: "a policy with one more condition", file: file,
			right: "!within(got.MatchConditions, want.MatchConditions)", wrong: "!within(want.MatchConditions, got.MatchConditions)",
			pkg: replays, test: test,
		},
	}
}

// inNews are about what members hear of each other beside claims.
func inNews() []mistake {
	return []mistake{
		{
			name: "a torn file is believed", file: "overlay/disk/disk.go",
			right: "if !bytes.Equal(append(first, '\\n'), header(name, body)) {", wrong: "if false {",
			pkg: "./overlay/disk", test: "TestTornFileIsRefused",
		},
		{
			name: "gossip in clear", file: "overlay/gossip/gossip.go",
			right: "c.Keyring = g.keys\n", wrong: "",
			pkg: "./overlay/gossip", test: "TestNothingIsSaidInClear",
		},
		{
			name: "who floods is read", file: "overlay/gossip/gate.go",
			right: "case !s.packets.Take(g.now()):", wrong: "case false:",
			pkg: "./overlay/gossip", test: "TestAllIsCounted",
		},
		{
			name: "a member that nobody judges", file: "overlay/gossip/roster.go",
			right: "return r.judge.Hear(overlay.Heard{Name: n.Name, Address: addrPort(n), Record: n.Meta})",
			wrong: "_ = r.judge.Hear(overlay.Heard{Name: n.Name, Address: addrPort(n), Record: n.Meta})\n\treturn nil",
			pkg:   "./overlay/gossip", test: "TestRefusedMemberIsNoMember",
		},
		{
			name: "a member that is said to speak as nobody does", file: "overlay/gossip/roster.go",
			right: "if !understood(n) {", wrong: "if false && !understood(n) {",
			pkg: "./overlay/gossip", test: "TestRefusedMemberIsNoMember",
		},
		{
			name: "hints of strangers", file: "identity/announce/run.go",
			right: "if !known || from.Port() != a.port {", wrong: "if !known && false {",
			pkg: "./identity/announce", test: "TestStrangersAreNotHeard",
		},
		{
			name: "hints about another node's addresses", file: "identity/announce/run.go",
			right: "|| !sender.gives(h.Addresses)", wrong: "",
			pkg: "./identity/announce", test: "TestStrangersAreNotHeard",
		},
		{
			name: "hints that did not come by the mesh", file: "identity/announce/socket.go",
			right: "bpf.RetConstant{Val: 0}", wrong: "bpf.RetConstant{Val: 1 << 16}",
			pkg: "./identity/announce", test: "TestStrangersAreNotHeard",
		},
		{
			name: "probes of strangers", file: "overlay/probe/probe.go",
			right: "if !known || from.Port() != p.port {", wrong: "if !known && false {",
			pkg: "./overlay/probe", test: "TestStrangersGetNoAnswer",
		},
	}
}

// inSecrets lower what two nodes agree on.
func inSecrets() []mistake {
	const file, pkg = "overlay/preshared/preshared.go", "./overlay/preshared"
	return []mistake{
		{
			name: "a preshared key agreed on with anybody", file: "overlay/preshared/message.go",
			right: "if !from.Signing.Verify(", wrong: "if false && !from.Signing.Verify(",
			pkg: pkg, test: "TestRefused",
		},
		{
			name: "an old request for a preshared key", file: file,
			right: "case m.number <= a.secrets[pair].Number:", wrong: "case false:",
			pkg: pkg, test: "TestRefused",
		},
		{
			name: "a preshared key changed under a lane in use", file: file,
			right: "case o.InUse[m.lane]:", wrong: "case false:",
			pkg: pkg, test: "TestRefused",
		},
		{
			name: "a preshared key declined by a message that answers nothing", file: file,
			right: "if !ok || q.message.number", wrong: "if ok && q.message.number",
			pkg: pkg, test: "TestRefused",
		},
		{
			name: "a preshared key of other keys", file: file,
			right: "if m.own != o.Keys[m.lane] || m.other != o.Own[m.lane] {", wrong: "if false {",
			pkg: pkg, test: "TestRefused",
		},
		{
			name: "a preshared key that is not set", file: "overlay/diff.go",
			right: "if step.New {\n\t\tstep.Preshared = want.Preshared\n\t}\n", wrong: "",
			pkg: "./overlay", test: "TestPlanLeadsToTheWantedMesh",
		},
		{
			name: "a lane without its preshared key is sent on", file: "overlay/rotation/rotation.go",
			right: "case !in.carries(p, other) || p.Agreed[best] || !p.Agreed[other]:", wrong: "case true:",
			pkg: "./overlay/rotation", test: "TestLane",
		},
	}
}
