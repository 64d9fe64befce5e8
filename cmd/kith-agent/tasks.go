package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"k8s.io/client-go/tools/cache"

	"github.com/kithnet/kith/cmd/kith/status"
	"github.com/kithnet/kith/cni"
	"github.com/kithnet/kith/cni/conflist"
	"github.com/kithnet/kith/cni/pending"
	"github.com/kithnet/kith/cni/server"
	"github.com/kithnet/kith/overlay"
	"github.com/kithnet/kith/overlay/gossip"
	"github.com/kithnet/kith/overlay/path"
	"github.com/kithnet/kith/overlay/probe"
	"github.com/kithnet/kith/overlay/wireguard"
	"github.com/kithnet/kith/policy/ruleset"
)

// keepalive keeps the way back open through stateful firewalls between nodes, and is what makes a peer shake hands
// with a node that has come back before anybody there sends.
const keepalive = 10 * time.Second

// resume hands the enforcer the attachments of before, ahead of all that may end one.
func (a *agent) resume() {
	var all []ruleset.Attachment
	for _, at := range a.store.List() {
		if at.Complete {
			all = append(all, attachment(at))
		}
	}
	a.enforcer.Update(func(c *ruleset.Compiler) { c.ReplaceAttachments(all) })
}

// gather waits until all watches are complete, and lets the enforcer write.
func (a *agent) gather(ctx context.Context) error {
	if err := a.nodes.WaitSynced(ctx); err != nil {
		return nil
	}
	a.notary.SetNodes(a.known.List()) // what they are granted depends on their claims
	a.nodesChanged(a.known.List())
	if !cache.WaitForCacheSync(ctx.Done(), a.identities.HasSynced, a.policies.HasSynced, a.over.HasSynced) {
		return nil
	}
	return a.order.complete(ctx)
}

// keepMesh joins gossip and keeps the device, once this node's own address and the gossip key are known.
func (a *agent) keepMesh(ctx context.Context) error {
	if err := a.known.await(ctx); err != nil {
		return nil
	}
	a.notary.SetNodes(a.known.List()) // who is another node than was remembered is judged as that
	local, address, err := a.local(ctx)
	if err != nil {
		return ignoreEnd(ctx, err)
	}
	if err := a.introduce(address); err != nil {
		return err
	}
	keys, err := persist(ctx, a.log, "gossip key", a.secret.Keys)
	if err != nil {
		return ignoreEnd(ctx, err)
	}
	_, claim := a.speaker.Said()
	a.gossip, err = a.join(ctx, func() (*gossip.Gossip, error) {
		return gossip.Start(gossip.Config{
			Name: a.node, Bind: netip.AddrPortFrom(address, a.cfg.Gossip.Port), Keys: keys,
			Record: claim, Judge: a.notary, Log: a.log,
		})
	})
	if err != nil {
		return ignoreEnd(ctx, err)
	}
	a.prober = probe.New(a.cfg.Probe.Port, path.Defaults())
	a.mesher = &mesher{
		log: a.log, local: local, gossip: a.cfg.Gossip.Port, nodes: a.known, roster: a.gossip, claims: a.notary, device: a.device,
		ways:    a.prober,
		network: a.nodesChanged,
		moved:   func() { a.move(); nudge(a.redrawn) },
	}
	if err := a.openLanes(); err != nil {
		return err
	}
	a.mesher.lanes = a.lanes
	close(a.meshed)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.gossip.Run(ctx) })
	g.Go(func() error { return a.mesher.run(ctx) })
	g.Go(func() error { return a.lanes.run(ctx) })
	g.Go(func() error { return a.prober.Run(ctx) })
	g.Go(func() error { return a.scout(ctx) })
	g.Go(func() error { return a.keepNeighbours(ctx) })
	g.Go(func() error { return a.announcer.Run(ctx) })
	g.Go(func() error { return a.herald(ctx) })
	g.Go(func() error { return a.followSelf(ctx, address) })
	return g.Wait()
}

// join starts gossip, again and again until it can: who else has its port may let it go, and pods go on meanwhile by what the
// kernel has. Status says what is in the way.
func (a *agent) join(ctx context.Context, start func() (*gossip.Gossip, error)) (*gossip.Gossip, error) {
	return persist(ctx, a.log, "gossip", func() (*gossip.Gossip, error) {
		g, err := start()
		if errors.Is(err, unix.EADDRINUSE) {
			err = fmt.Errorf("%w: another process of this node has the port: \"ss -lntup\" says which; gossip.port sets another, for all nodes", err)
		}
		a.obstacle.Store(&err)
		return g, err
	})
}

// local waits for this node's own address and says how it takes part in the mesh.
func (a *agent) local(ctx context.Context) (overlay.Local, netip.Addr, error) {
	family, err := overlay.ParseFamily(string(a.cfg.Underlay.Family))
	if err != nil {
		return overlay.Local{}, netip.Addr{}, err
	}
	address, err := persist(ctx, a.log, "own address", a.ownAddress)
	if err != nil {
		return overlay.Local{}, netip.Addr{}, err
	}
	mtu := a.cfg.Underlay.MTU
	if mtu == 0 {
		mtu, err = persist(ctx, a.log, "underlay MTU", func() (int, error) { return wireguard.UnderlayMTU(address) })
		if err != nil {
			return overlay.Local{}, netip.Addr{}, err
		}
	}
	return overlay.Local{
		Name: a.node, Keys: a.public(), Devices: ruleset.Devices, ListenPort: a.cfg.WireGuard.Port,
		Underlay: family, UnderlayMTU: mtu, Keepalive: keepalive,
	}, address, nil
}

// persist tries until it succeeds or ctx ends.
func persist[T any](ctx context.Context, log interface{ Warn(string, ...any) }, what string, try func() (T, error)) (T, error) {
	for delay := firstRetry; ; delay = min(2*delay, lastRetry) {
		value, err := try()
		if err == nil {
			return value, nil
		}
		log.Warn("not there yet", "what", what, "retry", delay, "error", err)
		select {
		case <-ctx.Done():
			return value, ctx.Err()
		case <-time.After(delay):
		}
	}
}

// ignoreEnd drops an error that is there only because the agent ends.
func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// serve answers the CNI plugin and the command kith on the agent's socket.
func (a *agent) serve(ctx context.Context) error {
	deps := cni.Deps{
		Addresses: a.store, Records: a.store, Links: a.links, Gate: a.gate(), MTU: a.mtu,
		Connections: &endings{log: a.log, table: a.connections, gone: a.keeper.Forget},
		Ready: func(context.Context) error {
			if reasons := a.waitsFor(); len(reasons) > 0 {
				return fmt.Errorf("%w: %s", cni.ErrUnavailable, strings.Join(reasons, "; "))
			}
			return nil
		},
	}
	orphans, err := cni.Reconcile(ctx, deps)
	if err != nil {
		a.log.Error("attachments are not compared with the kernel: what is gone is kept until its DEL, GC, or the next start", "error", err)
	}
	for _, gone := range orphans.Released {
		a.log.Info("attachment gone while the agent was away", "attachment", gone.Key, "pod", gone.Pod.Namespace+"/"+gone.Pod.Name)
	}
	for _, name := range orphans.Unknown {
		a.log.Warn("veth without a record: left for the runtime's GC", "interface", name)
	}
	if err := a.links.IgnoreARP(ctx); err != nil {
		a.log.Error("pods attached by an older agent can fill the node's table of neighbours by ARP", "error", err)
	}
	s := server.New(server.Options{
		Deps: deps, Pending: pending.Folder(filepath.Join(a.cfg.RunDir, "pending-del")), Log: a.log,
		Ended: func() { nudge(a.upkeep.ended) },
	})
	s.Handle("GET "+status.Path, a.statusHandler())
	s.Handle("POST "+status.RotatePath, a.rotateHandler())
	listener, err := server.Listen(a.cfg.Socket())
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.Serve(ctx, listener) })
	g.Go(func() error { return a.keepSides(ctx, s) })
	return g.Wait()
}

// mtu is what a pod's interface gets. Before the mesh is known there is none, and no pod is attached.
func (a *agent) mtu() int {
	select {
	case <-a.meshed:
		return a.mesher.MTU()
	default:
		return 0
	}
}

// announce writes the CNI configuration, by which the node becomes Ready, when this node can serve.
func (a *agent) announce(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.moved:
		}
		if len(a.waitsFor()) > 0 {
			continue
		}
		if err := conflist.Write(a.cfg.CNI.ConfDir, a.cfg.Socket()); err != nil {
			return errors.Join(errors.New("write CNI configuration"), err)
		}
		a.log.Info("node enforces and serves pods", "after", time.Since(a.started).Round(time.Millisecond))
		return nil
	}
}
