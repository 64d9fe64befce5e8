package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const proxyConfig = "kube-proxy.yaml"

// SetProxy starts kube-proxy on every node again in a mode, and waits until it has made the rules of all Services by it and
// taken away those of the other mode.
func (c *Cluster) SetProxy(ctx context.Context, mode Proxy) error {
	if err := mode.check(); err != nil {
		return err
	}
	c.Proxy = mode
	if err := c.save(); err != nil {
		return err
	}
	for _, n := range c.Members {
		var b strings.Builder
		if err := c.render(&b, proxyConfig); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(c.NodeDir(n.Name), "etc", proxyConfig), []byte(b.String()), 0o644); err != nil {
			return err
		}
		// kube-proxy may have ended by itself: it watches its file.
		pids, err := c.Processes(n.Name, "kube-proxy")
		if err != nil {
			return err
		}
		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && err != unix.ESRCH {
				return fmt.Errorf("end kube-proxy of %s: %w", n.Name, err)
			}
		}
	}
	for _, n := range c.Members {
		if err := c.awaitProxy(ctx, n.Name, mode); err != nil {
			return fmt.Errorf("kube-proxy of %s by %s: %w", n.Name, mode, err)
		}
	}
	c.say("kube-proxy by %s", mode)
	return nil
}

// awaitProxy waits until the rules of a mode are there, and no others of kube-proxy's.
func (c *Cluster) awaitProxy(ctx context.Context, node string, mode Proxy) error {
	return poll(ctx, 2*time.Minute, func(context.Context) error {
		now, err := c.ExecRun(node, "curl", "-sS", "-m", "5", "http://127.0.0.1:10249/proxyMode")
		if err != nil {
			return err
		}
		if now != string(mode) {
			return fmt.Errorf("it runs by %q", now)
		}
		rules, err := c.ExecRun(node, "nft", "list", "chains")
		if err != nil {
			return err
		}
		for text, of := range map[string]Proxy{"table ip kube-proxy ": NFTables, "chain KUBE-SVC-": IPTables} {
			if there := strings.Contains(rules, text); there != (of == mode) {
				return fmt.Errorf("rules by %s: %v", of, there)
			}
		}
		return nil
	})
}
