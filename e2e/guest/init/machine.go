package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/kithnet/kith/e2e/guest/job"
)

func mountAll() error {
	mounts := []struct{ kind, at string }{
		{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/dev/shm"}, {"tmpfs", "/tmp"},
		{"tmpfs", "/run"}, {"cgroup2", "/sys/fs/cgroup"},
	}
	for _, m := range mounts {
		if err := os.MkdirAll(m.at, 0o755); err != nil {
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
		if err := unix.Mount(m.kind, m.at, m.kind, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	for _, dir := range []string{"/run/netns", "/var", "/root"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	return os.Symlink("/run", "/var/run")
}

// rawConsole keeps the console from writing a carriage return before each newline.
func rawConsole() error {
	term, err := unix.IoctlGetTermios(1, unix.TCGETS)
	if err != nil {
		return fmt.Errorf("console: %w", err)
	}
	term.Oflag &^= unix.OPOST
	if err := unix.IoctlSetTermios(1, unix.TCSETS, term); err != nil {
		return fmt.Errorf("console: %w", err)
	}
	return nil
}

func loadModules() error {
	order, err := os.ReadFile(job.ModuleOrder)
	if err != nil {
		return fmt.Errorf("load modules: %w", err)
	}
	for name := range strings.FieldsSeq(string(order)) {
		if err := loadModule(filepath.Join(job.Modules, name)); err != nil {
			return fmt.Errorf("load module %s: %w", name, err)
		}
	}
	return nil
}

func loadModule(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	return unix.FinitModule(int(file.Fd()), "", 0)
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("loopback up: %w", err)
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("loopback up: %w", err)
	}
	request.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request); err != nil {
		return fmt.Errorf("loopback up: %w", err)
	}
	return nil
}

// holdHooks keeps every packet hook of IPv4 and IPv6 in use from here to the guest's end. With a hook's first and last
// user, in whatever namespace, the kernel patches its own text (nf_hooks_needed, net/netfilter/core.c), and a second
// emulated processor that runs there at that moment may stop at the breakpoint that stands in for a moment: no real
// processor does, but the guest's kernel panics.
func holdHooks() error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("hold packet hooks: %w", err)
	}
	table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "guest"})
	for name, hook := range map[string]*nftables.ChainHook{
		"prerouting": nftables.ChainHookPrerouting, "input": nftables.ChainHookInput, "forward": nftables.ChainHookForward,
		"output": nftables.ChainHookOutput, "postrouting": nftables.ChainHookPostrouting,
	} {
		conn.AddChain(&nftables.Chain{
			Name: name, Table: table, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: nftables.ChainPriorityFilter,
		})
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("hold packet hooks: %w", err)
	}
	return nil
}
