// Package cluster runs the quick cluster: real Kubernetes nodes in Linux namespaces of one machine.
//
// Input: a Spec and a parts.Set. Output: a running cluster of which everything is recorded in its
// folder (state.json), so that another process can find, change and end it. Each node has its own
// network namespace; their links meet on a bridge in a namespace of its own, the underlay, to which
// this machine (for kubectl) and an outside host are attached too. Invariants: Down ends only
// recorded processes and leaves nothing; two clusters of different names do not meet. Out of scope:
// building parts, what the tests do with the cluster.
package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/kithnet/kith/e2e/parts"
)

// CNI says who brings the pod network.
type CNI string

// Stack says which address families the cluster has.
type Stack string

// Proxy says by what kube-proxy makes Services.
type Proxy string

const (
	Kith CNI = "kith" // installed by kubectl apply, as a person would
	None CNI = "none" // nobody: the reference plugins lie in /opt/cni/bin, unused

	IPv4     Stack = "ipv4"
	Dual     Stack = "dual"      // nodes, pods and services have both families, IPv4 first
	DualIPv6 Stack = "dual-ipv6" // the same, but a node's first address is the IPv6 one

	NFTables Proxy = "nftables"
	IPTables Proxy = "iptables" // by Debian's iptables, which is a front of nftables' kernel side
)

// Spec is what a person asks for.
type Spec struct {
	Name  string
	Nodes int
	CNI   CNI
	Stack Stack
	Proxy Proxy   // none is NFTables
	Owner Process // whose end makes the cluster one left behind; none if it is to stay until Down
}

// Cluster is a cluster that is up, or part of one. Its exported fields are its recorded state.
type Cluster struct {
	Spec
	Index   int       // which of the reserved subnets it uses
	Set     parts.Set // what it runs
	Members []Node    // the first also runs the control plane
	Host    Process   // what serves on the outside host

	dir      string
	progress io.Writer
	began    time.Time
}

// Node is one node of a cluster.
type Node struct {
	Name      string
	Addresses []netip.Addr // in the order the kubelet is told
	Process   Process
}

// Open finds a cluster that is up. dir is the folder that holds the folders of all clusters.
func Open(dir, name string, progress io.Writer) (*Cluster, error) {
	c := &Cluster{dir: filepath.Join(dir, name), progress: progress, began: time.Now()}
	content, err := os.ReadFile(c.statePath())
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("cluster %s is not up: %w", name, err)
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(content, c); err != nil {
		return nil, fmt.Errorf("%s: %w", c.statePath(), err)
	}
	return c, nil
}

// Up brings a cluster up. On failure it leaves what there is for inspection; Down removes it.
func Up(ctx context.Context, dir string, spec Spec, set parts.Set, progress io.Writer) (*Cluster, error) {
	if spec.Proxy == "" {
		spec.Proxy = NFTables
	}
	if err := spec.check(); err != nil {
		return nil, err
	}
	c := &Cluster{Spec: spec, Set: set, dir: filepath.Join(dir, spec.Name), progress: progress, began: time.Now()}
	if err := c.makeRoom(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(c.imageDir(), 0o755); err != nil {
		return nil, err
	}
	if err := c.save(); err != nil {
		return nil, err
	}
	for _, step := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"network", c.makeNetwork},
		{"certificates", c.makeCertificates},
		{"node processes", c.startNodes},
		{"API server", c.waitAPI},
		{"add-ons", c.applyAddons},
		{"nodes registered", c.waitRegistered},
	} {
		if err := step.do(ctx); err != nil {
			return c, fmt.Errorf("%s of cluster %s: %w", step.what, c.Name, err)
		}
		c.say("%s", step.what)
	}
	return c, nil
}

// makeRoom takes down what a test that was killed left behind.
func (c *Cluster) makeRoom() error {
	if _, err := os.Stat(c.dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	old, err := Open(filepath.Dir(c.dir), c.Name, c.progress)
	switch {
	case errors.Is(err, os.ErrNotExist):
		// Without a record nothing of it runs: a Down was cut off when all that was left to remove were files.
		return os.RemoveAll(c.dir)
	case err != nil:
		return fmt.Errorf("%s was left behind: %w", c.dir, err)
	case old.Owner == Process{}:
		return fmt.Errorf("cluster %s is up: take it down first (make cluster-down NAME=%s)", c.Name, c.Name)
	case old.Owner.alive():
		return fmt.Errorf("cluster %s is up: process %d uses it", c.Name, old.Owner.PID)
	}
	c.say("taking down cluster %s, which process %d left behind", c.Name, old.Owner.PID)
	return old.Down()
}

func (s Spec) check() error {
	if !regexp.MustCompile(`^[a-z][a-z0-9]{0,7}$`).MatchString(s.Name) {
		return fmt.Errorf("cluster name %q: want a letter and up to seven letters or digits", s.Name)
	}
	if s.Nodes < 1 || s.Nodes > 100 {
		return fmt.Errorf("%d nodes: want 1 to 100", s.Nodes)
	}
	if s.CNI != Kith && s.CNI != None {
		return fmt.Errorf("CNI %q: want %s or %s", s.CNI, Kith, None)
	}
	if s.Stack != IPv4 && s.Stack != Dual && s.Stack != DualIPv6 {
		return fmt.Errorf("stack %q: want %s, %s or %s", s.Stack, IPv4, Dual, DualIPv6)
	}
	return s.Proxy.check()
}

func (p Proxy) check() error {
	if p != NFTables && p != IPTables {
		return fmt.Errorf("kube-proxy mode %q: want %s or %s", p, NFTables, IPTables)
	}
	return nil
}

func (c *Cluster) say(format string, args ...any) {
	fmt.Fprintf(c.progress, "[%5.1fs] %s\n", time.Since(c.began).Seconds(), fmt.Sprintf(format, args...))
}

// save records the state, whole or not at all.
func (c *Cluster) save() error {
	content, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	tmp := c.statePath() + ".tmp"
	if err := os.WriteFile(tmp, content, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, c.statePath())
}

func (c *Cluster) statePath() string { return filepath.Join(c.dir, "state.json") }
func (c *Cluster) imageDir() string  { return filepath.Join(c.dir, "images") }

// NodeDir is the folder of a node; its log folder is the node's /var/log.
func (c *Cluster) NodeDir(name string) string { return filepath.Join(c.dir, "nodes", name) }

// Kubeconfig is the path of the administrator's kubeconfig.
func (c *Cluster) Kubeconfig() string { return filepath.Join(c.dir, "admin.conf") }

// PodCIDRs are the address ranges of the whole cluster's pods.
func (c *Cluster) PodCIDRs() []netip.Prefix {
	return c.families(netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:10:244::/56"))
}

func (c *Cluster) serviceCIDRs() []netip.Prefix {
	return c.families(netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd00:10:96::/112"))
}

func (c *Cluster) families(v4, v6 netip.Prefix) []netip.Prefix {
	if c.Stack == IPv4 {
		return []netip.Prefix{v4}
	}
	return []netip.Prefix{v4, v6}
}

func (c *Cluster) node(name string) (*Node, error) {
	for i := range c.Members {
		if c.Members[i].Name == name {
			return &c.Members[i], nil
		}
	}
	return nil, fmt.Errorf("cluster %s has no node %q", c.Name, name)
}
