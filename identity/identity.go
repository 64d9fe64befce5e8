// Package identity models who a pod is to a policy: its namespace, the namespace's labels, its own labels and its
// named ports. Equal in these, equal identity; names, addresses and nodes do not matter.
//
// Input: pods and namespaces, one at a time and in any order (Table). Output: the identity of every address, and
// what changed. Invariants: the order of events does not change the result; an identity has the same number on
// every node that knows the same identities (Numbers); an address belongs to one pod at a time. A pod whose
// namespace is not known has no identity.
//
// A pod's address is in the API a second or more after the pod can send. Until then its node's word counts (Hint).
//
// Out of scope: which pods have addresses at all (a pod on the host network, or one that ended, is given without),
// and everything about policies.
package identity

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Protocol is a transport protocol's IP number.
type Protocol uint8

// The protocols that a port can have.
const (
	TCP  Protocol = 6
	UDP  Protocol = 17
	SCTP Protocol = 132
)

// String is the protocol as Kubernetes writes it.
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "TCP"
	case UDP:
		return "UDP"
	case SCTP:
		return "SCTP"
	}
	return strconv.Itoa(int(p))
}

// NamedPort is a container port that has a name.
type NamedPort struct {
	Name     string
	Protocol Protocol
	Number   uint16
}

// PodKey names a pod.
type PodKey struct{ Namespace, Name string }

// String is namespace/name.
func (k PodKey) String() string { return k.Namespace + "/" + k.Name }

// Pod is a pod as it is given to a Table.
type Pod struct {
	Namespace, Name string
	UID             string
	Created         time.Time
	Labels          map[string]string
	Ports           []NamedPort
	Addresses       []netip.Addr
	// Node is where the pod runs, if that node may say which addresses it has before Addresses do; else empty.
	Node string
}

// Key names the pod.
func (p Pod) Key() PodKey { return PodKey{p.Namespace, p.Name} }

// Newer says that p was created after q. It decides who owns an address that both claim: the older pod ended, and
// the address was given out again before its last event came.
func (p Pod) Newer(q Pod) bool {
	return age{p.Created.UnixNano(), p.UID, p.Key()}.newer(age{q.Created.UnixNano(), q.UID, q.Key()})
}

// Namespace is a namespace as it is given to a Table.
type Namespace struct {
	Name   string
	Labels map[string]string
}

// NameLabel is the label with which the API server marks every namespace with its own name.
const NameLabel = "kubernetes.io/metadata.name"

// LabelSet is the namespace's labels as a policy sees them: NameLabel is always its name.
func (n Namespace) LabelSet() Labels {
	m := make(map[string]string, len(n.Labels)+1)
	for k, v := range n.Labels {
		m[k] = v
	}
	m[NameLabel] = n.Name
	return MakeLabels(m)
}

// Key is an identity's canonical form, hashed: equal identities, equal keys, on every node.
type Key [sha256.Size]byte

// Compare orders keys.
func (k Key) Compare(o Key) int { return bytes.Compare(k[:], o[:]) }

// String is the key in short, for people.
func (k Key) String() string { return fmt.Sprintf("%x", k[:6]) }

// Identity is who a pod is to a policy. It does not change once made.
type Identity struct {
	namespace       string
	namespaceLabels Labels
	labels          Labels
	ports           []NamedPort
	key             Key
}

// New makes the identity of a pod in its namespace.
func New(ns Namespace, p Pod) *Identity {
	return newIdentity(ns.Name, ns.LabelSet(), MakeLabels(p.Labels), canonicalPorts(p.Ports))
}

func newIdentity(namespace string, nsLabels, labels Labels, ports []NamedPort) *Identity {
	i := &Identity{namespace: namespace, namespaceLabels: nsLabels, labels: labels, ports: ports}
	i.key = i.sum()
	return i
}

// Namespace is the namespace's name.
func (i *Identity) Namespace() string { return i.namespace }

// NamespaceLabels are the namespace's labels.
func (i *Identity) NamespaceLabels() Labels { return i.namespaceLabels }

// Labels are the pod's labels.
func (i *Identity) Labels() Labels { return i.labels }

// Key is the canonical form, hashed.
func (i *Identity) Key() Key { return i.key }

// NamedPorts are the pod's, in order. They are not to be changed.
func (i *Identity) NamedPorts() []NamedPort { return i.ports }

// PortNumbers are the numbers that a port name of a protocol stands for in this pod, in order: several when several
// containers use one name.
func (i *Identity) PortNumbers(p Protocol, name string) []uint16 {
	return PortNumbers(i.ports, p, name)
}

// PortNumbers are the numbers that a port name of a protocol stands for, in order.
func PortNumbers(ports []NamedPort, p Protocol, name string) []uint16 {
	var n []uint16
	for _, port := range ports {
		if port.Name == name && port.Protocol == p {
			n = append(n, port.Number)
		}
	}
	slices.Sort(n)
	return slices.Compact(n)
}

// String is the identity for people: namespace and labels.
func (i *Identity) String() string { return i.namespace + "{" + i.labels.String() + "}" }

// sum hashes every part with its length, so that no two identities read the same.
func (i *Identity) sum() Key {
	b := appendString(make([]byte, 0, 512), i.namespace)
	b = i.namespaceLabels.append(b)
	b = i.labels.append(b)
	for _, p := range i.ports {
		b = appendString(b, p.Name)
		b = append(b, byte(p.Protocol), byte(p.Number>>8), byte(p.Number))
	}
	return sha256.Sum256(b)
}

func appendString(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
	return append(b, s...)
}

// canonicalPorts sorts the ports that have names and drops the others: no policy can tell them apart.
func canonicalPorts(ports []NamedPort) []NamedPort {
	out := make([]NamedPort, 0, len(ports))
	for _, p := range ports {
		if p.Name != "" {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, comparePorts)
	return slices.Compact(out)
}

func comparePorts(a, b NamedPort) int {
	if c := strings.Compare(a.Name, b.Name); c != 0 {
		return c
	}
	if a.Protocol != b.Protocol {
		return int(a.Protocol) - int(b.Protocol)
	}
	return int(a.Number) - int(b.Number)
}

// age orders the pods that claim one address.
type age struct {
	created int64
	uid     string
	key     PodKey
}

func (a age) newer(b age) bool {
	if a.created != b.created {
		return a.created > b.created
	}
	if a.uid != b.uid {
		return a.uid > b.uid
	}
	return a.key.String() > b.key.String()
}
