// Package config reads the agent's configuration file.
//
// Input: the text of one YAML document (the key kith.yaml of the ConfigMap kith). Output: a Config in which every
// value has its final type and has been checked, or an error that names, for every mistake at once, the line, the
// key, what is wrong and what to write instead.
//
// Invariants: an empty document is Default(); a key that is not known, is given twice or has no value is an error,
// never ignored; a Config that Parse returned needs no further checks.
//
// Out of scope: reloading (a changed file takes effect when the agent starts again), values that depend on the node
// (a chosen interface is looked up by the one who uses it), and secrets (the gossip key is a Secret).
package config

import (
	"log/slog"
	"net/netip"
	"path/filepath"
	"time"
)

// Config is the agent's configuration, complete and checked.
type Config struct {
	LogLevel slog.Level
	Underlay Underlay
	// WireGuard is the tunnel between the nodes.
	WireGuard WireGuard
	Gossip    Gossip
	Probe     Probe
	Announce  Announce
	Health    Health
	Policy    Policy
	// HoldSigningKeys lets the key that a node was heard by hold until its Node object is gone.
	HoldSigningKeys bool
	// Connections bounds what pods take of the node's table of connections.
	Connections Connections
	// Masquerade gives pod traffic that leaves the cluster the node's address.
	Masquerade bool
	// PodCIDRs are the ranges that every node's pod CIDRs lie in; empty: kubeadm's, where its configuration is there.
	PodCIDRs []netip.Prefix
	// NonMasqueradeCIDRs are destinations outside the cluster that see the pod's own address.
	NonMasqueradeCIDRs []netip.Prefix
	CNI                CNI
	// StateDir keeps keys and addresses over restarts of agent and node.
	StateDir string
	// RunDir holds the agent's socket; it may be empty after a reboot.
	RunDir string
}

// Underlay is the network that carries the tunnel's packets.
type Underlay struct {
	Family Family
	// Interface is the underlay's interface; empty: the one with the node's address.
	Interface string
	// MTU is the underlay's packet size; 0: that of the interface.
	MTU int
}

// WireGuard configures the devices kith0 and kith1.
type WireGuard struct {
	// Port is lane 0's; lane 1 listens on the next.
	Port           uint16
	Implementation Implementation
	// Rotation is how often the keys change; 0: only by hand.
	Rotation time.Duration
	// PresharedKeys lets each two nodes agree on a key beside WireGuard's own, against quantum computers to come.
	PresharedKeys bool
}

// Gossip configures the membership protocol.
type Gossip struct {
	Port uint16
}

// Probe configures the probes that nodes send each other through the tunnel.
type Probe struct {
	Port uint16
}

// Announce configures how nodes tell each other the addresses of new pods through the tunnel.
type Announce struct {
	Port uint16
}

// Health configures where the kubelet asks whether the agent is ready and alive.
type Health struct {
	// Port is TCP, on the loopback address.
	Port uint16
}

// Policy configures what policies may cost.
type Policy struct {
	// MaxElements is how many elements one policy may come to; a rule beyond it closes.
	MaxElements int
	// NameServers are servers that pods may learn names from, besides the cluster's and their node's.
	NameServers []netip.Addr
}

// Connections bounds what pods take of the node's table of connections.
type Connections struct {
	// NewPerSecond is how many connections one pod may open in a second; 0: any number, as long as the table has room.
	NewPerSecond uint32
}

// CNI says where the container runtime looks for plugins and network configurations.
type CNI struct {
	BinDir  string
	ConfDir string
}

// Family is the IP version of the tunnel's outer packets.
type Family string

// The families. FamilyAuto takes that of the node's first internal address.
const (
	FamilyAuto Family = "auto"
	FamilyIPv4 Family = "ipv4"
	FamilyIPv6 Family = "ipv6"
)

// Implementation is who runs the WireGuard protocol.
type Implementation string

// The implementations. ImplementationAuto takes the kernel's where there is one, else wireguard-go.
const (
	ImplementationAuto      Implementation = "auto"
	ImplementationKernel    Implementation = "kernel"
	ImplementationUserspace Implementation = "userspace"
)

// DefaultPath is where the manifests mount the file.
const DefaultPath = "/etc/kith/kith.yaml"

// Default is the configuration of an empty file.
func Default() Config {
	return Config{
		LogLevel:   slog.LevelInfo,
		Underlay:   Underlay{Family: FamilyAuto},
		WireGuard:  WireGuard{Port: 51820, Implementation: ImplementationAuto, Rotation: 7 * 24 * time.Hour, PresharedKeys: true},
		Gossip:     Gossip{Port: 7950},
		Probe:      Probe{Port: 7947},
		Announce:   Announce{Port: 7948},
		Health:     Health{Port: 7949},
		Policy:     Policy{MaxElements: 65536},
		Masquerade: true,
		CNI:        CNI{BinDir: "/opt/cni/bin", ConfDir: "/etc/cni/net.d"},
		StateDir:   "/var/lib/kith",
		RunDir:     "/run/kith",

		HoldSigningKeys: true,
	}
}

// Socket is the path of the agent's socket.
func (c Config) Socket() string { return filepath.Join(c.RunDir, "agent.sock") }
