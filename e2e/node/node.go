// Package node turns a process into one node of the quick cluster.
//
// Input: a Config. `Start` joins the node's cgroup and network namespace and clones a child into
// fresh pid, mount, uts, ipc and cgroup namespaces; `Init` is that child: over a throw-away overlay
// of this machine's root it becomes pid 1 and keeps the node's services running. Invariants: killing
// pid 1 ends every process of the node and every mount with it; what must outlive a power cycle lies
// in Config.Dir. Out of scope: the network (package cluster makes it), what the services are.
package node

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Mounted is where the parts appear inside a node.
const (
	BinDir    = "/opt/kith-e2e/bin"
	ConfigDir = "/opt/kith-e2e/etc"
	ImageDir  = "/opt/kith-e2e/images"
)

// Config says what one node is.
type Config struct {
	Name     string    // hostname and cgroup
	Netns    string    // path of its network namespace
	Dir      string    // its folder on disk: etc, log, var, cni-bin, cni-conf
	Bin      string    // folder of programs
	Images   []string  // folders of image archives
	Hosts    []string  // lines of /etc/hosts
	Services []Service // started in this order
}

// Service is a program that runs again whenever it ends.
type Service struct {
	Name string
	Args []string
}

// Load reads a Config that Save wrote.
func Load(path string) (Config, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return Config{}, err
	}
	var c Config
	if err := json.Unmarshal(content, &c); err != nil {
		return Config{}, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// Save writes the Config to a file.
func (c Config) Save(path string) error {
	content, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, content, 0o600)
}

// PIDFile is where Start records the process that is the node's pid 1.
func (c Config) PIDFile() string { return filepath.Join(c.Dir, "pid") }

// Start runs the node until its pid 1 ends.
func Start(c Config, configPath string) error {
	if err := joinCgroups(c.Name); err != nil {
		return fmt.Errorf("join cgroup %s: %w", c.Name, err)
	}
	// The child inherits the network namespace of the thread that clones it.
	runtime.LockOSThread()
	ns, err := os.Open(c.Netns)
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter %s: %w", c.Netns, err)
	}
	cmd := exec.Command("/proc/self/exe", "init", configPath)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWCGROUP,
		Pdeathsig:  unix.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("clone pid 1: %w", err)
	}
	if err := writePID(c.PIDFile(), cmd.Process.Pid); err != nil {
		cmd.Process.Kill()
		return err
	}
	if err := leaveUnified(); err != nil {
		cmd.Process.Kill()
		return fmt.Errorf("leave cgroup %s: %w", c.Name, err)
	}
	return cmd.Wait()
}

func writePID(path string, pid int) error {
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, []byte(strconv.Itoa(pid)), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
