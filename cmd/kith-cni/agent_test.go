package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/kithnet/kith/cni"
	"github.com/kithnet/kith/cni/ipam"
	"github.com/kithnet/kith/cni/pending"
	"github.com/kithnet/kith/cni/server"
	"github.com/kithnet/kith/cni/veth"
)

// folderGate is a gate in a folder: a file per open attachment. A pod whose name begins with "slow"
// waits before it is opened.
type folderGate string

func (g folderGate) path(a cni.Attachment) string { return filepath.Join(string(g), a.HostInterface) }

func (g folderGate) Open(ctx context.Context, a cni.Attachment) error {
	if a.Pod.Name == "slow" {
		<-ctx.Done()
		return ctx.Err()
	}
	return os.WriteFile(g.path(a), nil, 0o600)
}

func (g folderGate) Close(_ context.Context, a cni.Attachment) error {
	if err := os.Remove(g.path(a)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (g folderGate) Check(_ context.Context, a cni.Attachment) error {
	_, err := os.Stat(g.path(a))
	return err
}

// connections are left alone.
type connections struct{}

func (connections) End(context.Context, []netip.Addr) error { return nil }

// runAgent is an agent with everything but policy and mesh. It serves until it is told to stop.
func runAgent(dir string) {
	if err := serveAgent(dir); err != nil {
		fmt.Fprintln(os.Stderr, "agent:", err)
		os.Exit(1)
	}
}

func serveAgent(dir string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	store, err := ipam.Open(filepath.Join(dir, "ipam"))
	if err != nil {
		return err
	}
	cidrs := []netip.Prefix{netip.MustParsePrefix("10.1.0.0/28"), netip.MustParsePrefix("fd00::/64")}
	if err := store.SetCIDRs(cidrs); err != nil {
		return err
	}
	gate := filepath.Join(dir, "gate")
	if err := os.MkdirAll(gate, 0o700); err != nil {
		return err
	}
	links := veth.New("/proc/sys")
	if err := errors.Join(links.ForwardIPv4(), links.ForwardIPv6()); err != nil {
		return err
	}
	deps := cni.Deps{
		Addresses: store, Records: store, Links: links, Gate: folderGate(gate), Connections: connections{},
		Ready: func(context.Context) error { return nil },
		MTU:   func() int { return 1420 },
	}
	l, err := server.Listen(filepath.Join(dir, "run", "agent.sock"))
	if err != nil {
		return err
	}
	if _, err := cni.Reconcile(ctx, deps); err != nil {
		return err
	}
	return server.New(server.Options{
		Deps:    deps,
		Pending: pending.Folder(filepath.Join(dir, "run", cni.PendingDir)),
		Log:     slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Limit:   5 * time.Second,
	}).Serve(ctx, l)
}
