// Package overlay models the encrypted mesh between nodes as one value.
//
// Input: what this node is (Local), what the API server says of all nodes (Node),
// what each says of itself (Claim), signed and judged by a Ledger, and how this node
// sends to them (Path). Grant turns what Node objects ask for into what their nodes
// may have, within Bounds. Output of Compute, which takes nodes as granted: the Mesh
// this node's kernel should hold, and the Problems met on the way. Diff turns the Mesh the kernel has and the Mesh it
// should have into a Plan of minimal, ordered steps.
//
// The mesh has two lanes: WireGuard devices with keys of their own. Every node is a
// peer on both and is heard on both; which one a node sends on is the device of the
// route alone. So the keys of a lane that nobody sends on can change without loss.
//
// Invariants:
//   - Allowed IPs and routes come from Node.PodCIDRs alone, which Grant alone fills. A claim gives a peer
//     its keys and endpoints, and nothing of another node: it holds only if it
//     verifies with the signing key that the Node object names, is of the highest
//     epoch seen, and proves that the node holds its WireGuard keys.
//   - A signing key by which a node was heard holds for as long as its Node object
//     lives. Another under the same UID needs an Acceptance.
//   - Every address belongs to at most one node: the node created first (then the
//     smaller name) keeps a contested CIDR or key, the other is refused and told.
//   - What a node says of its addresses takes nothing from another: an address
//     within a pod CIDR is no place to send WireGuard's packets to.
//   - A member that gossip calls dead keeps its peer; a peer goes with its Node.
//   - The order of the input does not matter. Diff(m, m) is empty.
//   - No step of a Plan takes an allowed IP away before its new holder has it.
//   - A handshake that the kernel tells of is one of the keys that it has now.
//
// Out of scope: keys other than public ones, sockets, the kernel, the clock, and
// who may write a Node object.
package overlay

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// Annotations under which a node publishes itself on its own Node object: the key
// that its claims are judged by, and its claim, sealed and in base64.
const (
	SigningKeyAnnotation = "kith.network/signing-public-key"
	ClaimAnnotation      = "kith.network/claim"
)

// Local is this node, as its configuration and its key file describe it.
type Local struct {
	Name        string
	Keys        [Lanes]Key
	Devices     [Lanes]string
	ListenPort  uint16 // of lane 0; lane 1 listens on the next
	Underlay    Family
	UnderlayMTU int
	Keepalive   time.Duration
}

// Node is what the core needs of a Kubernetes Node object. SigningKey and Claim are
// the annotations as written; empty means absent.
type Node struct {
	Name        string
	UID         string
	Created     time.Time
	Requested   []netip.Prefix // spec.podCIDRs, a claim: only Grant reads it
	PodCIDRs    []netip.Prefix // those of Requested that Grant gave
	InternalIPs []netip.Addr
	ExternalIPs []netip.Addr
	Reached     []netip.Addr // by which its claim says that others reach it, one of a family; Ledger.Reached fills it
	Addresses   []netip.Addr // those of all three that Grant lets policies know the node by; this and Labels are for policies alone
	Labels      map[string]string
	SigningKey  string
	Claim       string
	KeyHeld     bool // SigningKey holds against another under the same UID (see Ledger); no Node object says this
}

// maxAddresses bounds what one Node costs those who look for it.
const maxAddresses = 8

// Underlay are the addresses at which other nodes look for this one: the first few that its status names. A kubelet
// writes them as it likes.
func (n Node) Underlay() []netip.Addr {
	return n.InternalIPs[:min(len(n.InternalIPs), maxAddresses)]
}

// Member is what gossip says of a node: where it gossips, and whether it lives.
type Member struct {
	Name    string
	Address netip.AddrPort
	Alive   bool
}

// Path is how this node sends to another: by lane 0 unless told otherwise, and the
// secret that each lane's handshakes need.
type Path struct {
	Lane      int
	Preshared [Lanes]Preshared
}

// Mesh is the state of the mesh's devices and routes, wanted or read.
type Mesh struct {
	Lanes       [Lanes]Lane
	Routes      []Route        // by CIDR
	Unreachable []netip.Prefix // this node's own pod CIDRs
}

// Lane is one device. One that was read has no peer names, and no Device if the
// link is absent.
type Lane struct {
	Device     string
	Key        Key
	ListenPort uint16
	MTU        int
	Up         bool
	Addresses  []netip.Addr // this node's own, one of each family, as /32 and /128
	Peers      []Peer       // by name, then key
}

// Peer is another node's place in the WireGuard device. The zero Endpoint means
// that the peer must speak first.
type Peer struct {
	Name       string
	Key        Key
	Endpoint   netip.AddrPort
	AllowedIPs []netip.Prefix
	Keepalive  time.Duration
	Preshared  Preshared
}

// Route sends a remote pod CIDR into a lane. Src is not valid if this node
// has no mesh address of that family.
type Route struct {
	CIDR netip.Prefix
	Lane int
	Src  netip.Addr
	MTU  int
}

// MeshAddress returns the address that a node takes for itself out of its first
// pod CIDR of a family: the first usable one.
func MeshAddress(cidr netip.Prefix) netip.Addr {
	base := cidr.Masked()
	if base.Bits() >= base.Addr().BitLen()-1 {
		return base.Addr()
	}
	return base.Addr().Next()
}

// MeshAddresses are the addresses that a node takes for itself out of its pod CIDRs.
func MeshAddresses(podCIDRs []netip.Prefix) []netip.Addr {
	var out []netip.Addr
	var has4, has6 bool
	for _, cidr := range podCIDRs {
		has := &has6
		if cidr.Addr().Is4() {
			has = &has4
		}
		if !*has {
			*has = true
			out = append(out, MeshAddress(cidr))
		}
	}
	return out
}

// Sort puts m into the order that Compute and readers of the kernel agree on.
func (m *Mesh) Sort() {
	slices.SortFunc(m.Unreachable, comparePrefix)
	slices.SortFunc(m.Routes, func(a, b Route) int {
		return cmp.Or(comparePrefix(a.CIDR, b.CIDR), cmp.Compare(a.Lane, b.Lane))
	})
	for i := range m.Lanes {
		m.Lanes[i].sort()
	}
}

func (l *Lane) sort() {
	slices.SortFunc(l.Addresses, netip.Addr.Compare)
	slices.SortFunc(l.Peers, func(a, b Peer) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), a.Key.Compare(b.Key))
	})
	for i := range l.Peers {
		slices.SortFunc(l.Peers[i].AllowedIPs, comparePrefix)
	}
}

func comparePrefix(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}
