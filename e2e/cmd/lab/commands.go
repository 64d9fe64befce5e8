package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/kithnet/kith/e2e/cluster"
	"github.com/kithnet/kith/e2e/parts"
)

type lab struct {
	spec    cluster.Spec
	capture time.Duration
	builder *parts.Builder
	dir     string
}

// command runs one command; those but up and parts need a cluster that is up.
func (l lab) command(ctx context.Context, name string, args []string) error {
	switch name {
	case "up":
		return l.up(ctx)
	case "parts":
		return l.parts(ctx, args)
	}
	c, err := cluster.Open(l.dir, l.spec.Name, os.Stderr)
	if name == "down" && errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	switch name {
	case "down":
		return c.Down()
	case "kubeconfig":
		_, err := fmt.Println(c.Kubeconfig())
		return err
	case "install":
		return l.install(ctx, c)
	case "capture":
		return l.watch(ctx, c)
	case "kubectl":
		return attached(exec.CommandContext(ctx, c.Set.Bin("kubectl"), append([]string{"--kubeconfig", c.Kubeconfig()}, args...)...))
	case "outside":
		return attached(c.Outside(args...))
	}
	if len(args) == 0 {
		return fmt.Errorf("%s: unknown command, or an argument is missing", name)
	}
	switch name {
	case "exec":
		cmd, err := c.Exec(args[0], args[1:]...)
		if err != nil {
			return err
		}
		return attached(cmd)
	case "proxy":
		return c.SetProxy(ctx, cluster.Proxy(args[0]))
	case "load":
		return c.Load(ctx, args[0])
	case "restart":
		return c.Restart(args[0])
	case "cut":
		return c.Cut(args[0])
	case "heal":
		return c.Heal(args[0])
	}
	return fmt.Errorf("unknown command %q", name)
}

func (l lab) up(ctx context.Context) error {
	set, err := l.builder.Cluster(ctx)
	if err != nil {
		return err
	}
	c, err := cluster.Up(ctx, l.dir, l.spec, set, os.Stderr)
	if err != nil {
		return err
	}
	if l.spec.CNI == cluster.Kith {
		if err := l.install(ctx, c); err != nil {
			return err
		}
	}
	fmt.Printf("export KUBECONFIG=%s PATH=%s:$PATH\n", c.Kubeconfig(), c.Set.Bin())
	return nil
}

// parts builds the parts named and prints their paths, or all that a cluster needs.
func (l lab) parts(ctx context.Context, names []string) error {
	if len(names) == 0 {
		_, err := l.builder.Cluster(ctx)
		return err
	}
	for _, name := range names {
		path, err := l.builder.Program(ctx, name)
		if err != nil {
			return err
		}
		fmt.Println(path)
	}
	return nil
}

func (l lab) install(ctx context.Context, c *cluster.Cluster) error {
	archive, err := l.builder.Kith(ctx)
	if err != nil {
		return err
	}
	return c.Install(ctx, archive, filepath.Join(filepath.Dir(l.builder.Module), "deploy", "kith.yaml"))
}

func (l lab) watch(ctx context.Context, c *cluster.Cluster) error {
	if l.capture > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, l.capture)
		defer cancel()
	}
	capture, err := c.Capture()
	if err != nil {
		return err
	}
	<-ctx.Done()
	report, err := capture.Stop()
	if err != nil {
		return err
	}
	fmt.Print(report)
	return nil
}

func attached(cmd *exec.Cmd) error {
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd.Run()
}
