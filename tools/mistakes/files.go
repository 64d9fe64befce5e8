package main

// inFiles are mistakes in what is read from files and written to them, and in what that means.
func inFiles() []mistake {
	return []mistake{
		{
			name: "rules of a direction that is left out hold all the same", file: "policy/kube/translate.go",
			right: "\tif egress {\n\t\tp.Egress = &out", wrong: "\tif egress || len(out) > 0 {\n\t\tp.Egress = &out",
			pkg: "./policy/kube", test: "TestRulesWithoutEffect",
		},
		{
			name: "a pod's own address is taken for a Service's", file: "policy/decide.go",
			right: "src.Key() == dst.Key() && !f.Hairpin {", wrong: "src.Key() == dst.Key() && f.Hairpin {",
			pkg: "./policy/ruleset/walk", test: "TestDecideIsWhatTheRulesetDoes",
		},
		{
			name: "a policy behind a forgotten --- is lost", file: "cmd/kith/manifest/unique.go",
			right: "twice && key.Kind == yaml.ScalarNode {", wrong: "twice && key.Kind == yaml.ScalarNode && up != nil {",
			pkg: "./cmd/kith/manifest", test: "TestAllMistakes",
		},
		{
			name: "a list of CNI 1.1.0 alone", file: "cni/conflist/conflist.go",
			right: "oldestVersion = \"1.0.0\"", wrong: "oldestVersion = \"1.1.0\"",
			pkg: "./cni/conflist", test: "TestRenderGolden",
		},
		{
			name: "the agent is not asked where a delegate fails", file: "cmd/kith-cni/main.go",
			right: "\tif err := agent(conf).Del(ctx, call(cni.CommandDel, args)); err != nil {",
			wrong: "\tif failed != nil {\n\t\treturn failed\n\t}\n\tif err := agent(conf).Del(ctx, call(cni.CommandDel, args)); err != nil {",
			pkg:   "./cmd/kith-cni", test: "TestFailingDelegateKeepsNothing",
		},
		{
			name: "all pods wait for portmap", file: "cni/delegate.go",
			right: "!= nil || len(ports) > 0", wrong: "!= nil || len(ports) >= 0",
			pkg: "./cmd/kith-cni", test: "TestDelegatesAreAskedForTheirPods",
		},
	}
}
