// Package userspace carries WireGuard where the kernel cannot: wireguard-go on TUN
// devices.
//
// Input: the devices' names. What peers there are it is told over wireguard-go's
// control sockets, /var/run/wireguard/NAME.sock.
//
// Invariants:
//   - A TUN device outlives the process: its interface, addresses and routes stay,
//     packets into it are dropped meanwhile, and the next process takes it over.
//   - The control socket listens before the device gets its carrier, so who sees the
//     carrier can configure.
//   - A device deleted by hand is made anew.
//   - Why a device is not served is in the file NAME.problem beside its control socket,
//     for the agent, which has no other way to know.
//   - What ICMP says of sizes neither cuts nor stops the tunnel's packets.
//
// Out of scope: configuration of any kind; keys and peers are forgotten with the
// process.
package userspace

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
)

// Only a device that cannot be had at all makes it wait this long.
const retryDelay = 500 * time.Millisecond

var errDeviceGone = errors.New("device deleted")

// Run serves the devices until ctx ends. It reports through log why it starts over.
func Run(ctx context.Context, names []string, log *slog.Logger) {
	var all sync.WaitGroup
	for _, name := range names {
		all.Go(func() { keep(ctx, name, log) })
	}
	all.Go(func() { keepWhole(ctx, log) })
	all.Wait()
}

// keep serves one device until ctx ends.
func keep(ctx context.Context, name string, log *slog.Logger) {
	for {
		err := serve(ctx, name, log)
		if ctx.Err() != nil {
			return
		}
		log.Warn("starting over", "device", name, "error", errors.Join(err, tell(problemPath(name), err)))
		if errors.Is(err, errDeviceGone) {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(retryDelay):
		}
	}
}

func problemPath(name string) string { return filepath.Join(controlDir, name+".problem") }

// tell writes down why a device is not served.
func tell(path string, problem error) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(problem.Error()), 0o600)
}

// serve carries one TUN device for as long as it exists.
func serve(ctx context.Context, name string, log *slog.Logger) error {
	control, err := listen(controlPath(name))
	if err != nil {
		return fmt.Errorf("make control socket of %s: %w", name, err)
	}
	tun, err := openTUN(name)
	if err != nil {
		return errors.Join(fmt.Errorf("open TUN device %s: %w", name, err), control.Close())
	}
	dev := device.NewDevice(tun, conn.NewDefaultBind(), logger(name, log))
	defer dev.Close()
	if err := os.Remove(problemPath(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("cannot take back what was wrong", "error", err)
	}
	log.Info("serving", "device", name)
	ctx, cancel := context.WithCancel(ctx)
	failed := make(chan error, 1)
	var accepting sync.WaitGroup
	accepting.Go(func() { failed <- accept(ctx, control, dev.IpcHandle) })
	// The socket's file is gone before the next one is made.
	defer accepting.Wait()
	defer cancel()
	select {
	case <-ctx.Done():
		return nil
	case <-dev.Wait():
		return errDeviceGone
	case err := <-failed:
		return fmt.Errorf("control socket of %s: %w", name, err)
	}
}
