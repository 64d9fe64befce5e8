package ruleset

import "github.com/kithnet/kith/identity"

// The chains for what goes to a port where nodes listen for each other. A packet of a reply only has the number.
const (
	farPorts = "far_ports" // of some node
	ownPorts = "own_ports" // of this node
	meshOnly = "mesh_only" // of this node, out of the mesh
)

// portChains keep pods from the mesh's own ports, whatever the policies are: there a pod would speak as the node whose
// address it is masqueraded behind. Nobody reaches these ports by a Service, and in the mesh only nodes do.
func portChains() []Chain {
	reply := Rule{Exprs: []Expr{Direction{Reply}, Verdict{Kind: Return}}}
	return []Chain{
		{ChainSpec{farPorts, nil}, []Rule{reply, drop(isIn(setNodes4, IPDestination)), drop(isIn(setNodes6, IP6Destination))}},
		{ChainSpec{ownPorts, nil}, []Rule{reply, drop()}},
		{ChainSpec{meshOnly, nil}, []Rule{
			{Exprs: []Expr{isIn(setMeshes4, IPSource), Verdict{Kind: Return}}},
			{Exprs: []Expr{isIn(setMeshes6, IP6Source), Verdict{Kind: Return}}},
			reply, drop(),
		}},
	}
}

// keys are the elements for the ports.
func (p Ports) keys() []Key {
	var keys []Key
	for _, l := range []struct {
		protocol identity.Protocol
		port     uint16
		count    uint16
	}{{identity.UDP, p.Gossip, 1}, {identity.TCP, p.Gossip, 1}, {identity.UDP, p.WireGuard, uint16(len(Devices))}, {identity.UDP, p.Probe, 1}, {identity.UDP, p.Announce, 1}} {
		for n := range l.count {
			if l.port != 0 {
				keys = append(keys, exactKey(protocolPart(uint8(l.protocol)), portPart(l.port+n, l.port+n)))
			}
		}
	}
	return keys
}
