package kind

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/kithnet/kith/e2e/parts"
)

// nodeLayout changes when what nodeImage makes of the same parts changes.
const nodeLayout = "2"

const imageName = "kith/node"

// nodeImage returns the name of a node image in the engine, made of the parts if it is not there yet.
func nodeImage(ctx context.Context, b *parts.Builder, set parts.Set, d daemon) (string, error) {
	archives, err := nodeArchives(ctx, b, set)
	if err != nil {
		return "", err
	}
	base, err := rootfs(ctx, b, d)
	if err != nil {
		return "", fmt.Errorf("node image: %w", err)
	}
	key := sha256.Sum256([]byte(strings.Join(append(archives, base, set.Dir, nodeLayout), " ")))
	name := imageName + ":" + hex.EncodeToString(key[:6])
	if _, err := d.engine().docker(ctx, "image", "inspect", name); err == nil {
		return name, nil
	}
	b.Say("building the node image")
	work := filepath.Join(b.Cache, "kind", "node")
	err = makeNode(ctx, nodeTree{dir: work, base: base, set: set, archives: archives})
	if err == nil {
		err = importTree(ctx, d.engine(), work, name)
	}
	if err := errors.Join(err, os.RemoveAll(work)); err != nil {
		return "", fmt.Errorf("node image: %w", err)
	}
	return name, removeOthers(ctx, d.engine(), name)
}

// removeOthers removes node images of other parts: half a gigabyte each. The engine keeps what a cluster uses.
func removeOthers(ctx context.Context, e engine, keep string) error {
	out, err := e.docker(ctx, "images", "--format", "{{.Repository}}:{{.Tag}}", imageName)
	if err != nil {
		return fmt.Errorf("node images: %w", err)
	}
	for name := range strings.FieldsSeq(out) {
		if name != keep {
			_, _ = e.docker(ctx, "rmi", name)
		}
	}
	return nil
}

// nodeArchives are the images that every node holds from the start: the quick cluster's, and those of a control
// plane that runs in containers.
func nodeArchives(ctx context.Context, b *parts.Builder, set parts.Set) ([]string, error) {
	archives, err := filepath.Glob(filepath.Join(set.Images(), "*.tar"))
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"kubernetes", "etcd"} {
		archive, err := b.Image(ctx, name)
		if err != nil {
			return nil, err
		}
		archives = append(archives, archive)
	}
	slices.Sort(archives)
	return archives, nil
}

// nodeTree is a node's file system in the making.
type nodeTree struct {
	dir      string
	base     string
	set      parts.Set
	archives []string
}

func makeNode(ctx context.Context, n nodeTree) error {
	if err := os.RemoveAll(n.dir); err != nil {
		return err
	}
	// Hard links: the base is not written to, files are only ever replaced.
	if _, err := run(exec.CommandContext(ctx, "cp", "-al", n.base, n.dir)); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{n.programs, n.configure, n.preload} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (n nodeTree) programs(context.Context) error {
	places := map[string]string{
		n.set.Bin("kubernetes"):              "usr/bin/kubernetes",
		n.set.Bin("containerd"):              "usr/local/bin/containerd",
		n.set.Bin("containerd-shim-runc-v2"): "usr/local/bin/containerd-shim-runc-v2",
		n.set.Bin("ctr"):                     "usr/local/bin/ctr",
		n.set.Bin("runc"):                    "usr/local/sbin/runc",
		n.set.Bin("runc-clamp"):              "usr/local/sbin/runc-clamp",
	}
	for _, plugin := range []string{"loopback", "host-local", "ptp", "portmap"} {
		places[filepath.Join(n.set.CNI(), plugin)] = "opt/cni/bin/" + plugin
	}
	for from, to := range places {
		if err := os.Link(from, filepath.Join(n.dir, to)); err != nil {
			return err
		}
	}
	for _, command := range []string{"kubelet", "kubeadm", "kubectl"} {
		if err := os.Symlink("kubernetes", filepath.Join(n.dir, "usr/bin", command)); err != nil {
			return err
		}
	}
	return nil
}

func (n nodeTree) configure(ctx context.Context) error {
	if err := n.write("kind/version", []byte(parts.KubernetesVersion)); err != nil {
		return err
	}
	const file = "etc/containerd/config.toml"
	config, err := os.ReadFile(filepath.Join(n.dir, file))
	if err != nil {
		return err
	}
	if err := n.write(file, []byte(containerdConfig(string(config)))); err != nil {
		return err
	}
	spec, err := run(exec.CommandContext(ctx, n.set.Bin("ctr"), "oci", "spec"))
	if err != nil {
		return err
	}
	hooked, err := containerSpec([]byte(spec))
	if err != nil {
		return err
	}
	return n.write("etc/containerd/cri-base.json", hooked)
}

// containerdConfig changes kind's containerd configuration for machines without CAP_SYS_RESOURCE, and names
// the pause image that the node holds.
func containerdConfig(config string) string {
	lines := strings.Split(config, "\n")
	for i, line := range lines {
		indent := line[:len(line)-len(strings.TrimLeft(line, " "))]
		key, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch key {
		case "sandbox_image":
			lines[i] = indent + `sandbox_image = "` + parts.PauseImage + `"`
		case "restrict_oom_score_adj":
			lines[i] = indent + "restrict_oom_score_adj = true"
		case "SystemdCgroup":
			lines[i] = line + "\n" + indent + `BinaryName = "/usr/local/sbin/runc-clamp"`
		}
	}
	return strings.Join(lines, "\n")
}

// containerSpec does to containerd's default container what kind's base image does: product files, no limits.
func containerSpec(data []byte) ([]byte, error) {
	var spec map[string]any
	if err := json.Unmarshal(data, &spec); err != nil {
		return nil, fmt.Errorf("read container spec: %w", err)
	}
	if process, ok := spec["process"].(map[string]any); ok {
		delete(process, "rlimits")
	}
	spec["hooks"] = map[string]any{
		"createContainer": []any{map[string]any{"path": "/kind/bin/mount-product-files.sh"}},
	}
	return json.Marshal(spec)
}

// write replaces a file of the tree, never its content: that is shared with the base.
func (n nodeTree) write(path string, data []byte) error {
	path = filepath.Join(n.dir, path)
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err
	}
	return os.WriteFile(path, data, 0o644)
}

// preload fills the node's image store by a containerd of its own that lives only for this.
func (n nodeTree) preload(ctx context.Context) error {
	work, err := os.MkdirTemp("", "kith-preload-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	address := filepath.Join(work, "containerd.sock")
	config := fmt.Sprintf("version = 3\nroot = %q\nstate = %q\n"+
		"disabled_plugins = ['io.containerd.grpc.v1.cri', 'io.containerd.cri.v1.runtime', 'io.containerd.cri.v1.images', 'io.containerd.nri.v1.nri']\n"+
		"[grpc]\naddress = %q\n", filepath.Join(n.dir, "var/lib/containerd"), filepath.Join(work, "state"), address)
	path := filepath.Join(work, "config.toml")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		return err
	}
	containerd := exec.Command(n.set.Bin("containerd"), "--config", path)
	if err := containerd.Start(); err != nil {
		return err
	}
	defer func() {
		_ = containerd.Process.Signal(syscall.SIGTERM)
		_ = containerd.Wait()
	}()
	ctr := func(args ...string) error {
		_, err := run(exec.CommandContext(ctx, n.set.Bin("ctr"), append([]string{"--address", address, "--namespace", "k8s.io"}, args...)...))
		return err
	}
	if err := poll(ctx, slow, func() error { return ctr("version") }); err != nil {
		return err
	}
	for _, archive := range n.archives {
		if err := ctr("images", "import", "--no-unpack", archive); err != nil {
			return err
		}
	}
	return nil
}

// importTree streams the tree into the engine as an image of one layer.
func importTree(ctx context.Context, e engine, tree, name string) error {
	pack := exec.CommandContext(ctx, "tar", "-C", tree, "--numeric-owner", "-c", ".")
	stream, err := pack.StdoutPipe()
	if err != nil {
		return err
	}
	load := e.command(ctx, e.find("docker"), "import", "--change", "ENV container=docker",
		"--change", `ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]`, "-", name)
	load.Stdin = stream
	if err := pack.Start(); err != nil {
		return err
	}
	_, err = run(load)
	return errors.Join(err, pack.Wait())
}
