package kind

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kithnet/kith/e2e/debian"
	"github.com/kithnet/kith/e2e/parts"
)

const (
	socket     = runDir + "/docker.sock"
	recordFile = runDir + "/engine.json"
	logFile    = runDir + "/engine.log"
	// cgroup is the parent of all that the engine runs.
	cgroup = "kith-kind"
	// uplink is the veth into the engine's network namespace, and its two ends' addresses (of the range that
	// is set aside for benchmarks: no real network has them).
	uplink      = "kindup0"
	rootAddress = "198.19.254.1"
	hostAddress = "198.19.254.2"
)

// slow is how long a busy machine may take for a daemon's start or end, which is a matter of seconds.
const slow = 2 * time.Minute

// daemon is an engine that this package started. The record on disk is what Down goes by.
type daemon struct {
	PID int `json:"pid"`
	// Start is the process's start time in kernel ticks: a recycled process id has another.
	Start string `json:"start"`
	// Tools is the tree of unpacked packages.
	Tools string `json:"tools"`
}

func (d daemon) engine() engine {
	tools := toolFolders(d.Tools)
	return engine{
		tools:            tools,
		enter:            d.inside(),
		env:              []string{"DOCKER_HOST=unix://" + socket, "PATH=" + searchPath(tools)},
		apiServerAddress: hostAddress,
		proxyMode:        "nftables",
	}
}

// inside is the command line that enters the engine's network namespace.
func (d daemon) inside() []string {
	return []string{"nsenter", "--net", "--target", strconv.Itoa(d.PID)}
}

func toolFolders(tree string) []string {
	var folders []string
	for _, dir := range []string{"usr/sbin", "usr/bin", "sbin", "bin"} {
		folders = append(folders, filepath.Join(tree, dir))
	}
	return folders
}

func searchPath(tools []string) string {
	return strings.Join(append(tools, os.Getenv("PATH"), "/usr/sbin", "/sbin"), ":")
}

// runningDaemon finds the engine that an earlier Up started, if it still runs.
func runningDaemon() (daemon, bool) {
	data, err := os.ReadFile(recordFile)
	if err != nil {
		return daemon{}, false
	}
	var d daemon
	if json.Unmarshal(data, &d) != nil {
		return daemon{}, false
	}
	return d, d.alive()
}

func (d daemon) alive() bool {
	start, err := startTime(d.PID)
	return err == nil && start == d.Start
}

// startTime reads field 22 of a process's stat; a process that only waits to be reaped counts as gone.
func startTime(pid int) (string, error) {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return "", err
	}
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" {
		return "", os.ErrProcessDone
	}
	return fields[19], nil
}

func startDaemon(ctx context.Context, b *parts.Builder, set parts.Set) (daemon, error) {
	if d, ok := runningDaemon(); ok {
		return d, nil
	}
	tools, err := engineTools(ctx, b)
	if err != nil {
		return daemon{}, fmt.Errorf("container engine: %w", err)
	}
	b.Say("starting a container engine")
	d, err := launch(tools, filepath.Join(b.Cache, "kind", "docker"), set.Bin("runc-clamp"))
	if err != nil {
		return daemon{}, fmt.Errorf("container engine: %w", err)
	}
	if err := errors.Join(d.ready(ctx), d.clear(ctx)); err != nil {
		return daemon{}, errors.Join(fmt.Errorf("container engine: %w (see %s)", err, logFile), d.stop(context.WithoutCancel(ctx)))
	}
	return d, nil
}

// clear removes the containers that an engine before this one left in the store when it was killed: their clusters
// ended with it.
func (d daemon) clear(ctx context.Context) error {
	e := d.engine()
	out, err := e.docker(ctx, "ps", "--all", "--quiet")
	left := strings.Fields(out)
	if err != nil || len(left) == 0 {
		return err
	}
	_, err = e.docker(ctx, append([]string{"rm", "--force", "--volumes"}, left...)...)
	return err
}

// engineTools unpacks Docker's packages into the cache. They are not installed: that would start the engine as
// a service, in the machine's own network namespace.
func engineTools(ctx context.Context, b *parts.Builder) (string, error) {
	if err := b.EnsurePackages(ctx, parts.NodePackages()...); err != nil {
		return "", err
	}
	tree := filepath.Join(b.Cache, "kind", "tools")
	if _, err := os.Stat(tree); err == nil {
		return tree, nil
	}
	b.Say("downloading docker.io and debootstrap")
	work := tree + ".new"
	if err := errors.Join(os.RemoveAll(work), os.MkdirAll(work, 0o755)); err != nil {
		return "", err
	}
	if err := debian.UnpackAll(ctx, work, "docker.io", "debootstrap"); err != nil {
		return "", err
	}
	return tree, os.Rename(work, tree)
}

// enterScript gives the engine a /sys of its own network namespace, the machine's cgroups kept, and becomes it.
const enterScript = `set -e
mkdir -p "$1"
mount --rbind /sys/fs/cgroup "$1"
mount -t sysfs sysfs /sys
mount --rbind "$1" /sys/fs/cgroup
ip link set lo up
shift
exec "$@"`

func launch(tools, data, runtime string) (daemon, error) {
	// Of an engine that was killed: its process id may be another's by now, and the link may live as long as something
	// in its network namespace.
	pidFile := runDir + "/docker.pid"
	_ = os.Remove(pidFile)
	removeUplink()
	log, err := os.Create(logFile)
	if err != nil {
		return daemon{}, err
	}
	defer log.Close()
	d := daemon{Tools: tools}
	e := d.engine()
	cmd := exec.Command("sh", "-c", enterScript, "sh", runDir+"/cgroup", e.find("dockerd"),
		"--host", "unix://"+socket, "--data-root", data, "--exec-root", runDir+"/exec", "--pidfile", pidFile,
		"--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", "/"+cgroup, "--default-cgroupns-mode", "private",
		"--add-runtime", "clamp="+runtime, "--default-runtime", "clamp")
	cmd.Env = append(os.Environ(), append(e.env, libraryPath(tools)...)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Unshareflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET}
	if err := cmd.Start(); err != nil {
		return daemon{}, err
	}
	go func() { _ = cmd.Wait() }() // so that it does not stay a zombie while this process lives
	d.PID = cmd.Process.Pid
	if d.Start, err = startTime(d.PID); err != nil {
		return daemon{}, fmt.Errorf("it ended at once (see %s): %w", logFile, err)
	}
	record, err := json.Marshal(d)
	if err != nil {
		return daemon{}, err
	}
	return d, os.WriteFile(recordFile, record, 0o600)
}

// libraryPath lets programs of the tree find libraries that came with it.
func libraryPath(tree string) []string {
	folders, err := filepath.Glob(filepath.Join(tree, "usr", "lib", "*-linux-gnu"))
	if err != nil || len(folders) == 0 {
		return nil
	}
	return []string{"LD_LIBRARY_PATH=" + strings.Join(folders, ":")}
}

// ready waits until the engine answers, and then connects its network namespace with the machine's.
func (d daemon) ready(ctx context.Context) error {
	e := d.engine()
	err := poll(ctx, slow, func() error {
		if !e.works(ctx) {
			return errors.New("it does not answer")
		}
		return nil
	})
	if err != nil {
		return err
	}
	pid := strconv.Itoa(d.PID)
	inside := append(d.inside(), "ip")
	for _, args := range [][]string{
		{"ip", "link", "add", uplink, "type", "veth", "peer", "name", uplink, "netns", pid},
		{"ip", "address", "add", rootAddress + "/30", "dev", uplink},
		{"ip", "link", "set", uplink, "up"},
		append(inside, "address", "add", hostAddress+"/30", "dev", uplink),
		append(inside, "link", "set", uplink, "up"),
	} {
		if _, err := run(exec.CommandContext(ctx, args[0], args[1:]...)); err != nil {
			return err
		}
	}
	return nil
}

// stop ends the engine and what it ran; its image store stays in the cache.
func (d daemon) stop(ctx context.Context) error {
	if d.alive() {
		if err := syscall.Kill(d.PID, syscall.SIGTERM); err != nil {
			return fmt.Errorf("stop container engine: %w", err)
		}
	}
	err := poll(ctx, slow, func() error {
		if d.alive() {
			return fmt.Errorf("stop container engine: process %d does not end", d.PID)
		}
		return nil
	})
	if err != nil {
		return err
	}
	removeCgroups()
	// The kernel takes its time to clean a network namespace up: the veth may outlive the engine for a while.
	removeUplink()
	return os.RemoveAll(runDir)
}

func removeUplink() {
	if _, err := os.Stat("/sys/class/net/" + uplink); err == nil {
		_, _ = run(exec.Command("ip", "link", "delete", uplink))
	}
}

// removeCgroups removes the engine's empty cgroups, innermost first, in every hierarchy. One that is still busy
// stays: the kernel refuses to remove it.
func removeCgroups() {
	for _, pattern := range []string{"/sys/fs/cgroup/" + cgroup, "/sys/fs/cgroup/*/" + cgroup} {
		roots, _ := filepath.Glob(pattern)
		for _, root := range roots {
			var dirs []string
			_ = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
				if err == nil && entry.IsDir() {
					dirs = append(dirs, path)
				}
				return nil
			})
			for i := len(dirs) - 1; i >= 0; i-- {
				_ = unix.Rmdir(dirs[i])
			}
		}
	}
}
