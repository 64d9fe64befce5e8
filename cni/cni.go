// Package cni models the CNI plugin of a node: what the container runtime asks (Call, parsed to a
// Request), what the node keeps about each answer (Attachment), and the five operations of the CNI
// specification 1.1.0 as plain functions: Add, Del, Check, GC and Status.
//
// Input is a Request and the Deps through which the operations act: addresses, records, links, gate,
// connections.
// Output is a result of the specification's result type, or an error that ToError turns into one of
// the specification's error codes. Damages compares the records with what the kernel has of host sides.
//
// Invariants:
//   - an attachment is recorded, with its addresses, before the kernel changes, and its record goes
//     only after its gate is closed, its link is gone and the kernel has forgotten its connections: a
//     crash between two steps leaks nothing that DEL or GC cannot find;
//   - an Add that fails undoes all it did, or leaves the record for DEL and GC to finish;
//   - everything of an attachment but its addresses and MTU follows from its Key;
//   - Del and GC succeed on what is gone already.
//
// Out of scope: sockets, files and the kernel (the packages below this one), locking (callers see to
// it that operations of one container never overlap and that GC runs alone), and policy.
package cni

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
)

// HostPrefix begins the name of the host side of every attachment's veth.
const HostPrefix = "kith-"

// HostMAC returns the hardware address of the host side of every attachment's veth. It is the same
// everywhere, so that a pod's permanent neighbour entry for its gateway never changes.
func HostMAC() MAC { return MAC{0x02, 'k', 'i', 't', 'h', 1} }

// MAC is a 48-bit hardware address. It is comparable and prints in the usual form.
type MAC [6]byte

// Key identifies an attachment: the pair that the specification says is unique on a node.
type Key struct {
	ContainerID string `json:"containerID"`
	IfName      string `json:"ifname"`
}

// Pod names the pod that an attachment belongs to.
type Pod struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid,omitempty"`
}

// Attachment is one pod interface: the record of it that the node keeps.
type Attachment struct {
	Key
	// Network is the name of the network configuration.
	Network       string       `json:"network"`
	Netns         string       `json:"netns"`
	Pod           Pod          `json:"pod"`
	HostInterface string       `json:"hostInterface"`
	HostMAC       MAC          `json:"hostMAC"`
	PodMAC        MAC          `json:"podMAC"`
	MTU           int          `json:"mtu"`
	Addresses     []netip.Addr `json:"addresses"`
	// Complete says that ADD finished: policy was in the kernel and the gate was opened.
	Complete bool `json:"complete,omitempty"`
}

// NewAttachment returns what a request's attachment is before it has addresses.
func NewAttachment(r Request, mtu int) Attachment {
	a := attachmentOf(r.Key)
	a.Network, a.Netns, a.Pod, a.MTU = r.Config.Name, r.Netns, r.Pod, mtu
	return a
}

func attachmentOf(k Key) Attachment {
	return Attachment{Key: k, HostInterface: k.HostInterface(), HostMAC: HostMAC(), PodMAC: k.podMAC()}
}

// HostInterface returns the name of the host side of the attachment's veth.
func (k Key) HostInterface() string {
	sum := k.digest()
	return HostPrefix + hex.EncodeToString(sum[:5])
}

// String returns containerID/ifName.
func (k Key) String() string { return k.ContainerID + "/" + k.IfName }

func (k Key) digest() [sha256.Size]byte { return sha256.Sum256([]byte(k.String())) }

// podMAC takes other digits of the digest than the interface name does, and makes the address a
// locally administered unicast one.
func (k Key) podMAC() MAC {
	sum := k.digest()
	m := MAC(sum[8:14])
	m[0] = m[0]&^0x01 | 0x02
	return m
}

// String returns the address as six pairs of hex digits.
func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// MarshalText is String, for JSON.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (m *MAC) UnmarshalText(text []byte) error {
	s := string(text)
	if len(s) != 17 {
		return fmt.Errorf("hardware address %q: not six pairs of hex digits", s)
	}
	for i := range m {
		if i > 0 && s[3*i-1] != ':' {
			return fmt.Errorf("hardware address %q: not six pairs of hex digits", s)
		}
		if _, err := hex.Decode(m[i:i+1], text[3*i:3*i+2]); err != nil {
			return fmt.Errorf("hardware address %q: %w", s, err)
		}
	}
	return nil
}
