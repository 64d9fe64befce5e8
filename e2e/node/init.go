package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Init builds the node's root and runs its services; it returns only on failure.
func Init(c Config) error {
	if os.Getpid() != 1 {
		return errors.New("init must be pid 1 of its namespace")
	}
	if err := unix.Sethostname([]byte(c.Name)); err != nil {
		return fmt.Errorf("set hostname: %w", err)
	}
	if err := enterRoot(c); err != nil {
		return fmt.Errorf("build root: %w", err)
	}
	hosts := strings.Join(append([]string{"127.0.0.1 localhost", "::1 localhost"}, c.Hosts...), "\n") + "\n"
	if err := os.WriteFile("/etc/hosts", []byte(hosts), 0o644); err != nil {
		return err
	}
	if err := setSysctls(); err != nil {
		return err
	}
	if err := os.Setenv("PATH", BinDir+":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"); err != nil {
		return err
	}
	return supervise(c.Services)
}

func setSysctls() error {
	for path, value := range map[string]string{
		"net/ipv4/ip_forward":              "1",
		"net/ipv4/conf/all/rp_filter":      "0",
		"net/ipv4/conf/default/rp_filter":  "0",
		"net/ipv6/conf/all/forwarding":     "1",
		"net/ipv6/conf/default/forwarding": "1",
	} {
		err := os.WriteFile(filepath.Join("/proc/sys", path), []byte(value), 0o644)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("sysctl: %w", err)
		}
	}
	return nil
}

// mount is one step of building the root.
type mount struct {
	source, target, kind string
	flags                uintptr
	data                 string
}

func enterRoot(c Config) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	root, upper := filepath.Join(c.Dir, "root"), filepath.Join(c.Dir, "upper")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	if err := os.MkdirAll(upper, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	// The upper layer is memory: a layer may not lie inside the one below it.
	if err := mountAll([]mount{{"tmpfs", upper, "tmpfs", 0, ""}}); err != nil {
		return err
	}
	for _, d := range []string{"files", "work"} {
		if err := os.Mkdir(filepath.Join(upper, d), 0o755); err != nil {
			return err
		}
	}
	if err := mountAll(rootMounts(c, root, upper)); err != nil {
		return err
	}
	if err := mountCgroups(root, all); err != nil {
		return err
	}
	return pivot(root)
}

func rootMounts(c Config, root, upper string) []mount {
	in := func(path string) string { return filepath.Join(root, path) }
	mounts := []mount{
		{"overlay", root, "overlay", 0, "lowerdir=/,upperdir=" + upper + "/files,workdir=" + upper + "/work"},
		{"proc", in("/proc"), "proc", 0, ""},
		{"sysfs", in("/sys"), "sysfs", 0, ""},
		{"/dev", in("/dev"), "", unix.MS_BIND | unix.MS_REC, ""},
		{"tmpfs", in("/run"), "tmpfs", 0, ""},
		{"tmpfs", in("/tmp"), "tmpfs", 0, ""},
		{c.Bin, in(BinDir), "", unix.MS_BIND, ""},
		{filepath.Join(c.Dir, "etc"), in(ConfigDir), "", unix.MS_BIND, ""},
		{filepath.Join(c.Dir, "log"), in("/var/log"), "", unix.MS_BIND, ""},
		{filepath.Join(c.Dir, "cni-bin"), in("/opt/cni/bin"), "", unix.MS_BIND, ""},
		{filepath.Join(c.Dir, "cni-conf"), in("/etc/cni/net.d"), "", unix.MS_BIND, ""},
	}
	for i, dir := range c.Images {
		mounts = append(mounts, mount{dir, in(fmt.Sprintf("%s/%d", ImageDir, i)), "", unix.MS_BIND, ""})
	}
	for _, state := range []string{"containerd", "etcd", "kith", "kubelet"} {
		mounts = append(mounts, mount{filepath.Join(c.Dir, "var", state), in("/var/lib/" + state), "", unix.MS_BIND, ""})
	}
	return mounts
}

func mountAll(mounts []mount) error {
	for _, m := range mounts {
		if m.flags&unix.MS_BIND != 0 {
			if err := os.MkdirAll(m.source, 0o755); err != nil {
				return err
			}
		}
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.data); err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.source, m.target, err)
		}
	}
	return nil
}

func pivot(root string) error {
	old := filepath.Join(root, "old-root")
	if err := os.Mkdir(old, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := unix.PivotRoot(root, old); err != nil {
		return fmt.Errorf("pivot root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	if err := unix.Unmount("/old-root", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave old root: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("share mounts: %w", err)
	}
	return os.Remove("/old-root")
}

// supervise starts the services and starts each again a second after it ends. It also collects the
// orphans that fall to pid 1, so it waits for any child rather than for its own.
func supervise(services []Service) error {
	running := map[int]Service{}
	restart := make(chan Service, len(services))
	children := make(chan int)
	start := func(s Service) error {
		pid, err := startService(s)
		if err == nil {
			running[pid] = s
		}
		return err
	}
	for _, s := range services {
		if err := start(s); err != nil {
			return fmt.Errorf("start %s: %w", s.Name, err)
		}
	}
	go reap(children)
	for {
		select {
		case pid := <-children:
			if s, ok := running[pid]; ok {
				delete(running, pid)
				time.AfterFunc(time.Second, func() { restart <- s })
			}
		case s := <-restart:
			if err := start(s); err != nil {
				return fmt.Errorf("restart %s: %w", s.Name, err)
			}
		}
	}
}

func reap(children chan<- int) {
	for {
		pid, err := syscall.Wait4(-1, nil, 0, nil)
		switch {
		case errors.Is(err, syscall.ECHILD):
			time.Sleep(100 * time.Millisecond)
		case err == nil:
			children <- pid
		}
	}
}

func startService(s Service) (int, error) {
	path, err := exec.LookPath(s.Args[0])
	if err != nil {
		return 0, err
	}
	out, err := os.OpenFile(filepath.Join("/var/log", s.Name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return 0, err
	}
	defer out.Close()
	null, err := os.Open("/dev/null")
	if err != nil {
		return 0, err
	}
	defer null.Close()
	fmt.Fprintf(out, "--- start of %s\n", s.Name)
	return syscall.ForkExec(path, s.Args, &syscall.ProcAttr{
		Dir: "/", Env: os.Environ(), Files: []uintptr{null.Fd(), out.Fd(), out.Fd()},
		Sys: &syscall.SysProcAttr{Setsid: true},
	})
}
