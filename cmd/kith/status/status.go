// Package status is what an agent says about its node: the answer to GET /v1/status on the agent's socket, read by
// the command kith.
//
// Input: nothing; a Report is filled by the agent. Output: its JSON form, which stays compatible: fields are added,
// never renamed or given another meaning.
//
// Invariants: a Report holds no secret (public keys only); lists are sorted by node name; Ready is true only while
// this node enforces every policy it knows and can start pods, and Reasons is empty then.
//
// Out of scope: how the numbers are collected, and how they are shown.
package status

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"time"
)

// Path is where the agent serves its Report, RotatePath where it takes the wish for new keys in the whole mesh.
const (
	Path       = "/v1/status"
	RotatePath = "/v1/mesh/rotate"
)

// Report is the state of one node.
type Report struct {
	Node string `json:"node"`
	// Version is the agent's.
	Version string `json:"version"`
	// Started is when the agent process started.
	Started time.Time `json:"started"`
	Ready   bool      `json:"ready"`
	// Reasons say what Ready waits for.
	Reasons []string `json:"reasons,omitempty"`
	// Problems do not make the node unready, but somebody should look: a policy that could not be translated, a
	// record that did not verify.
	Problems []string `json:"problems,omitempty"`

	Claim  Claim  `json:"claim"`
	Gossip Gossip `json:"gossip"`
	// Refused are the claims that this node did not take since its agent started, by node and cause.
	Refused []Refused `json:"refused,omitempty"`

	Device  Device   `json:"device"`
	Members []Member `json:"members"`
	Peers   []Peer   `json:"peers"`
	Ways    []Way    `json:"ways"`
	Keys    Keys     `json:"keys"`

	// Identities are those of all pods in the cluster, Subjects the local pods that a policy isolates.
	Identities int `json:"identities"`
	Policies   int `json:"policies"`
	Subjects   int `json:"subjects"`
	// Attachments are the local pods' interfaces.
	Attachments int   `json:"attachments"`
	Apply       Apply `json:"apply"`
}

// Device is the node's WireGuard device.
type Device struct {
	Name string `json:"name"`
	// Kind is "kernel" or "userspace" (wireguard-go).
	Kind string `json:"kind"`
	// MTU is the largest packet of a pod that fits into the tunnel.
	MTU int `json:"mtu"`
	// Port is the UDP port it listens on.
	Port      int    `json:"port"`
	PublicKey string `json:"publicKey"`
}

// Claim is what this node says of itself.
type Claim struct {
	// SigningKey is the public key by which others judge it.
	SigningKey string `json:"signingKey"`
	// Epoch is zero before the first claim.
	Epoch uint64 `json:"epoch"`
}

// Gossip is how the members' talk is encrypted.
type Gossip struct {
	// Keys are fingerprints; the first key is sent with.
	Keys []string `json:"keys,omitempty"`
	// Strangers counts packets and streams that bore none of the keys.
	Strangers uint64 `json:"strangers"`
	// Unheard is what was dropped before anybody read it.
	Unheard []Unheard `json:"unheard,omitempty"`
}

// Unheard are packets, streams and messages from one node's address; Node is empty for what is not of one node.
type Unheard struct {
	Node  string `json:"node,omitempty"`
	Cause string `json:"cause"`
	Count uint64 `json:"count"`
}

// Fingerprint names a gossip key without telling it.
func Fingerprint(key []byte) string {
	sum := sha256.Sum256(append([]byte("kith gossip key\n"), key...))
	return hex.EncodeToString(sum[:6])
}

// Refused are claims under one name; Node is empty for names that no Node has.
type Refused struct {
	Node  string `json:"node,omitempty"`
	Cause string `json:"cause"`
	Count uint64 `json:"count"`
}

// Member is a node as gossip sees it, this node included.
type Member struct {
	Node    string     `json:"node"`
	Address netip.Addr `json:"address"`
	State   State      `json:"state"`
}

// State is gossip's opinion of a member.
type State string

// The states of a member. Unknown: the API server lists the node and gossip has not met it.
const (
	Alive   State = "alive"
	Suspect State = "suspect"
	Dead    State = "dead"
	Left    State = "left"
	Unknown State = "unknown"
)

// Keys are the generations of this node's WireGuard keys.
type Keys struct {
	Generation uint32 `json:"generation"`
	// Settled is the generation in which this node sends to all living nodes.
	Settled uint32    `json:"settled"`
	Rotated time.Time `json:"rotated"`
	// Next is when the next generation is due; zero: only when somebody asks for it.
	Next time.Time `json:"next"`
	// WaitsFor are the nodes that the next generation, which is due, waits for.
	WaitsFor []string `json:"waitsFor,omitempty"`
}

// Rotation is the answer to POST RotatePath: the generation that was asked for.
type Rotation struct {
	Generation uint32 `json:"generation"`
}

// Peer is another node in this node's WireGuard devices: what it is on the lane that this node sends on, and the bytes
// of both.
type Peer struct {
	Node string `json:"node"`
	Lane int    `json:"lane"`
	// PresharedKey is how both nodes stand with the lane's: agreed, pending, declined (by the other) or off (here).
	PresharedKey string `json:"presharedKey"`

	PublicKey  string         `json:"publicKey"`
	Endpoint   netip.AddrPort `json:"endpoint"`
	AllowedIPs []netip.Prefix `json:"allowedIPs"`
	// LastHandshake is zero if there was none yet.
	LastHandshake time.Time `json:"lastHandshake"`
	RxBytes       int64     `json:"rxBytes"`
	TxBytes       int64     `json:"txBytes"`
}

// Way is what probes through the tunnel have found out about the way to another node.
type Way struct {
	Node string `json:"node"`
	// RoundTrip is smoothed; zero: no answer yet.
	RoundTrip time.Duration `json:"roundTripNanoseconds"`
	// Loss is the share of the last probes that were not answered, from 0 to 1.
	Loss float64 `json:"loss"`
	// MTU is the largest packet that arrives; zero: not known yet.
	MTU int `json:"mtu"`
	// SilentSince is when answers ceased; zero while they come.
	SilentSince time.Time `json:"silentSince,omitzero"`
	// PeerRemade is when the node's peer was last made anew because of such a silence; zero: never.
	PeerRemade time.Time `json:"peerRemade,omitzero"`
}

// Apply is the agent's work on the kernel's rules since it started.
type Apply struct {
	// At is when the last transaction was applied; zero if there was none yet.
	At       time.Time     `json:"at"`
	Duration time.Duration `json:"durationNanoseconds"`
	// Writes counts the objects (chains, rules, elements) that all transactions changed.
	Writes       uint64 `json:"writes"`
	Transactions uint64 `json:"transactions"`
	// Error is that of the last attempt; empty if it succeeded.
	Error string `json:"error,omitempty"`
}
