package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Process is a process that this package started: its start time tells it from a later one with the
// same number.
type Process struct {
	PID   int
	Start string
}

// Self is this process.
func Self() Process {
	start, _ := stat(os.Getpid())
	return Process{PID: os.Getpid(), Start: start}
}

// spawn starts a process of its own session that outlives this one. Its output goes to the log file.
func spawn(logPath string, args ...string) (Process, error) {
	out, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return Process{}, err
	}
	defer out.Close()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return Process{}, err
	}
	start, state := stat(cmd.Process.Pid)
	// Collect it if it ends while this process still lives.
	go cmd.Wait()
	if state == "" {
		return Process{}, fmt.Errorf("%s ended at once, see %s", filepath.Base(args[0]), logPath)
	}
	return Process{PID: cmd.Process.Pid, Start: start}, nil
}

// stat returns the start time and the state letter of a process; both are empty if there is none.
func stat(pid int) (start, state string) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", ""
	}
	// The name, in parentheses, may hold anything; the fields after it do not.
	_, rest, _ := strings.Cut(string(content[strings.LastIndexByte(string(content), ')'):]), " ")
	fields := strings.Fields(rest)
	if len(fields) < 20 {
		return "", ""
	}
	return fields[19], fields[0]
}

func (p Process) alive() bool {
	start, state := stat(p.PID)
	return p.PID > 0 && start == p.Start && state != "Z" && state != "X"
}

// kill ends the process and waits until it is gone.
func (p Process) kill() error {
	if !p.alive() {
		return nil
	}
	if err := unix.Kill(p.PID, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill %d: %w", p.PID, err)
	}
	return p.gone()
}

// gone waits until the process has ended. A node's first one takes all others and their mounts with it, and the disk may
// be slow.
func (p Process) gone() error {
	for range 3000 {
		if !p.alive() {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("process %d does not end", p.PID)
}

// serveOutside runs a server on the outside host: it tells a client the address it came from.
func (c *Cluster) serveOutside() error {
	var err error
	c.Host, err = c.spawnOutside(filepath.Join(c.dir, "outside.log"), c.Set.Bin("agnhost"), "netexec", "--http-port=8080", "--udp-port=8081")
	if err != nil {
		return fmt.Errorf("server on the outside host: %w", err)
	}
	return c.save()
}

func (c *Cluster) spawnOutside(logPath string, args ...string) (Process, error) {
	var p Process
	err := inNetns(c.outsideNetns(), func() error {
		var err error
		p, err = spawn(logPath, args...)
		return err
	})
	return p, err
}

// Outside makes a command that runs on the outside host.
func (c *Cluster) Outside(args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--net=" + filepath.Join(netnsDir, c.outsideNetns()), "--"}, args...)...)
}

// OutsideRun runs a command on the outside host and returns what it prints.
func (c *Cluster) OutsideRun(ctx context.Context, args ...string) (string, error) {
	namespace := "--net=" + filepath.Join(netnsDir, c.outsideNetns())
	return output(exec.CommandContext(ctx, "nsenter", append([]string{namespace, "--"}, args...)...))
}

// ExecRun runs a command inside a node and returns what it prints.
func (c *Cluster) ExecRun(node string, args ...string) (string, error) {
	cmd, err := c.Exec(node, args...)
	if err != nil {
		return "", err
	}
	return output(cmd)
}

// output runs a command and returns what it prints; its complaints become the error.
func output(cmd *exec.Cmd) (string, error) {
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// Exec makes a command that runs inside a node.
func (c *Cluster) Exec(node string, args ...string) (*exec.Cmd, error) {
	first, err := c.pid1(node)
	if err != nil {
		return nil, err
	}
	// nsenter keeps the caller's environment; the node's programs lie elsewhere.
	enter := append([]string{"--target", strconv.Itoa(first.PID), "--all", "--", "env", "PATH=" + nodePath}, args...)
	return exec.Command("nsenter", enter...), nil
}

var errNotRunning = errors.New("node is not running")

// Root is a node's root folder as this machine sees it, with all that is mounted there.
func (c *Cluster) Root(name string) (string, error) {
	first, err := c.pid1(name)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("/proc/%d/root", first.PID), nil
}

// pid1 is the node's first process, as this machine numbers it.
func (c *Cluster) pid1(name string) (Process, error) {
	n, err := c.node(name)
	if err != nil {
		return Process{}, err
	}
	if !n.Process.alive() {
		return Process{}, fmt.Errorf("%s: %w", name, errNotRunning)
	}
	content, err := os.ReadFile(filepath.Join(c.NodeDir(name), "pid"))
	if err != nil {
		return Process{}, fmt.Errorf("%s: %w", name, err)
	}
	pid, err := strconv.Atoi(string(content))
	if err != nil {
		return Process{}, fmt.Errorf("%s: %w", name, err)
	}
	start, _ := stat(pid)
	return Process{PID: pid, Start: start}, nil
}
