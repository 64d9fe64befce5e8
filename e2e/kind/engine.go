package kind

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/kithnet/kith/e2e/parts"
)

// publicImage is the node image that this version of kind uses by itself.
const publicImage = "kindest/node:v1.37.0@sha256:a1ed56cfb0e7b93589bdf97c8cd566405a265939e3620fc4f5de89adff580ae5"

// engine is a Docker engine: how to reach it, and what clusters in it need.
type engine struct {
	env []string
	// tools are folders searched for programs before PATH.
	tools []string
	// enter goes before kind's own command line: what runs it where the engine's ports are.
	enter []string
	// apiServerAddress and proxyMode go into kind's configuration.
	apiServerAddress string
	proxyMode        string
}

// findEngine prefers the user's engine with the public image, and else starts one with an image built here.
func findEngine(ctx context.Context, b *parts.Builder, set parts.Set) (engine, string, error) {
	user := userEngine()
	if user.works(ctx) {
		b.Say("pulling %s", publicImage)
		if _, err := user.docker(ctx, "pull", publicImage); err == nil {
			return user, publicImage, nil
		}
		b.Say("the public node image cannot be pulled")
	}
	d, err := startDaemon(ctx, b, set)
	if err != nil {
		return engine{}, "", err
	}
	image, err := nodeImage(ctx, b, set, d)
	return d.engine(), image, err
}

func userEngine() engine { return engine{} }

func (e engine) works(ctx context.Context) bool {
	_, err := e.docker(ctx, "version", "--format", "{{.Server.Version}}")
	return err == nil
}

func (e engine) docker(ctx context.Context, args ...string) (string, error) {
	return run(e.command(ctx, e.find("docker"), args...))
}

// kind runs kind, which itself runs docker and looks for free ports.
func (e engine) kind(ctx context.Context, program string, args ...string) (string, error) {
	line := slices.Concat(e.enter, []string{program}, args)
	return run(e.command(ctx, line[0], line[1:]...))
}

func (e engine) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), e.env...)
	return cmd
}

// find looks a program up among the engine's own tools first.
func (e engine) find(program string) string {
	for _, dir := range e.tools {
		path := filepath.Join(dir, program)
		if info, err := os.Stat(path); err == nil && !info.IsDir() {
			return path
		}
	}
	return program
}

// patience lets a cluster start on a machine that is busy with others, and its disk be slow: a cluster that lives
// for a test need not outlive a power cut.
func patience() []string {
	const timeouts = `
timeouts:
  controlPlaneComponentHealthCheck: 10m0s
  discovery: 10m0s
  etcdAPICall: 5m0s
  kubeletHealthCheck: 10m0s
  kubernetesAPICall: 5m0s
  tlsBootstrap: 10m0s
`
	return []string{
		"kind: InitConfiguration" + timeouts,
		"kind: JoinConfiguration" + timeouts,
		"kind: ClusterConfiguration\netcd: {local: {extraArgs: [{name: unsafe-no-fsync, value: 'true'}]}}\n",
	}
}

func (e engine) additions(name string) additions {
	add := additions{name: name, apiServerAddress: e.apiServerAddress, proxyMode: e.proxyMode, patches: patience()}
	var fs unix.Statfs_t
	if unix.Statfs("/sys/fs/cgroup", &fs) != nil || fs.Type != unix.CGROUP2_SUPER_MAGIC {
		add.patches = append(add.patches, "kind: KubeletConfiguration\nfailCgroupV1: false\n")
	}
	return add
}
