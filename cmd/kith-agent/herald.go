package main

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"github.com/kithnet/kith/cni"
	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/identity/announce"
	"github.com/kithnet/kith/overlay"
	"github.com/kithnet/kith/policy/ruleset"
)

// crier tells the other nodes whose this node's addresses are.
type crier interface {
	Say(identity.Pin, []netip.Addr) error
	Unsay([]netip.Addr) error
}

// heraldedGate is a gate of which the other nodes hear what it opens and closes, before the API tells them.
type heraldedGate struct {
	gate
	log   *slog.Logger
	crier crier
}

func (a *agent) gate() cni.Gate {
	return heraldedGate{gate{a.enforcer, []source{a.identities, a.policies, a.over}, a.order}, a.log, a.announcer}
}

// Open opens the attachment, and says so.
func (h heraldedGate) Open(ctx context.Context, a cni.Attachment) error {
	if err := h.gate.Open(ctx, a); err != nil {
		return err
	}
	proclaim(h.log, h.crier, attachment(a))
	return nil
}

// Close closes the attachment, and says so.
func (h heraldedGate) Close(ctx context.Context, a cni.Attachment) error {
	if err := h.gate.Close(ctx, a); err != nil {
		return err
	}
	if len(a.Addresses) == 0 {
		return nil
	}
	if err := h.crier.Unsay(a.Addresses); err != nil {
		h.log.Warn("other nodes are not told that addresses are free", "addresses", a.Addresses, "error", err)
	}
	return nil
}

// proclaim needs a UID, which some runtimes do not give: other nodes then wait for the API.
func proclaim(log *slog.Logger, c crier, a ruleset.Attachment) {
	if a.UID == "" {
		return
	}
	if err := c.Say(identity.Pin{Pod: a.Pod, UID: a.UID}, a.Addresses); err != nil {
		log.Warn("other nodes hear of a pod's addresses by the API only", "pod", a.Pod, "error", err)
	}
}

// herald tells the announcer who the other nodes are, and once what an agent before this one may not have said.
func (a *agent) herald(ctx context.Context) error {
	tick := time.NewTicker(lookAround)
	defer tick.Stop()
	told, restated := "", false
	for {
		state := a.mesher.State()
		if err := a.announcer.Follow(state.Mesh.Lanes[0].Addresses, others(state.Mesh)); err == nil {
			told = ""
		} else if err.Error() != told {
			told = err.Error()
			a.log.Warn("new pods' addresses are not exchanged with other nodes", "error", err)
		}
		if !restated && state.Up && isClosed(a.enforcer.complete) {
			restated = true
			a.restate(ctx)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-a.redrawn:
		case <-tick.C:
			a.hearsay.forget(time.Now())
		}
	}
}

// restate says whose the addresses are of which the API does not tell yet.
func (a *agent) restate(ctx context.Context) {
	var unstated []ruleset.Attachment
	err := a.enforcer.Await(ctx, func(*ruleset.Compiler) {}, func(c *ruleset.Compiler) bool {
		unstated = c.Unstated()
		return true
	})
	if err != nil {
		return
	}
	for _, at := range unstated {
		proclaim(a.log, a.announcer, at)
	}
}

// others are the nodes that the mesh device vouches for: it takes their addresses from them alone.
func others(mesh overlay.Mesh) []announce.Node {
	var out []announce.Node
	for _, p := range mesh.Lanes[0].Peers {
		out = append(out, announce.Node{Name: p.Name, Addresses: overlay.MeshAddresses(p.AllowedIPs), CIDRs: p.AllowedIPs})
	}
	return out
}
