// Command kith-agent is Kith's part on every node: it keeps the node's place in the encrypted mesh, keeps the
// kernel's rules as network policy asks for, and attaches pods for the CNI plugin.
//
// Usage:
//
//	kith-agent [-config FILE] [-proc-sys FOLDER]   run (the DaemonSet's main container)
//	kith-agent install-cni [-config FILE]          copy the CNI plugins to the node (its init container)
//	kith-agent version
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"

	"github.com/kithnet/kith/cmd/kith-agent/config"
	"github.com/kithnet/kith/cni"
	"github.com/kithnet/kith/cni/conflist"
)

// version is set by the linker.
var version = "development"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := command(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "kith-agent:", err)
		os.Exit(1)
	}
}

func command(ctx context.Context, args []string) error {
	name := ""
	if len(args) > 0 && args[0] != "" && args[0][0] != '-' {
		name, args = args[0], args[1:]
	}
	flags := flag.NewFlagSet("kith-agent "+name, flag.ContinueOnError)
	file := flags.String("config", config.DefaultPath, "configuration `file`")
	procSys := flags.String("proc-sys", "/proc/sys", "`folder` in which the node's sysctls can be written")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unknown argument %q: see kith-agent -h", flags.Arg(0))
	}
	if name == "version" {
		fmt.Println("kith-agent", version)
		return nil
	}
	cfg, err := readConfig(*file)
	if err != nil {
		return err
	}
	switch name {
	case "":
		if err := limitHeap(); err != nil {
			return err
		}
		log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: cfg.LogLevel}))
		return run(ctx, log, cfg, *procSys)
	case "install-cni":
		return installCNI(cfg)
	}
	return fmt.Errorf("unknown command %q: there are install-cni and version; none runs the agent", name)
}

// limitHeap keeps the heap below the container's memory limit, unless GOMEMLIMIT says otherwise: garbage is collected before
// the kernel ends the agent.
func limitHeap() error {
	limit, err := config.HeapLimit(os.Getenv(config.MemoryVariable))
	if err == nil && limit > 0 && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(limit)
	}
	return err
}

func readConfig(file string) (config.Config, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return config.Config{}, fmt.Errorf("read configuration: %w", err)
	}
	cfg, err := config.Parse(file, text)
	if err != nil {
		return config.Config{}, fmt.Errorf("configuration %s: %w", file, err)
	}
	return cfg, nil
}

// installCNI copies the plugins that lie beside this binary, those that the network configuration names under names of
// our own. A runtime's loopback may be there already, put there by a distribution: it stays.
func installCNI(cfg config.Config) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own binary: %w", err)
	}
	dir := filepath.Dir(self)
	for name, binary := range map[string]string{"kith-cni": "kith-cni", cni.Portmap: "portmap", cni.Bandwidth: "bandwidth"} {
		if err := conflist.Install(filepath.Join(dir, binary), cfg.CNI.BinDir, name); err != nil {
			return err
		}
	}
	return conflist.InstallMissing(filepath.Join(dir, "loopback"), cfg.CNI.BinDir, "loopback")
}
