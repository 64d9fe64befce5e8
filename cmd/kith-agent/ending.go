package main

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"

	"github.com/kithnet/kith/policy/conntrack/kernel"
)

// endings ends the connections of addresses that are free from now on. It is the CNI operations' cni.Connections. A kernel
// that does not show its connections stops no DEL: there the next pod at an address may go on with what is remembered.
type endings struct {
	log    *slog.Logger
	table  kernel.Table
	gone   func([]netip.Addr) // told whose connections ended
	absent sync.Once
}

// End returns when the kernel has forgotten what the addresses opened or answer.
func (e *endings) End(_ context.Context, addresses []netip.Addr) error {
	err := e.table.DeleteOf(addresses)
	if errors.Is(err, kernel.ErrAbsent) {
		e.absent.Do(func() {
			e.log.Warn("connections of pods that are gone are not ended: load the kernel module nf_conntrack_netlink", "error", err)
		})
		return nil
	}
	if err == nil {
		e.gone(addresses)
	}
	return err
}
