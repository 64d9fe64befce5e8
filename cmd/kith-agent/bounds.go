package main

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kithnet/kith/overlay"
	overlaykube "github.com/kithnet/kith/overlay/kube"
	"github.com/kithnet/kith/overlay/wireguard"
)

// resolvConf is where this node's name servers stand: the agent has its node's network, and so its node's file.
const resolvConf = "/etc/resolv.conf"

// bounds is what this node knows of addresses that no pod CIDR may take. What it cannot find out binds nobody.
type bounds struct {
	log        *slog.Logger
	node       string
	configured []netip.Prefix

	mu    sync.Mutex
	here  []overlay.Reserved  // what this node must reach
	there overlaykube.Cluster // what the API server says
	told  map[overlay.Problem]bool
}

// newBounds knows what is to be had on the node itself.
func newBounds(log *slog.Logger, node string, configured []netip.Prefix) *bounds {
	b := &bounds{log: log, node: node, configured: configured, told: map[overlay.Problem]bool{}}
	b.lookHere()
	return b
}

// Get returns the bounds as they are known now.
func (b *bounds) Get() overlay.Bounds {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := overlay.Bounds{Self: b.node, Within: b.configured, Services: b.there.Services, Reserved: slices.Clone(b.here)}
	if len(out.Within) == 0 {
		out.Within = b.there.Pods
	}
	for _, addr := range b.there.Servers {
		out.Reserved = append(out.Reserved, reserve(addr, "the API server"))
	}
	return out
}

func reserve(addr netip.Addr, what string) overlay.Reserved {
	return overlay.Reserved{Range: netip.PrefixFrom(addr, addr.BitLen()), What: what}
}

// lookHere finds what this node reaches outside of the tunnel.
func (b *bounds) lookHere() {
	var here []overlay.Reserved
	gateways, err := wireguard.Gateways()
	if err != nil {
		b.log.Warn("gateways not found: a pod CIDR that covers one is not refused", "error", err)
	}
	for _, addr := range gateways {
		here = append(here, reserve(addr, "this node's gateway"))
	}
	text, err := os.ReadFile(resolvConf)
	if err != nil {
		b.log.Warn("name servers not found: a pod CIDR that covers one is not refused", "error", err)
	}
	for _, addr := range nameServers(string(text)) {
		here = append(here, reserve(addr, "this node's name server"))
	}
	if addr, err := netip.ParseAddr(os.Getenv("KUBERNETES_SERVICE_HOST")); err == nil {
		here = append(here, reserve(addr.Unmap(), "the API server"))
	}
	b.mu.Lock()
	b.here = here
	b.mu.Unlock()
}

// nameServers reads the nameserver lines of resolv.conf(5).
func nameServers(text string) []netip.Addr {
	var out []netip.Addr
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) < 2 || words[0] != "nameserver" {
			continue
		}
		if addr, err := netip.ParseAddr(words[1]); err == nil {
			out = append(out, addr.WithZone("").Unmap())
		}
	}
	return out
}

// learn takes what the API server says, and reports whether it says something new.
func (b *bounds) learn(c overlaykube.Cluster) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if reflect.DeepEqual(b.there, c) {
		return false
	}
	b.there = c
	return true
}

// news returns the problems that were not there at the last call.
func (b *bounds) news(problems []overlay.Problem) []overlay.Problem {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := make(map[overlay.Problem]bool, len(problems))
	var fresh []overlay.Problem
	for _, p := range problems {
		if now[p] = true; !b.told[p] {
			fresh = append(fresh, p)
		}
	}
	b.told = now
	return fresh
}

// learnEvery is how often the API server is asked for the cluster's ranges, which seldom change.
const learnEvery = time.Hour

// learnBounds asks the API server for the cluster's ranges, and has the grants judged again if they are others.
func (a *agent) learnBounds(ctx context.Context) error {
	if err := a.nodes.WaitSynced(ctx); err != nil {
		return nil
	}
	for {
		cluster, err := persist(ctx, a.log, "cluster's address ranges", func() (overlaykube.Cluster, error) {
			return overlaykube.ReadCluster(ctx, a.client)
		})
		if err != nil {
			return ignoreEnd(ctx, err)
		}
		a.bounds.lookHere()
		if a.bounds.learn(a.plausible(cluster)) {
			a.nodes.Touch() // for the mesher, where it runs
			if !isClosed(a.meshed) {
				a.nodesChanged(a.known.List())
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(learnEvery):
		}
	}
}

// plausible leaves out kubeadm's range of pods where this node's own CIDR, or that of most nodes, is not in it: then it is
// not what CIDRs are allocated from, and must refuse nobody.
func (a *agent) plausible(c overlaykube.Cluster) overlaykube.Cluster {
	inside, outside := 0, 0
	for _, n := range a.nodes.List() {
		for _, cidr := range n.Requested {
			in := slices.ContainsFunc(c.Pods, func(p netip.Prefix) bool { return p.Bits() <= cidr.Bits() && p.Contains(cidr.Addr()) })
			switch {
			case in:
				inside++
			case n.Name == a.node:
				c.Pods = nil
				return c
			default:
				outside++
			}
		}
	}
	if outside > inside {
		c.Pods = nil
	}
	return c
}
