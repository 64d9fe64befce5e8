package node

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const cgroupRoot = "/sys/fs/cgroup"

// hierarchy is one mounted cgroup tree of this machine.
type hierarchy struct {
	dir     string // name below /sys/fs/cgroup; "" for a machine with cgroup v2 alone
	options string // what mounts the same hierarchy again
	v2      bool
}

func hierarchies() ([]hierarchy, error) {
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var found []hierarchy
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) < 4 || (fields[2] != "cgroup" && fields[2] != "cgroup2") {
			continue
		}
		rel, err := filepath.Rel(cgroupRoot, fields[1])
		if err != nil || strings.HasPrefix(rel, "..") {
			continue
		}
		h := hierarchy{dir: strings.TrimPrefix(rel, "."), v2: fields[2] == "cgroup2"}
		var options []string
		for _, o := range strings.Split(fields[3], ",") {
			if !slices.Contains([]string{"rw", "ro", "relatime", "nosuid", "nodev", "noexec", "nsdelegate", "memory_recursiveprot"}, o) {
				options = append(options, o)
			}
		}
		h.options = strings.Join(options, ",")
		found = append(found, h)
	}
	if len(found) == 0 {
		return nil, errors.New("no cgroup file system is mounted on " + cgroupRoot)
	}
	return found, nil
}

func joinCgroups(name string) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range all {
		if err := h.join(name); err != nil {
			return fmt.Errorf("%s: %w", filepath.Join(cgroupRoot, h.dir), err)
		}
	}
	return nil
}

func (h hierarchy) join(name string) error {
	parent := filepath.Join(cgroupRoot, h.dir)
	dir := filepath.Join(parent, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if h.v2 && h.dir == "" {
		if err := delegate(parent); err != nil {
			return err
		}
	}
	if err := inheritCPUSet(parent, dir); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0o644)
}

// inheritCPUSet fills a new cpuset (v1), which may hold no process while it is empty.
func inheritCPUSet(parent, dir string) error {
	if _, err := os.Stat(filepath.Join(dir, "cgroup.clone_children")); err != nil {
		return nil
	}
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		value, err := os.ReadFile(filepath.Join(parent, file))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, file), value, 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "cgroup.clone_children"), []byte("1"), 0o644)
}

// delegate lets the children of a v2 cgroup use all controllers it has itself.
func delegate(dir string) error {
	controllers, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, c := range strings.Fields(string(controllers)) {
		if err := enable(dir, c); err != nil {
			return fmt.Errorf("delegate %s: %w", c, err)
		}
	}
	return nil
}

// enable waits a moment for the last process to leave the cgroup: until then it is busy.
func enable(dir, controller string) error {
	var err error
	for range 100 {
		err = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+controller), 0o644)
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
	return err
}

// leaveUnified takes this process out of the node's v2 cgroup: one with processes cannot hand
// controllers on.
func leaveUnified() error {
	all, err := hierarchies()
	if err != nil || len(all) != 1 || !all[0].v2 {
		return err
	}
	return os.WriteFile(filepath.Join(cgroupRoot, all[0].dir, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0o644)
}

// mountCgroups gives the node its own view of the hierarchies, below root, and moves pid 1 into the slice that its
// services share, as systemd has them: each with a weight of its own would take the pods' processor time, and with v2
// alone a cgroup with processes of its own cannot hand controllers on.
func mountCgroups(root string, all []hierarchy) error {
	base := filepath.Join(root, cgroupRoot)
	if len(all) == 1 && all[0].v2 && all[0].dir == "" {
		if err := unix.Mount("cgroup2", base, "cgroup2", 0, ""); err != nil {
			return fmt.Errorf("mount cgroup2: %w", err)
		}
		if err := moveToSlice(base); err != nil {
			return err
		}
		return delegate(base)
	}
	if err := unix.Mount("tmpfs", base, "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("mount cgroup root: %w", err)
	}
	for _, h := range all {
		if h.v2 {
			continue
		}
		dir := filepath.Join(base, h.dir)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount("cgroup", dir, "cgroup", 0, h.options); err != nil {
			return fmt.Errorf("mount cgroup %s: %w", h.options, err)
		}
		if err := moveToSlice(dir); err != nil {
			return fmt.Errorf("cgroup %s: %w", h.options, err)
		}
	}
	return nil
}

func moveToSlice(root string) error {
	slice := filepath.Join(root, "system.slice")
	if err := os.MkdirAll(slice, 0o755); err != nil {
		return err
	}
	if err := inheritCPUSet(root, slice); err != nil {
		return err
	}
	return moveAll(root, slice)
}

// moveAll moves the processes of one cgroup to another. The node's parent process may be among them:
// it shows as 0, cannot be named from in here, and leaves by itself.
func moveAll(from, to string) error {
	procs, err := os.ReadFile(filepath.Join(from, "cgroup.procs"))
	if err != nil {
		return err
	}
	for _, pid := range strings.Fields(string(procs)) {
		if pid == "0" {
			continue
		}
		if err := os.WriteFile(filepath.Join(to, "cgroup.procs"), []byte(pid), 0o644); err != nil {
			return fmt.Errorf("move %s: %w", pid, err)
		}
	}
	return nil
}

// RemoveCgroups removes the cgroups of a node whose processes have ended.
func RemoveCgroups(name string) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	var failed []error
	for _, h := range all {
		failed = append(failed, removeTree(filepath.Join(cgroupRoot, h.dir, name)))
	}
	return errors.Join(failed...)
}

func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	// The kernel frees a cgroup a moment after its last process is gone.
	for range 50 {
		if err = os.Remove(dir); err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return err
}
