package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Processes finds the processes of a node by the name of their program; the numbers are this machine's.
func (c *Cluster) Processes(node, program string) ([]int, error) {
	first, err := c.pid1(node)
	if err != nil {
		return nil, err
	}
	own, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/cgroup", first.PID))
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var found []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		dir := filepath.Join("/proc", e.Name())
		name, _ := os.ReadFile(filepath.Join(dir, "comm"))
		if strings.TrimSpace(string(name)) != program {
			continue
		}
		// Containers have namespaces of their own; the node's cgroup holds them all.
		groups, _ := os.ReadFile(filepath.Join(dir, "cgroup"))
		ns, _ := os.Readlink(filepath.Join(dir, "ns", "cgroup"))
		if ns == own || strings.Contains(string(groups), ":/"+node+"/") {
			found = append(found, pid)
		}
	}
	return found, nil
}

// Kill sends SIGKILL to every process of a node that runs the program; there must be one.
func (c *Cluster) Kill(node, program string) error { return c.Signal(node, program, unix.SIGKILL) }

// Signal sends a signal to every process of a node that runs the program; there must be one.
func (c *Cluster) Signal(node, program string, signal unix.Signal) error {
	pids, err := c.Processes(node, program)
	if err != nil {
		return err
	}
	if len(pids) == 0 {
		return fmt.Errorf("no %s runs on %s", program, node)
	}
	var failed []error
	for _, pid := range pids {
		failed = append(failed, unix.Kill(pid, signal))
	}
	return errors.Join(failed...)
}

// LoseAPI makes every connection to the API server fail at once, also those that are open, until ReturnAPI.
func (c *Cluster) LoseAPI() error {
	return c.onControlPlane("add table inet away; add chain inet away input { type filter hook input priority -300; }; " +
		fmt.Sprintf("add rule inet away input tcp dport %d reject with tcp reset", apiPort))
}

// ReturnAPI ends what LoseAPI began.
func (c *Cluster) ReturnAPI() error { return c.onControlPlane("delete table inet away") }

func (c *Cluster) onControlPlane(nft string) error {
	_, err := c.ExecRun(c.Members[0].Name, "nft", nft)
	return err
}
