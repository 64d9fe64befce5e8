// Command kind is behind `make kind`: a kind cluster with Kith on it.
//
//	go run ./cmd/kind up   [-config FILE] [-name NAME] [-cni kith|none]
//	go run ./cmd/kind down [-name NAME]
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/kithnet/kith/e2e/kind"
	"github.com/kithnet/kith/e2e/parts"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "kind:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("up or down?")
	}
	root, err := parts.RepoRoot()
	if err != nil {
		return err
	}
	flags := flag.NewFlagSet("kind "+args[0], flag.ContinueOnError)
	name := flags.String("name", "kith", "the cluster's name")
	config := flags.String("config", filepath.Join(root, "deploy", "kind", "cluster.yaml"), "kind's configuration `file`")
	cni := flags.String("cni", "kith", "`kith`, or none to leave it to you")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	builder, err := parts.New(os.Stderr)
	if err != nil {
		return err
	}
	switch args[0] {
	case "up":
		return up(ctx, builder, request{name: *name, config: *config, cni: *cni, root: root})
	case "down":
		return kind.Down(ctx, builder, *name)
	}
	return fmt.Errorf("%q is neither up nor down", args[0])
}

type request struct{ name, config, cni, root string }

func up(ctx context.Context, builder *parts.Builder, r request) error {
	if r.cni != "kith" && r.cni != "none" {
		return fmt.Errorf("cni %q is neither kith nor none", r.cni)
	}
	cluster, err := kind.Up(ctx, builder, r.name, r.config)
	if err != nil {
		return err
	}
	if r.cni == "kith" {
		image, err := builder.Kith(ctx)
		if err != nil {
			return err
		}
		builder.Say("installing Kith")
		if err := cluster.Install(ctx, image, filepath.Join(r.root, "deploy", "kith.yaml")); err != nil {
			return err
		}
	}
	builder.Say("the cluster is up")
	fmt.Printf("export KUBECONFIG=%s\n", cluster.Kubeconfig())
	return nil
}
