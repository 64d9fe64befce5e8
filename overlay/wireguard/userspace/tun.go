package userspace

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/tun"
)

const (
	tunNode = "/dev/net/tun"
	// TUN's device number, as the kernel's list of devices has it.
	tunMajor = 10
	tunMinor = 200
	// queueLength is how many packets wait while the process gets no processor time:
	// a second of small ones at 2,000 a second. The kernel's own 500 are a quarter of it.
	queueLength = 2048
)

// openTUN makes the persistent device or attaches to the one that is there, with
// the offloads (vnet_hdr) that let wireguard-go move many packets at once.
func openTUN(name string) (tun.Device, error) {
	if err := makeNode(); err != nil {
		return nil, explain(err)
	}
	file, err := attach(name)
	if err != nil {
		return nil, explain(err)
	}
	if err := setQueue(name); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	link, err := net.InterfaceByName(name)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	// wireguard-go insists on setting an MTU: the one it has.
	dev, err := tun.CreateTUNFromFile(file, link.MTU)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return dev, nil
}

// explain says what a person can do about a TUN device that cannot be had.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: the container runtime keeps this container from it, as crun and runc 1.2.0 to 1.2.3 do: use another runc, "+
			"load the kernel's module wireguard, which needs no TUN, and start this pod again, or set userspaceWireGuard.privileged of the chart", err)
	case errors.Is(err, unix.EROFS), errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("%w: the node has no TUN: load the kernel's module tun, or its module wireguard, which needs no TUN, and start this pod again", err)
	}
	return err
}

func attach(name string) (*os.File, error) {
	fd, err := unix.Open(tunNode, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", tunNode, err)
	}
	if err := claim(fd, name); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), tunNode), nil
}

func claim(fd int, name string) error {
	req, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return fmt.Errorf("attach (is there another %s, or another process on it?): %w", name, err)
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1); err != nil {
		return fmt.Errorf("make it persistent: %w", err)
	}
	return nil
}

func setQueue(name string) error {
	req, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req.SetUint32(queueLength)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFTXQLEN, req); err != nil {
		return fmt.Errorf("set length of its queue: %w", err)
	}
	return nil
}

// makeNode makes the device node that a container often lacks.
func makeNode() error {
	_, err := os.Stat(tunNode)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(tunNode), 0o755); err != nil {
		return err
	}
	err = unix.Mknod(tunNode, unix.S_IFCHR|0o600, int(unix.Mkdev(tunMajor, tunMinor)))
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make %s: %w", tunNode, err)
	}
	return nil
}
