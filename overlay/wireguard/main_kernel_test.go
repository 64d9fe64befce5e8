//go:build kernel

package wireguard_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"github.com/kithnet/kith/overlay/wireguard/userspace"
)

// serveEnv makes the test program serve TUN devices, as kith-wireguard does.
const serveEnv = "KITH_TEST_SERVE"

func TestMain(m *testing.M) {
	if name := os.Getenv(serveEnv); name != "" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		level := slog.LevelWarn
		if os.Getenv("KITH_TEST_VERBOSE") != "" {
			level = slog.LevelDebug
		}
		log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
		userspace.Run(ctx, strings.Split(name, ","), log)
		return
	}
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "kernel tests need root")
		os.Exit(1)
	}
	os.Exit(m.Run())
}
