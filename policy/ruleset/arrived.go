package ruleset

// The chains for what a Service of the kernel's IP Virtual Server takes out of the input hook, and sends on by the output
// hook: such a packet never sees the forward hook.
const (
	byIPVS     = "by_ipvs"     // on its way to its sender's chains
	byIPVSHere = "by_ipvs_for" // on its way to its receiver's
)

// ArrivedBit is the bit of a packet's mark that says that it arrived from outside of this node. A packet that this node
// makes has a mark of its own.
const ArrivedBit = 1 << 24

// priorityOwn is behind IPVS in the input hook, which is at 98 and 99 (NF_IP_PRI_NAT_SRC - 2): what it takes never comes here.
const priorityOwn = 110

// ipvsChains lead packets that IPVS forwards through the same chains as those that the node forwards. At the output hook
// IPVS has chosen the real server and written it into the connection, as kube-proxy has it do (net.ipv4.vs.conntrack).
func ipvsChains() []Chain {
	reply := to(ownNode, Direction{Reply})
	return []Chain{
		{ChainSpec{byIPVS, nil}, []Rule{
			reply,
			rule(ClampMSS{}),
			call(farPorts, isIn(setMeshPorts, L4Proto, DestinationPort)),
			call(closed, State{StateInvalid | StateUntracked}),
			call(lost, State{StateNew}, NotSYN{}),
			to(senders),
		}},
		{ChainSpec{"output_ingress", &Hook{"filter", "output", priorityIngress}}, []Rule{to(byIPVSHere, Arrived{}, out(VethPrefix+"*"))}},
		{ChainSpec{byIPVSHere, nil}, append([]Rule{
			accept(Direction{Reply}),
			drop(notIn(OutInterface, SetOpened)),
		}, receivers()...)},
		{ChainSpec{"to_node", &Hook{"filter", "input", priorityOwn}}, []Rule{
			accept(State{StateRelated}),
			to(ownNode, in(VethPrefix+"*")),
		}},
	}
}

// receivers lead a packet to its receiver's chains.
func receivers() []Rule {
	return []Rule{
		decide(ReplySource, mapAdminIngress4), decide(ReplySource6, mapAdminIngress6),
		decide(ReplySource, mapIngress4), decide(ReplySource6, mapIngress6),
	}
}
