package walk

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
	"github.com/kithnet/kith/policy/ruleset"
)

// Paths is a cluster in which every node has its compiled ruleset.
type Paths struct {
	cluster policy.Cluster
	nodes   map[string]*node
	veths   map[netip.Addr]ruleset.Attachment
}

type node struct {
	policy.Node
	ruleset ruleset.Ruleset
}

// underlay is the name of the nodes' other interface.
const underlay = "eth0"

// Compile compiles a cluster for each of its nodes.
func Compile(c policy.Cluster) *Paths {
	p := &Paths{cluster: c, nodes: map[string]*node{}, veths: map[netip.Addr]ruleset.Attachment{}}
	for _, n := range c.Nodes {
		in := Input(c, n.Name)
		compiler := ruleset.CompilerOf(in)
		p.nodes[n.Name] = &node{n, compiler.Ruleset()}
		for _, e := range compiler.Lessons(c.Answers) {
			p.nodes[n.Name].ruleset.Sets[e.Set].Elements[e.Key] = e.Value
		}
		for _, a := range in.Attachments {
			for _, addr := range a.Addresses {
				p.veths[addr] = a
			}
		}
	}
	return p
}

// Ruleset is the ruleset of a node.
func (p *Paths) Ruleset(name string) ruleset.Ruleset { return p.nodes[name].ruleset }

// Input is the compiler's input on a node: an attachment for every pod with an address of the node, if the address is
// no newer pod's.
func Input(c policy.Cluster, name string) ruleset.Input {
	in := ruleset.Input{
		Pods: c.Pods, Namespaces: c.Namespaces, Policies: c.Policies,
		Network: ruleset.Network{Node: name, Nodes: c.Nodes},
	}
	n := slices.IndexFunc(c.Nodes, func(n policy.Node) bool { return n.Name == name })
	for i, p := range c.Pods {
		a := ruleset.Attachment{
			Pod: p.Key(), UID: p.UID, Interface: fmt.Sprintf("%s%010x", ruleset.VethPrefix, i),
			MAC: ruleset.MAC{2, 0, 0, 0, byte(n), byte(i)},
		}
		for _, addr := range p.Addresses {
			if hosts(c.Nodes[n], addr) && owns(c.Pods, p, addr) {
				a.Addresses = append(a.Addresses, addr)
			}
		}
		if len(a.Addresses) > 0 {
			in.Attachments = append(in.Attachments, a)
		}
	}
	return in
}

func owns(pods []identity.Pod, p identity.Pod, a netip.Addr) bool {
	return !slices.ContainsFunc(pods, func(q identity.Pod) bool { return slices.Contains(q.Addresses, a) && q.Newer(p) })
}

func hosts(n policy.Node, a netip.Addr) bool {
	return slices.ContainsFunc(n.PodCIDRs, func(p netip.Prefix) bool { return p.Contains(a) })
}

// Flow takes a flow's first packet, a later one and an answer through the cluster. The kernel decides connections, so
// all three must fare alike: an error says which did not.
func (p *Paths) Flow(f policy.Flow) (delivered bool, trace string, err error) {
	if a, pod := p.veths[f.Source]; pod && !f.Hairpin && p.veths[f.Destination].Interface == a.Interface {
		return true, "", nil // the pod's own loopback delivers it
	}
	var fates []string
	for _, conn := range []Conn{
		{State: ruleset.StateNew, Direction: ruleset.Original},
		{State: ruleset.StateEstablished, Direction: ruleset.Original},
		{State: ruleset.StateEstablished, Direction: ruleset.Reply},
	} {
		conn.Original, conn.Reply = p.shown(f), f.Destination
		by, err := p.packet(f, conn)
		if err != nil {
			return false, "", err
		}
		fates = append(fates, by)
	}
	for _, by := range fates {
		if (by == "") != (fates[0] == "") {
			return false, "", fmt.Errorf("walk %v: packets of one connection fare differently: %q", f, fates)
		}
	}
	return fates[0] == "", strings.Join(fates, "; "), nil
}

// shown is the address that a node's packets bear in the mesh.
func (p *Paths) shown(f policy.Flow) netip.Addr {
	from, to := p.home(f.Source), p.home(f.Destination)
	if from == nil || to == nil || from == to || !slices.Contains(from.Addresses, f.Source) {
		return f.Source
	}
	return pickFamily(from.Mesh, f.Source)
}

// packet takes one packet along its way. It returns who dropped it.
func (p *Paths) packet(f policy.Flow, conn Conn) (string, error) {
	pkt := Packet{Source: conn.Original, Destination: f.Destination, Protocol: uint8(f.Protocol), Conn: conn}
	if f.Protocol == identity.TCP || f.Protocol == identity.UDP || f.Protocol == identity.SCTP {
		pkt.Ports = &Ports{Source: 40000, Destination: f.Port}
	}
	if f.Protocol == identity.TCP {
		pkt.TCPFlags = 16
		if conn.State == ruleset.StateNew {
			pkt.TCPFlags = 2
		}
	}
	if conn.Direction == ruleset.Reply {
		pkt.Source, pkt.Destination = pkt.Destination, pkt.Source
		if pkt.Ports != nil {
			pkt.Ports = &Ports{Source: f.Port, Destination: 40000}
		}
	}
	for _, h := range p.route(pkt.Source, pkt.Destination) {
		by, err := h.take(&pkt)
		if by != "" || err != nil {
			return by, err
		}
	}
	return "", nil
}

// hop is a packet's way through one node.
type hop struct {
	node     *node
	in, out  string // empty: the node's own
	mac      *ruleset.MAC
	underlay netip.Addr
}

// home is the node that an address belongs to, nil for one outside of the cluster.
func (p *Paths) home(a netip.Addr) *node {
	for _, n := range p.nodes {
		if hosts(n.Node, a) || slices.Contains(n.Addresses, a) {
			return n
		}
	}
	return nil
}

// unknown says whether an address is one for a node's pods, and nobody knows of which. That node knows better and decides by
// what it knows: it is left out of the way.
func (p *Paths) unknown(n *node, a netip.Addr) bool {
	_, pod := p.veths[a]
	return n != nil && hosts(n.Node, a) && !pod && !slices.Contains(n.Mesh, a)
}

// route is the nodes on the way from one address to another.
func (p *Paths) route(src, dst netip.Addr) []hop {
	from, to := p.home(src), p.home(dst)
	var hops []hop
	local := from == to
	meshed := to != nil && hosts(to.Node, dst)
	if from != nil && !p.unknown(from, src) {
		h := hop{node: from, out: underlay, underlay: pickFamily(from.Addresses, src)}
		if a, ok := p.veths[src]; ok {
			h.in, h.mac = a.Interface, &a.MAC
		}
		switch a, pod := p.veths[dst]; {
		case local && pod:
			h.out = a.Interface
		case local:
			h.out = ""
		case meshed:
			h.out = ruleset.Devices[0]
		}
		hops = append(hops, h)
	}
	if to == nil || local || p.unknown(to, dst) {
		return hops
	}
	h := hop{node: to, in: underlay, underlay: pickFamily(to.Addresses, dst)}
	if from != nil && meshed && hosts(from.Node, src) {
		h.in = ruleset.Devices[0]
	}
	if a, ok := p.veths[dst]; ok {
		h.out = a.Interface
	}
	return append(hops, h)
}

func pickFamily(as []netip.Addr, like netip.Addr) netip.Addr {
	for _, a := range as {
		if a.Is4() == like.Is4() {
			return a
		}
	}
	return netip.Addr{}
}

// take takes a packet through the hooks of a node. What is masqueraded goes on under another source, and the next node
// knows nothing else of the connection.
func (h hop) take(p *Packet) (string, error) {
	p.In, p.Out, p.EtherSource, p.Address = h.in, h.out, h.mac, h.underlay
	var hooks []string
	switch {
	case h.in != "" && h.out != "":
		hooks = []string{"prerouting", "forward", "postrouting"}
	case h.in != "":
		hooks = []string{"prerouting", "input"}
	case h.out != "":
		hooks = []string{"output", "postrouting"}
	}
	for _, hook := range hooks {
		at := *p
		if hook == "prerouting" || hook == "input" {
			at.Out = ""
		}
		if hook == "postrouting" || hook == "output" {
			at.In, at.EtherSource = "", nil
		}
		if hook == "prerouting" && at.In == underlay && hosts(h.node.Node, at.Destination) {
			at.Destination = h.underlay // who comes from outside comes to a port of the node
		}
		if hook == "postrouting" && at.Out == underlay && at.Conn.Direction == ruleset.Reply {
			at.Source = h.underlay // who came from outside came to a port of the node, and is answered from there
		}
		r, err := Hook(h.node.ruleset, hook, at)
		if err != nil {
			return "", fmt.Errorf("%s: %w", h.node.Name, err)
		}
		if r.Dropped {
			return h.node.Name + " " + hook + " " + r.By, nil
		}
		if r.Masquerade {
			p.Source, p.Conn.Original = h.underlay, h.underlay
		}
	}
	return "", nil
}
