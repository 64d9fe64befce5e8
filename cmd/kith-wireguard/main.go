// Command kith-wireguard carries the mesh's devices on nodes whose kernel has no
// WireGuard. It is a process of its own so that a restart of the agent does not
// cut the tunnel. Where the kernel has WireGuard it waits, idle; else it supervises
// the process that does the work, and starts it again at once when it ends.
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
	carry := flag.Bool("carry", false, "carry the devices in this process, supervised by another")
	verbose := flag.Bool("verbose", false, "log every handshake")
	flag.Parse()
	level := slog.LevelInfo
	if *verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	err := run(ctx, options{strings.Split(*devices, ","), *mode, *file, *carry}, log)
	if err != nil {
		log.Error("cannot carry the mesh's devices", "error", err)
		os.Exit(1)
	}
}

type options struct {
	devices    []string
	mode, file string
	carry      bool
}

func run(ctx context.Context, o options, log *slog.Logger) error {
	if o.carry {
		limit, err := config.HeapLimit(os.Getenv(config.MemoryVariable))
		if err != nil {
			return err
		}
		if os.Getenv("GOMEMLIMIT") == "" {
			debug.SetMemoryLimit(heapLimit(limit))
		}
		userspace.Run(ctx, o.devices, log)
		return nil
	}
	mode, err := implementation(o.mode, o.file)
	if err != nil {
		return err
	}
	if mode == wireguard.Kernel {
		log.Info("the kernel carries WireGuard: idle", "devices", o.devices)
		<-ctx.Done()
		return nil
	}
	carrier, err := itself()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	supervise(ctx, carrier, log)
	return nil
}

// heapLimit is memoryLimit, or less where the container has less.
func heapLimit(container int64) int64 {
	if container > 0 {
		return min(memoryLimit, container)
	}
	return memoryLimit
}

// implementation is by the word given, else the file's, else what the kernel has.
func implementation(word, file string) (wireguard.Mode, error) {
	if word == "" && file != "" {
		cfg, err := config.Load(file)
		if err != nil {
			return wireguard.Auto, err
		}
		word = string(cfg.WireGuard.Implementation)
	}
	mode, err := wireguard.ParseMode(word)
	if err == nil && mode == wireguard.Auto {
		if mode, err = wireguard.Probe(); err != nil {
			err = fmt.Errorf("choose who carries WireGuard: %w", err)
		}
	}
	return mode, err
}
