package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/kithnet/kith/overlay"
	overlaykube "github.com/kithnet/kith/overlay/kube"
)

// introduce makes this node's claim say who it is, and where it is to be found.
func (a *agent) introduce(address netip.Addr) error {
	self, ok := a.self()
	if !ok {
		return fmt.Errorf("node %s is not known", a.node)
	}
	keys, generation := a.keys.Public()
	return a.speaker.Say(func(c *overlay.Claim) {
		c.UID, c.Keys, c.Generation, c.Settled = self.UID, keys, generation, min(c.Settled, generation)
		c.Endpoints = []netip.AddrPort{netip.AddrPortFrom(address, a.cfg.WireGuard.Port)}
	})
}

func (a *agent) self() (overlay.Node, bool) {
	nodes := a.known.List()
	i := slices.IndexFunc(nodes, func(n overlay.Node) bool { return n.Name == a.node })
	if i < 0 {
		return overlay.Node{}, false
	}
	return nodes[i], true
}

// public are the public halves of this node's keys.
func (a *agent) public() [overlay.Lanes]overlay.Key {
	keys, _ := a.keys.Public()
	return keys
}

// publish keeps this node's claim on its Node object, also on one made anew under its name.
func (a *agent) publish(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.networked:
		case <-a.speaker.toNode:
		}
		said, sealed := a.speaker.Said()
		self, ok := a.self()
		if sealed == nil || !ok || !a.nodes.HasSynced() {
			continue
		}
		if self.UID != said.UID {
			if err := a.speaker.Say(func(c *overlay.Claim) { c.UID = self.UID }); err != nil {
				return err
			}
			_, sealed = a.speaker.Said()
		}
		p := overlaykube.Publication{SigningKey: a.speaker.signer.Public(), Claim: sealed}
		if before := self.SigningKey; before != "" && before != p.SigningKey.String() {
			a.log.Warn("own Node bears another signing key than this node has: it is written again; if this node has lost its own, "+
				"nodes that know it wait for: kubectl kith mesh accept "+a.node, "found", before, "own", p.SigningKey)
		}
		if err := a.nodes.Publish(ctx, p); err != nil {
			return ignoreEnd(ctx, err)
		}
	}
}

// lookEvery is how often this node looks whether its address is still its own.
const lookEvery = 5 * time.Second

// followSelf hands gossip this node's claim and the cluster's keys whenever they change. A node that has moved starts
// its agent again: sockets and claims then bear the new address, and the kernel keeps what it has meanwhile.
func (a *agent) followSelf(ctx context.Context, address netip.Addr) error {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.speaker.toGossip:
			_, sealed := a.speaker.Said()
			if err := a.gossip.SetRecord(ctx, sealed); err != nil {
				a.log.Debug("claim not confirmed by gossip", "error", err)
			}
		case <-a.secret.Changed():
			keys, err := a.secret.Keys()
			if err == nil {
				err = a.gossip.SetKeys(keys)
			}
			if err != nil {
				a.log.Error("gossip keys not changed", "error", err)
			}
			nudge(a.memorable)
		case <-look.C:
			if now, err := a.ownAddress(); err == nil && now != address {
				return fmt.Errorf("this node has moved from %s to %s", address, now)
			}
		}
	}
}

// ownAddress is the node's InternalIP. Where that is not on any interface, as after a move that the API server has not
// heard of, it is the address from which this node sends to the others.
func (a *agent) ownAddress() (netip.Addr, error) {
	family, err := overlay.ParseFamily(string(a.cfg.Underlay.Family))
	if err != nil {
		return netip.Addr{}, err
	}
	self, _ := a.self()
	wanted := slices.DeleteFunc(slices.Clone(self.InternalIPs), func(ip netip.Addr) bool {
		return family != overlay.Auto && overlay.FamilyOf(ip) != family
	})
	if len(wanted) == 0 {
		return netip.Addr{}, fmt.Errorf("node %s has no InternalIP of family %s in its status", a.node, a.cfg.Underlay.Family)
	}
	here, err := localAddresses()
	if err != nil {
		return netip.Addr{}, err
	}
	for _, ip := range wanted {
		if slices.Contains(here, ip) {
			return ip, nil
		}
	}
	if own, ok := facing(a.known.List(), self, overlay.FamilyOf(wanted[0]), sourceTo); ok {
		return own, nil
	}
	return netip.Addr{}, fmt.Errorf("no interface has %s, the InternalIP of node %s", wanted[0], a.node)
}

// facing is the address from which this node sends to the others. Where those say they are may be made up: then it can
// be one that nobody else reaches this node by, its mesh address or that of its loopback.
func facing(nodes []overlay.Node, self overlay.Node, family overlay.Family, source func(netip.Addr) (netip.Addr, error)) (netip.Addr, bool) {
	for _, n := range nodes {
		for _, ip := range n.Underlay() {
			if n.Name == self.Name || overlay.FamilyOf(ip) != family {
				continue
			}
			own, err := source(ip)
			inside := slices.ContainsFunc(self.PodCIDRs, func(p netip.Prefix) bool { return p.Contains(own) })
			if err == nil && !own.IsLoopback() && !inside {
				return own, true
			}
		}
	}
	return netip.Addr{}, false
}

func localAddresses() ([]netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list own addresses: %w", err)
	}
	var out []netip.Addr
	for _, address := range all {
		if prefix, err := netip.ParsePrefix(address.String()); err == nil {
			out = append(out, prefix.Addr().Unmap())
		}
	}
	return out, nil
}

// sourceTo is the address that packets to another bear; nothing is sent.
func sourceTo(ip netip.Addr) (netip.Addr, error) {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, 9)))
	if err != nil {
		return netip.Addr{}, fmt.Errorf("find own address: %w", err)
	}
	local, ok := conn.LocalAddr().(*net.UDPAddr)
	if err := conn.Close(); err != nil || !ok {
		return netip.Addr{}, errors.Join(errors.New("find own address"), err)
	}
	return local.AddrPort().Addr().Unmap(), nil
}
