// Command kith-wireguard carries the mesh's devices on nodes whose kernel has no
// WireGuard. It is a process of its own so that a restart of the agent does not
// cut the tunnel. Where the kernel has WireGuard it waits, idle.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/kithnet/kith/cmd/kith-agent/config"
	"github.com/kithnet/kith/overlay/wireguard"
	"github.com/kithnet/kith/overlay/wireguard/userspace"
)

// wireguard-go never gives a buffer back by itself; under this limit the garbage
// collector does.
const memoryLimit = 256 << 20

func main() {
	devices := flag.String("devices", "kith0,kith1", "names of the mesh's devices")
	file := flag.String("config", "", "the agent's configuration `file`, which says who carries WireGuard")
	mode := flag.String("wireguard", os.Getenv("KITH_WIREGUARD"), "auto, kernel or userspace; overrides the file")
	verbose := flag.Bool("verbose", false, "log every handshake")
	flag.Parse()
	level := slog.LevelInfo
	if *verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	word, err := implementation(*mode, *file)
	if err == nil {
		err = run(ctx, strings.Split(*devices, ","), word, log)
	}
	if err != nil {
		log.Error("cannot carry the mesh's devices", "error", err)
		os.Exit(1)
	}
}

// implementation is the word given, else the file's, else none.
func implementation(word, file string) (string, error) {
	if word != "" || file == "" {
		return word, nil
	}
	cfg, err := config.Load(file)
	return string(cfg.WireGuard.Implementation), err
}

func run(ctx context.Context, devices []string, word string, log *slog.Logger) error {
	mode, err := wireguard.ParseMode(word)
	if err != nil {
		return err
	}
	if mode == wireguard.Auto {
		if mode, err = wireguard.Probe(); err != nil {
			return fmt.Errorf("choose who carries WireGuard: %w", err)
		}
	}
	if mode == wireguard.Kernel {
		log.Info("the kernel carries WireGuard: idle", "devices", devices)
		<-ctx.Done()
		return nil
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
	userspace.Run(ctx, devices, log)
	return nil
}
