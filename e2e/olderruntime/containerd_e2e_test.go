//go:build e2e

package olderruntime

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/kithnet/kith/e2e/debian"
	"github.com/kithnet/kith/e2e/parts"
)

// inside names the folder of the parts, in the process that has namespaces of its own.
const inside = "KITH_TEST_OLDER_RUNTIME"

const config = `version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %q
  restrict_oom_score_adj = true
  disable_cgroup = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = %q
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = %q
    conf_dir = %q
`

// TestDebiansContainerd: a pod of a runtime that knows CNI 1.0.0 alone gets its network, and gives it back.
func TestDebiansContainerd(t *testing.T) {
	if dir := os.Getenv(inside); dir != "" {
		live(t, dir)
		return
	}
	dir := t.TempDir()
	gather(t, dir)
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), inside+"="+dir)
	// With the first process of the namespace all of its children end, shims too.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Cloneflags: unix.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Errorf("in namespaces of its own, which needs root: %v", err)
	}
}

// gather puts into a folder what runs in the namespaces: bin, cni, agent.test, pause.tar.
func gather(t *testing.T, dir string) {
	t.Helper()
	builder, err := parts.New(os.Stderr)
	must(t, "parts", err)
	set, err := builder.Cluster(t.Context())
	must(t, "parts", err)
	must(t, "Debian's containerd", debian.Unpack(t.Context(), "containerd", dir))
	root, err := parts.RepoRoot()
	must(t, "checkout", err)
	run(t, "go", "-C", root, "build", "-o", dir+"/cni/kith-cni", "./cmd/kith-cni")
	run(t, "go", "-C", root, "test", "-c", "-tags", "kernel", "-o", dir+"/agent.test", "./cmd/kith-cni")
	for name, path := range map[string]string{
		"cni/kith-portmap": filepath.Join(set.CNI(), "portmap"), "cni/kith-bandwidth": filepath.Join(set.CNI(), "bandwidth"),
		"cni/loopback": filepath.Join(set.CNI(), "loopback"), "bin/runc": set.Bin("runc"), "bin/runc-clamp": set.Bin("runc-clamp"),
		"pause.tar": filepath.Join(set.Images(), "pause.tar"),
		// This is what the agent writes: a test beside it holds that.
		"net.d/05-kith.conflist": filepath.Join(root, "cni", "conflist", "testdata", "default.conflist"),
	} {
		must(t, name, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		run(t, "cp", path, filepath.Join(dir, name))
	}
}

// live is the node: an agent with everything but policy and mesh, containerd, and a pod.
func live(t *testing.T, dir string) {
	must(t, "own mounts", unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	must(t, "own /proc", unix.Mount("proc", "/proc", "proc", 0, ""))
	for _, path := range []string{"/run", "/var/lib"} {
		must(t, "own "+path, unix.Mount("tmpfs", path, "tmpfs", 0, ""))
	}
	run(t, "ip", "link", "set", "lo", "up")
	run(t, "ip", "addr", "add", "192.0.2.1/32", "dev", "lo")
	path := filepath.Join(dir, "usr/bin") + ":" + filepath.Join(dir, "bin") + ":" + os.Getenv("PATH")
	must(t, "path", os.Setenv("PATH", path))
	must(t, "configuration", os.WriteFile(dir+"/config.toml", fmt.Appendf(nil, config, parts.PauseImage, dir+"/bin/runc-clamp", dir+"/cni", dir+"/net.d"), 0o600))
	must(t, "agent's folder", os.Symlink("node/run", "/run/kith"))
	start(t, []string{"KITH_TEST_AGENT=/run/node"}, dir+"/agent.test")
	start(t, nil, dir+"/usr/bin/containerd", "--config", dir+"/config.toml")
	conn, err := grpc.NewClient("unix:///run/containerd/containerd.sock", grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, "dial containerd", err)
	runtime := cri.NewRuntimeServiceClient(conn)
	wait(t, "containerd's network", func(ctx context.Context) error { return networkReady(ctx, runtime) })
	wait(t, "the agent", func(context.Context) error {
		c, err := net.Dial("unix", "/run/kith/agent.sock")
		if err == nil {
			_ = c.Close()
		}
		return err
	})
	run(t, dir+"/usr/bin/ctr", "-n", "k8s.io", "images", "import", "--snapshotter", "native", dir+"/pause.tar")
	lifeOfPod(t, runtime)
}

func networkReady(ctx context.Context, runtime cri.RuntimeServiceClient) error {
	status, err := runtime.Status(ctx, &cri.StatusRequest{})
	if err != nil {
		return err
	}
	for _, c := range status.Status.Conditions {
		if !c.Status {
			return errors.New(c.Message)
		}
	}
	return nil
}

func lifeOfPod(t *testing.T, runtime cri.RuntimeServiceClient) {
	version, err := runtime.Version(t.Context(), &cri.VersionRequest{})
	must(t, "version", err)
	if !strings.HasPrefix(strings.TrimPrefix(version.RuntimeVersion, "v"), "1.") {
		t.Errorf("%s %s is no older runtime", version.RuntimeName, version.RuntimeVersion)
	}
	pod, err := runtime.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: &cri.PodSandboxConfig{
		Metadata: &cri.PodSandboxMetadata{Name: "p", Namespace: "ns", Uid: "u"}, Linux: &cri.LinuxPodSandboxConfig{},
	}})
	must(t, "run pod", err)
	status, err := runtime.PodSandboxStatus(t.Context(), &cri.PodSandboxStatusRequest{PodSandboxId: pod.PodSandboxId})
	must(t, "status", err)
	address := status.Status.Network.Ip
	if len(status.Status.Network.AdditionalIps) != 1 {
		t.Errorf("the pod has %v, want an address of each family", status.Status.Network)
	}
	run(t, "ping", "-c1", "-W20", address)
	_, err = runtime.StopPodSandbox(t.Context(), &cri.StopPodSandboxRequest{PodSandboxId: pod.PodSandboxId})
	must(t, "stop pod", err)
	_, err = runtime.RemovePodSandbox(t.Context(), &cri.RemovePodSandboxRequest{PodSandboxId: pod.PodSandboxId})
	must(t, "remove pod", err)
	if left := run(t, "ip", "-o", "link"); strings.Contains(left, "kith-") {
		t.Errorf("left behind:\n%s", left)
	}
	t.Logf("%s %s: %s", version.RuntimeName, version.RuntimeVersion, address)
}

// start starts a program that runs as long as the test.
func start(t *testing.T, env []string, args ...string) {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	must(t, "start "+args[0], cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

// wait asks again and again until the answer is right.
func wait(t *testing.T, what string, ask func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	for {
		err := ask(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func must(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}
