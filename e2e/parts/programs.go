package parts

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// program is one binary that the Go client builds.
type program struct {
	module   string   // module@version that is built in its own folder; "" for a package of this repository
	local    string   // folder below e2e, when module is ""
	pkg      string   // package to build, relative to the module or the local folder
	tags     string   // build tags
	ldflags  string   // besides -s -w
	test     bool     // a test binary
	cgo      bool     // needs the C toolchain
	inputs   []string // further folders below e2e that it is made of
	packages []string // Debian packages that the build needs
}

// KubernetesCommands are the names by which the one Kubernetes binary is called.
func KubernetesCommands() []string {
	return []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubeadm", "kubectl"}
}

func kubernetesLDFlags() string {
	minor := strings.Split(KubernetesVersion, ".")[1]
	var flags []string
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		for _, v := range []string{
			"gitVersion=" + KubernetesVersion, "gitMajor=1", "gitMinor=" + minor,
			"gitCommit=local", "gitTreeState=clean", "buildDate=2026-01-01T00:00:00Z",
		} {
			flags = append(flags, "-X "+pkg+"."+v)
		}
	}
	return strings.Join(flags, " ")
}

func programs() map[string]program {
	const (
		containerd = "github.com/containerd/containerd/v2@" + containerdVersion
		plugins    = "github.com/containernetworking/plugins@" + pluginsVersion
		slim       = "no_aufs no_zfs no_btrfs no_devmapper no_blockfile no_tracing"
		version    = "-X github.com/containerd/containerd/v2/version.Version=" + containerdVersion
	)
	k8s := kubernetesLDFlags()
	return map[string]program{
		"kubernetes":              {local: "upstream/kubernetes", pkg: ".", tags: "upstream", ldflags: k8s},
		"agnhost":                 {local: "upstream/kubernetes", pkg: "k8s.io/kubernetes/test/images/agnhost", ldflags: k8s},
		"netpol.test":             {local: "upstream/netpol", pkg: ".", tags: "upstream", ldflags: k8s, test: true},
		"cnp.test":                {local: "upstream/cnp", pkg: ".", tags: "upstream", test: true},
		"agnhost-sctp":            {local: "cmd/agnhost", pkg: "."},
		"ginkgo":                  {local: "upstream/netpol", pkg: "github.com/onsi/ginkgo/v2/ginkgo"},
		"coredns":                 {local: "upstream/coredns", pkg: "."},
		"etcd":                    {local: "upstream/etcd", pkg: "."},
		"containerd":              {module: containerd, pkg: "./cmd/containerd", tags: slim, ldflags: version},
		"containerd-shim-runc-v2": {module: containerd, pkg: "./cmd/containerd-shim-runc-v2", tags: slim, ldflags: version},
		"ctr":                     {module: containerd, pkg: "./cmd/ctr", tags: slim, ldflags: version},
		"runc": {module: "github.com/opencontainers/runc@" + runcVersion, pkg: ".", tags: "seccomp", cgo: true,
			ldflags: "-X main.version=" + runcVersion, packages: []string{"gcc", "libc6-dev", "libseccomp-dev", "pkg-config"}},
		"loopback":   {module: plugins, pkg: "./plugins/main/loopback"},
		"ptp":        {module: plugins, pkg: "./plugins/main/ptp"},
		"host-local": {module: plugins, pkg: "./plugins/ipam/host-local"},
		"portmap":    {module: plugins, pkg: "./plugins/meta/portmap"},
		"bandwidth":  {module: plugins, pkg: "./plugins/meta/bandwidth"},
		"crictl":     {module: "sigs.k8s.io/cri-tools@" + crictlVersion, pkg: "./cmd/crictl"},
		"kind":       {module: "sigs.k8s.io/kind@" + KindVersion, pkg: "."},
		"runc-clamp": {local: "cmd/runc-clamp", pkg: "."},
		"flows":      {local: "cmd/flows", pkg: "."},
		"node":       {local: "cmd/node", pkg: ".", inputs: []string{"node"}},
	}
}

// Program returns the path of a built program, building it if the cache does not hold it.
func (b *Builder) Program(ctx context.Context, name string) (string, error) {
	unlock, err := b.lock()
	if err != nil {
		return "", err
	}
	defer unlock()
	return b.program(ctx, name)
}

func (b *Builder) program(ctx context.Context, name string) (string, error) {
	if name == "pause" {
		return b.pause(ctx)
	}
	p, ok := programs()[name]
	if !ok {
		return "", fmt.Errorf("no part is called %q", name)
	}
	key, err := b.programKey(name, p)
	if err != nil {
		return "", fmt.Errorf("part %s: %w", name, err)
	}
	return b.cached(name, key, func(out string) error { return b.compile(ctx, p, out) })
}

func (b *Builder) programKey(name string, p program) (string, error) {
	inputs := []string{name, p.module, p.pkg, p.tags, p.ldflags, fmt.Sprint(p.cgo, p.test)}
	if p.module == "" {
		for _, dir := range append([]string{p.local}, p.inputs...) {
			tree, err := hashTree(filepath.Join(b.Module, dir))
			if err != nil {
				return "", err
			}
			inputs = append(inputs, tree)
		}
		inputs = append(inputs, KubernetesVersion)
	}
	return hash(inputs...), nil
}

func (b *Builder) compile(ctx context.Context, p program, out string) error {
	if err := b.EnsurePackages(ctx, p.packages...); err != nil {
		return err
	}
	dir := filepath.Join(b.Module, p.local)
	if p.module != "" {
		var err error
		if dir, err = ModuleDir(ctx, p.module); err != nil {
			return err
		}
	}
	args := []string{"go", "build"}
	if p.test {
		args = []string{"go", "test", "-c", "-vet=off"}
	}
	args = append(args, "-trimpath", "-tags", p.tags, "-ldflags", strings.TrimSpace("-s -w "+p.ldflags), "-o", out, p.pkg)
	cgo := "CGO_ENABLED=0"
	if p.cgo {
		cgo = "CGO_ENABLED=1"
	}
	_, err := run(ctx, dir, []string{cgo}, args...)
	return err
}

// ModuleDir downloads module@version and returns its folder in the module cache.
func ModuleDir(ctx context.Context, module string) (string, error) {
	out, err := run(ctx, os.TempDir(), nil, "go", "mod", "download", "-json", module)
	if err != nil {
		return "", fmt.Errorf("download %s: %w", module, err)
	}
	var m struct{ Dir string }
	if err := json.Unmarshal([]byte(out), &m); err != nil {
		return "", fmt.Errorf("download %s: %w", module, err)
	}
	return m.Dir, nil
}

// pause is upstream's C program: a Go one would cost a megabyte of memory per pod.
func (b *Builder) pause(ctx context.Context) (string, error) {
	return b.cached("pause", hash("pause", pauseVersion, KubernetesVersion), func(out string) error {
		if err := b.EnsurePackages(ctx, "gcc", "libc6-dev"); err != nil {
			return err
		}
		dir, err := ModuleDir(ctx, "k8s.io/kubernetes@"+KubernetesVersion)
		if err != nil {
			return err
		}
		source := filepath.Join(dir, "build", "pause", "linux", "pause.c")
		_, err = run(ctx, dir, nil, "gcc", "-Os", "-s", "-static", "-DVERSION="+pauseVersion, "-o", out, source)
		return err
	})
}
