package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

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
