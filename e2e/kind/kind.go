// Package kind brings up real kind clusters, with nothing but the Go client and Debian packages at hand.
//
// Input: a kind configuration file as people write it, and a Builder for parts. Output: a running cluster, its
// kubeconfig (usable from this machine as it is), and ways to run things on its nodes.
//
// Where the user's own Docker engine works and can pull kind's public node image, that is what is used.
// Else an engine is started from unpacked Debian packages, in network and mount namespaces of its own, and the
// node image is built here from debootstrap and the parts. Invariants: that engine never touches the machine's
// own network namespace, but for one veth (its API servers' way in); nothing is installed as a service; Down
// ends only what Up started, by recorded process id, and leaves only the cache. Out of scope: what runs on the
// cluster, but for installing Kith.
package kind

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kithnet/kith/e2e/parts"
)

// runDir holds what lives no longer than the clusters.
const runDir = "/run/kith-kind"

// Cluster is a running kind cluster.
type Cluster struct {
	Name string

	engine  engine
	kind    string // path of kind
	kubectl string // path of a kubectl of the nodes' version
	outside []netip.Addr
}

// Up creates the cluster that the configuration file describes, under the name given. Its nodes are not ready:
// they have no CNI yet.
func Up(ctx context.Context, b *parts.Builder, name, configFile string) (*Cluster, error) {
	unlock, err := lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	program, err := b.Program(ctx, "kind")
	if err != nil {
		return nil, err
	}
	set, err := b.Cluster(ctx)
	if err != nil {
		return nil, err
	}
	engine, image, err := findEngine(ctx, b, set)
	if err != nil {
		return nil, err
	}
	c := &Cluster{Name: name, engine: engine, kind: program, kubectl: set.Bin("kubectl")}
	b.Say("creating kind cluster %s", name)
	if err := c.create(ctx, configFile, image); err != nil {
		return nil, fmt.Errorf("kind cluster %s: %w", name, err)
	}
	if err := c.startOutside(ctx, b); err != nil {
		return nil, fmt.Errorf("kind cluster %s: %w", name, err)
	}
	return c, nil
}

func (c *Cluster) create(ctx context.Context, configFile, image string) error {
	file, err := os.ReadFile(configFile)
	if err != nil {
		return err
	}
	config, err := configure(file, c.engine.additions(c.Name))
	if err != nil {
		return fmt.Errorf("%s: %w", configFile, err)
	}
	path := filepath.Join(runDir, c.Name+".yaml")
	if err := os.WriteFile(path, config, 0o600); err != nil {
		return err
	}
	defer os.Remove(path)
	args := []string{"create", "cluster", "--name", c.Name, "--config", path, "--kubeconfig", c.Kubeconfig(), "--wait", "0s"}
	if image != "" {
		args = append(args, "--image", image)
	}
	_, err = c.engine.kind(ctx, c.kind, args...)
	return err
}

// Down deletes the named cluster if it is there, and ends the engine that Up started once it holds no cluster.
func Down(ctx context.Context, b *parts.Builder, name string) error {
	unlock, err := lock()
	if err != nil {
		return err
	}
	defer unlock()
	program, err := b.Program(ctx, "kind")
	if err != nil {
		return err
	}
	own, running := runningDaemon()
	engines := []engine{userEngine()}
	if running {
		engines = append(engines, own.engine())
	}
	for _, e := range engines {
		if err := deleteCluster(ctx, e, program, name); err != nil {
			return fmt.Errorf("kind cluster %s: %w", name, err)
		}
	}
	if !running {
		return nil
	}
	left, err := clusters(ctx, own.engine(), program)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		b.Say("the engine stays for %s", strings.Join(left, ", "))
		return nil
	}
	return own.stop(ctx)
}

func deleteCluster(ctx context.Context, e engine, program, name string) error {
	if !e.works(ctx) {
		return nil
	}
	if err := removeOutside(ctx, e, name); err != nil {
		return err
	}
	names, err := clusters(ctx, e, program)
	if err != nil || !slices.Contains(names, name) {
		return err
	}
	if _, err := e.kind(ctx, program, "delete", "cluster", "--name", name, "--kubeconfig", kubeconfig(name)); err != nil {
		return err
	}
	for _, suffix := range []string{"", ".lock"} {
		if err := os.Remove(kubeconfig(name) + suffix); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	return nil
}

func clusters(ctx context.Context, e engine, program string) ([]string, error) {
	out, err := e.kind(ctx, program, "get", "clusters", "-q")
	return strings.Fields(out), err
}

// Nodes names the cluster's nodes.
func (c *Cluster) Nodes(ctx context.Context) ([]string, error) {
	out, err := c.engine.kind(ctx, c.kind, "get", "nodes", "-q", "--name", c.Name)
	names := strings.Fields(out)
	slices.Sort(names)
	return names, err
}

// Exec runs a command on a node, in its namespaces, and returns what it printed.
func (c *Cluster) Exec(ctx context.Context, node string, args ...string) (string, error) {
	return c.engine.docker(ctx, append([]string{"exec", node}, args...)...)
}

// Load imports an image archive on every node.
func (c *Cluster) Load(ctx context.Context, archive string) error {
	_, err := c.engine.kind(ctx, c.kind, "load", "image-archive", archive, "--name", c.Name)
	return err
}

// Kubeconfig is the path of an administrator's kubeconfig.
func (c *Cluster) Kubeconfig() string { return kubeconfig(c.Name) }

// Kubectl runs kubectl against the cluster and returns what it prints.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) (string, error) {
	return run(c.kube(ctx, args))
}

// Apply applies manifests.
func (c *Cluster) Apply(ctx context.Context, manifests string) error {
	cmd := c.kube(ctx, []string{"apply", "-f", "-"})
	cmd.Stdin = strings.NewReader(manifests)
	_, err := run(cmd)
	return err
}

func (c *Cluster) kube(ctx context.Context, args []string) *exec.Cmd {
	return exec.CommandContext(ctx, c.kubectl, append([]string{"--kubeconfig", c.Kubeconfig()}, args...)...)
}

// Install loads the image of Kith and applies its manifest, then waits until every node enforces and DNS answers.
func (c *Cluster) Install(ctx context.Context, archive, manifest string) error {
	if err := c.Load(ctx, archive); err != nil {
		return fmt.Errorf("install Kith: %w", err)
	}
	for _, step := range [][]string{
		{"apply", "-f", manifest},
		{"-n", "kith-system", "rollout", "status", "daemonset/kith", "--timeout=180s"},
		{"wait", "--for=condition=Ready", "node", "--all", "--timeout=120s"},
		{"-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=120s"},
	} {
		if _, err := c.Kubectl(ctx, step...); err != nil {
			return fmt.Errorf("install Kith: %w", err)
		}
	}
	return nil
}

func kubeconfig(name string) string { return filepath.Join(runDir, name+".kubeconfig") }

// lock keeps two Ups or Downs apart; the lock goes with the process.
func lock() (func(), error) {
	if err := os.MkdirAll(runDir, 0o700); err != nil {
		return nil, fmt.Errorf("kind: %w", err)
	}
	file, err := os.OpenFile(runDir+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("kind: %w", err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); err != nil {
		return nil, fmt.Errorf("kind: lock: %w", err)
	}
	return func() { file.Close() }, nil
}

// run runs a command to its end and returns its standard output; all of its output is in the error.
func run(cmd *exec.Cmd) (string, error) {
	var stdout, both bytes.Buffer
	cmd.Stdout = io.MultiWriter(&stdout, &both)
	cmd.Stderr = &both
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, bytes.TrimSpace(both.Bytes()))
	}
	return stdout.String(), nil
}

// poll tries until it succeeds or time is up, and then returns the last error.
func poll(ctx context.Context, limit time.Duration, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(100 * time.Millisecond):
		}
	}
}
