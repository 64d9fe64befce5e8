package main

import (
	"context"
	"net/netip"
	"slices"

	"github.com/kithnet/kith/cni/firewall"
	"github.com/kithnet/kith/policy/ruleset"
)

// ourInterfaces is the beginning of the names of pods' veths and of the mesh's devices.
const ourInterfaces = "kith"

// firewalls keeps the node's other firewalls from dropping pods' packets.
// Before it is opened it knows of none.
type firewalls struct{ keeper *firewall.Keeper }

func (f *firewalls) open() (err error) {
	f.keeper, err = firewall.Open(0, ourInterfaces)
	return err
}

// setNetwork says where pods' addresses are: a firewall that names them lets them through.
func (f *firewalls) setNetwork(n ruleset.Network) {
	if f.keeper == nil {
		return
	}
	var all []netip.Prefix
	for _, node := range n.Nodes {
		all = append(all, node.PodCIDRs...)
	}
	slices.SortFunc(all, netip.Prefix.Compare)
	f.keeper.SetNetworks(all)
}

// Problems are the chains that drop pods' packets and that we cannot open.
func (f *firewalls) Problems() []string {
	if f.keeper == nil {
		return nil
	}
	return f.keeper.Problems()
}

// keepFirewalls opens what closes, and says what it cannot open.
func (a *agent) keepFirewalls(ctx context.Context) error {
	return a.firewalls.keeper.Run(ctx, func(problems []string, err error) {
		switch {
		case err != nil:
			a.log.Warn("other firewalls of this node are not known", "error", err)
		case len(problems) > 0:
			a.log.Warn("another firewall of this node drops pods' packets", "problems", problems)
		default:
			a.log.Info("no other firewall of this node drops pods' packets")
		}
	})
}
