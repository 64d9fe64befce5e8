// Command demo brings a three-node cluster up, installs Kith, shows policies at work, and ends with what
// crossed the wires between the nodes. It takes the cluster down again unless KEEP=1. On a cluster that is
// up already, named by KITH_E2E_CLUSTER, it shows only the policies.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/kithnet/kith/e2e/cluster"
	"github.com/kithnet/kith/e2e/demo"
	"github.com/kithnet/kith/e2e/parts"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("namespaces and mounts need root")
	}
	builder, err := parts.New(os.Stdout)
	if err != nil {
		return err
	}
	dir := filepath.Join(builder.Cache, "run")
	if name := os.Getenv("KITH_E2E_CLUSTER"); name != "" {
		c, err := cluster.Open(dir, name, os.Stdout)
		if err != nil {
			return err
		}
		return onCluster(ctx, c, builder, func() error { return nil })
	}
	set, err := builder.Cluster(ctx)
	if err != nil {
		return err
	}
	archive, err := builder.Kith(ctx)
	if err != nil {
		return err
	}
	spec := cluster.Spec{Name: "lab", Nodes: 3, CNI: cluster.Kith, Stack: cluster.IPv4}
	if !keep() {
		spec.Owner = cluster.Self()
	}
	fmt.Printf("\nA cluster of %d nodes comes up without a pod network; then: kubectl apply -f deploy/kith.yaml\n", spec.Nodes)
	c, err := cluster.Up(ctx, dir, spec, set, os.Stdout)
	if err == nil {
		err = onCluster(ctx, c, builder, func() error {
			return c.Install(ctx, archive, filepath.Join(filepath.Dir(builder.Module), "deploy", "kith.yaml"))
		})
	}
	if c == nil {
		return err
	}
	return errors.Join(err, end(c))
}

// onCluster captures from before Kith is installed until the last step.
func onCluster(ctx context.Context, c *cluster.Cluster, builder *parts.Builder, install func() error) error {
	capture, err := c.Capture()
	if err != nil {
		return err
	}
	if err := install(); err != nil {
		return err
	}
	wrong, err := show(ctx, c)
	if err != nil {
		return err
	}
	return errors.Join(cells(wrong), prove(capture), status(ctx, c, filepath.Join(filepath.Dir(builder.Module), "build", "image", "kith")))
}

func show(ctx context.Context, c *cluster.Cluster) (wrong int, err error) {
	d := demo.Demo{Cluster: c, Out: os.Stdout}
	if _, err := unix.IoctlGetTermios(int(os.Stdout.Fd()), unix.TCGETS); err == nil && os.Getenv("NO_COLOR") == "" {
		d.Paint = demo.Terminal()
	}
	return d.Run(ctx)
}

func cells(wrong int) error {
	if wrong > 0 {
		return fmt.Errorf("%d cells are not as expected", wrong)
	}
	fmt.Println("\nEvery cell is as expected.")
	return nil
}

// prove shows what crossed the wires since before Kith was installed.
func prove(capture *cluster.Capture) error {
	seen, err := capture.Stop()
	if err != nil {
		return err
	}
	fmt.Printf("\nWhat crossed the links between the nodes, from before Kith was installed until now:\n\n%s", seen)
	switch {
	case seen.Leaks > 0:
		return fmt.Errorf("%d packets bore a pod's address in the outer header", seen.Leaks)
	case seen.MissedAt > 0:
		return fmt.Errorf("%d packets with a pod's address were not looked at for lack of buffer", seen.MissedAt)
	case seen.Classes[cluster.WireGuardClass] == 0:
		return errors.New("no WireGuard packet was seen")
	}
	return nil
}

func status(ctx context.Context, c *cluster.Cluster, kith string) error {
	fmt.Println("\nkith status:")
	cmd := exec.CommandContext(ctx, kith, "status")
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig())
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("kith status: %w", err)
	}
	return nil
}

// end takes the cluster down, or tells how to use it and how to do that later.
func end(c *cluster.Cluster) error {
	if keep() {
		fmt.Printf("\nThe cluster is up:\n  export KUBECONFIG=%s PATH=%s:$PATH\nIt goes with: make cluster-down\n", c.Kubeconfig(), c.Set.Bin())
		return nil
	}
	return c.Down()
}

func keep() bool { return os.Getenv("KEEP") == "1" }
