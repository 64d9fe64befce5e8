package ruleset

import (
	"net/netip"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
)

// Input is everything that a ruleset is made of.
type Input struct {
	Pods        []identity.Pod
	Namespaces  []identity.Namespace
	Policies    []policy.Policy
	Attachments []Attachment
	Network     Network
}

// MAC is an Ethernet address.
type MAC [6]byte

// Attachment is a pod's network interface on this node. It is opened once its pod and the pod's namespace are known.
type Attachment struct {
	Pod       identity.PodKey
	UID       string // of the pod; empty: any
	Interface string // the node's end of the veth
	MAC       MAC    // the pod's end
	Addresses []netip.Addr
}

// Network is what the guard and NAT chains need to know.
type Network struct {
	Node         string // which of Nodes is ours
	Nodes        []policy.Node
	Vacated      []netip.Prefix // pod CIDRs of nodes that are gone: their pods may be sent to for a while
	NoMasquerade []netip.Prefix // destinations outside of the cluster that see pods under their own addresses
	Ports        Ports
	Resets       bool // the kernel can answer with a TCP reset: a connection that it forgot ends, and does not hang
}

// Ports are where the mesh itself listens, on every node. Zero: nowhere.
type Ports struct {
	Gossip    uint16 // UDP and TCP
	WireGuard uint16 // UDP, of the first device; the second has the next
	Probe     uint16 // UDP, on mesh addresses
	Announce  uint16 // UDP, on mesh addresses
}

// Side is an end of connections.
type Side uint8

// The sides. Of the connections that others than pods open, a pod is the end that answers.
const (
	Opens Side = iota
	Answers
)

// Limit bounds how many connections an address may make in a second, besides what holds for all pods of this node.
type Limit struct {
	Address   netip.Addr
	Side      Side
	PerSecond uint32
}

// VethPrefix is the beginning of the name of every pod's veth.
const VethPrefix = "kith-"

// Devices are the mesh's interfaces.
var Devices = [...]string{"kith0", "kith1"}

// The sets whose elements open an attachment. In a transaction their elements come last.
const (
	SetPods4  = "pods4"  // interface . Ethernet source . source
	SetPods6  = "pods6"  // interface . Ethernet source . source
	SetOpened = "opened" // interfaces towards which packets may go
)

// Opens says that the element opens an attachment: what denies must be in the kernel before.
func (c ElementChange) Opens() bool {
	return c.Set == SetPods4 || c.Set == SetPods6 || c.Set == SetOpened
}

// Compile is the ruleset for an input.
func Compile(in Input) Ruleset { return CompilerOf(in).Ruleset() }

// CompilerOf is a compiler that has had an input.
func CompilerOf(in Input) *Compiler {
	c := NewCompiler()
	c.SetNetwork(in.Network)
	c.ReplaceNamespaces(in.Namespaces)
	c.ReplacePods(in.Pods)
	c.ReplacePolicies(in.Policies)
	c.ReplaceAttachments(in.Attachments)
	return c
}
