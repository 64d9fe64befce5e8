package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/kithnet/kith/e2e/node"
)

func (c *Cluster) startNodes(context.Context) error {
	for i := range c.Members {
		if err := c.startNode(&c.Members[i]); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) startNode(n *Node) error {
	config, err := c.writeNode(*n)
	if err != nil {
		return fmt.Errorf("files of %s: %w", n.Name, err)
	}
	if n.Process, err = spawn(filepath.Join(c.NodeDir(n.Name), "node.log"), c.Set.Bin("node"), "start", config); err != nil {
		return fmt.Errorf("start %s: %w", n.Name, err)
	}
	return c.save()
}

// Kubectl runs kubectl against the cluster and returns what it prints.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) (string, error) {
	return c.kubectl(ctx, "", args...)
}

// Apply applies manifests.
func (c *Cluster) Apply(ctx context.Context, manifests string) error {
	_, err := c.kubectl(ctx, manifests, "apply", "-f", "-")
	return err
}

func (c *Cluster) kubectl(ctx context.Context, stdin string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, c.Set.Bin("kubectl"), append([]string{"--kubeconfig", c.Kubeconfig()}, args...)...)
	if stdin != "" {
		cmd.Stdin = strings.NewReader(stdin)
	}
	out, err := output(cmd)
	if err != nil {
		return out, fmt.Errorf("kubectl %s: %w", strings.Join(args, " "), err)
	}
	return out, nil
}

// poll tries until it works, the time is up or the context ends.
func poll(ctx context.Context, limit time.Duration, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited %s: %w", limit, err)
		case <-time.After(300 * time.Millisecond):
		}
	}
}

func (c *Cluster) waitAPI(ctx context.Context) error {
	return poll(ctx, 2*time.Minute, func(ctx context.Context) error {
		if !c.Members[0].Process.alive() {
			return fmt.Errorf("%s: %w, see %s", c.Members[0].Name, errNotRunning, c.NodeDir(c.Members[0].Name))
		}
		_, err := c.Kubectl(ctx, "get", "--raw", "/readyz")
		return err
	})
}

func (c *Cluster) applyAddons(ctx context.Context) error {
	var b strings.Builder
	if err := c.render(&b, "addons.yaml"); err != nil {
		return err
	}
	return poll(ctx, 30*time.Second, func(ctx context.Context) error { return c.Apply(ctx, b.String()) })
}

func (c *Cluster) waitRegistered(ctx context.Context) error {
	return poll(ctx, 2*time.Minute, func(ctx context.Context) error {
		out, err := c.Kubectl(ctx, "get", "nodes", "-o", "name")
		if err != nil {
			return err
		}
		if n := len(strings.Fields(out)); n != len(c.Members) {
			return fmt.Errorf("%d of %d nodes registered", n, len(c.Members))
		}
		return nil
	})
}

// WaitReady waits until all nodes are ready and the cluster's names resolve.
func (c *Cluster) WaitReady(ctx context.Context) error {
	if _, err := c.Kubectl(ctx, "wait", "--for=condition=Ready", "node", "--all", "--timeout=180s"); err != nil {
		return err
	}
	c.say("nodes ready")
	if _, err := c.Kubectl(ctx, "-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=180s"); err != nil {
		return err
	}
	c.say("CoreDNS ready")
	return nil
}

// Load imports an image archive into all nodes; nodes that start later import it too.
func (c *Cluster) Load(ctx context.Context, archive string) error {
	name := filepath.Base(archive)
	content, err := os.ReadFile(archive)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(c.imageDir(), name), content, 0o644); err != nil {
		return err
	}
	for _, n := range c.Members {
		cmd, err := c.Exec(n.Name, "ctr", "-n", "k8s.io", "images", "import", filepath.Join(node.ImageDir, "1", name))
		if err != nil {
			return err
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("import %s on %s: %w: %s", name, n.Name, err, out)
		}
	}
	return nil
}

// Install loads the image of Kith and applies its manifest, then waits until every node is ready.
func (c *Cluster) Install(ctx context.Context, imageArchive, manifest string) error {
	if err := c.Load(ctx, imageArchive); err != nil {
		return err
	}
	c.say("image loaded")
	if _, err := c.Kubectl(ctx, "apply", "-f", manifest); err != nil {
		return err
	}
	if _, err := c.Kubectl(ctx, "-n", "kith-system", "rollout", "status", "daemonset/kith", "--timeout=180s"); err != nil {
		return err
	}
	c.say("Kith ready")
	return c.WaitReady(ctx)
}

// Restart power-cycles a node: all its processes end at once and its network namespace goes with
// them; disks stay.
func (c *Cluster) Restart(name string) error {
	n, err := c.node(name)
	if err != nil {
		return err
	}
	if err := c.stopNode(*n); err != nil {
		return err
	}
	if err := c.attach(n.Name, n.Name, n.Addresses); err != nil {
		return fmt.Errorf("link of node %s: %w", name, err)
	}
	return c.startNode(n)
}

func (c *Cluster) stopNode(n Node) error {
	first, _ := c.pid1(n.Name)
	if err := errors.Join(n.Process.kill(), first.gone()); err != nil {
		return fmt.Errorf("stop %s: %w", n.Name, err)
	}
	if err := node.RemoveCgroups(n.Name); err != nil {
		return fmt.Errorf("stop %s: %w", n.Name, err)
	}
	// The namespace would take the link with it, but only some time later.
	if err := errors.Join(c.removePort(n.Name), removeNetns(n.Name)); err != nil {
		return fmt.Errorf("network of %s: %w", n.Name, err)
	}
	return nil
}

// Down ends the cluster's processes and removes all it made. It goes on after failures.
func (c *Cluster) Down() error {
	var failed []error
	for _, n := range c.Members {
		failed = append(failed, c.stopNode(n))
	}
	failed = append(failed, c.Host.kill(), removeLink(&netlink.Handle{}, c.rootLink()),
		removeNetns(c.outsideNetns()), removeNetns(c.underlayNetns()))
	if err := errors.Join(failed...); err != nil {
		return fmt.Errorf("take %s down: %w", c.Name, err)
	}
	return os.RemoveAll(c.dir)
}
