// Package wireguard is the edge between a Mesh value and the kernel.
//
// Input: a Plan. Output: the Mesh as the kernel holds it, the state of its peers,
// and a signal when somebody else changed it.
//
// The devices are the kernel's own where the kernel has WireGuard, else wireguard-go
// in a process of its own behind TUN devices of the same names; this package
// configures both in the same way.
//
// Invariants:
//   - Read after Apply gives the planned Mesh; what Read gives depends on nothing
//     but the kernel and the endpoints this process has set.
//   - Only routes that bear this package's routing protocol number are touched.
//   - Private keys never appear in errors, logs or formatted text.
//
// Out of scope: what the mesh should be, when to apply it, and packet filters.
package wireguard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/kithnet/kith/overlay"
)

// ErrAbsent says that wireguard-go's process does not serve the device yet.
var ErrAbsent = errors.New("no device: is kith-wireguard running?")

// Beside the control sockets wireguard-go's process writes why it does not serve a device.
const (
	controlDir = "/var/run/wireguard"
	maxProblem = 1024
)

// absent is ErrAbsent with what wireguard-go's process says of the device, if it says anything.
func absent(dir, name string) error {
	file, err := os.Open(filepath.Join(dir, name+".problem"))
	if err != nil {
		return ErrAbsent
	}
	defer func() { _ = file.Close() }()
	text, err := io.ReadAll(io.LimitReader(file, maxProblem))
	if err != nil || len(text) == 0 {
		return ErrAbsent
	}
	return fmt.Errorf("%w It says: %q", ErrAbsent, text)
}

// Mode says who carries WireGuard.
type Mode string

// Auto takes the kernel if it has WireGuard. A Device is never in mode Auto.
const (
	Auto      Mode = "auto"
	Kernel    Mode = "kernel"
	Userspace Mode = "userspace"
)

// ParseMode reads the configuration's word for a mode.
func ParseMode(s string) (Mode, error) {
	switch mode := Mode(s); mode {
	case Auto, Kernel, Userspace:
		return mode, nil
	case "":
		return Auto, nil
	}
	return "", fmt.Errorf("parse WireGuard mode %q: want auto, kernel or userspace", s)
}

// Options are what Open needs. ProcSys is where the node's settings can be
// written; empty means /proc/sys.
type Options struct {
	Names   [overlay.Lanes]string
	Keys    *Keyring
	Mode    Mode
	ProcSys string
}

// Device is the mesh's devices, one for each lane, of the network namespace it was
// opened in.
type Device struct {
	kernel
	lanes [overlay.Lanes]*lane
	watch *watch
}

// kernel is what all lanes share.
type kernel struct {
	keys    *Keyring
	mode    Mode
	sysctls sysctls
	links   *netlink.Handle
	client  *wgctrl.Client
	timeout time.Duration
}

// lane is one device.
type lane struct {
	*kernel
	name  string
	index atomic.Int32

	mu        sync.Mutex
	endpoints map[overlay.Key]netip.AddrPort
}

// A process behind a socket can hang; the kernel cannot.
const callTimeout = 15 * time.Second

// Open prepares to configure the devices. It creates nothing.
func Open(o Options) (*Device, error) {
	mode, err := resolve(o.Mode)
	if err != nil {
		return nil, err
	}
	d := &Device{kernel: kernel{keys: o.Keys, mode: mode, sysctls: sysctls(cmp.Or(o.ProcSys, "/proc/sys")), timeout: callTimeout}}
	for i, name := range o.Names {
		d.lanes[i] = &lane{kernel: &d.kernel, name: name, endpoints: make(map[overlay.Key]netip.AddrPort)}
	}
	if d.links, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("open rtnetlink: %w", err)
	}
	if d.client, err = wgctrl.New(); err != nil {
		d.links.Close()
		return nil, fmt.Errorf("open WireGuard control: %w", err)
	}
	if d.watch, err = newWatch(d.lanes); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

func resolve(mode Mode) (Mode, error) {
	if mode != Auto && mode != "" {
		return mode, nil
	}
	return Probe()
}

// Kind says who carries WireGuard here: Kernel or Userspace.
func (d *Device) Kind() Mode { return d.mode }

// Changed receives after somebody, this process included, changed a device, its
// addresses or routes. It is for one consumer.
func (d *Device) Changed() <-chan struct{} { return d.watch.changed }

// Run watches the kernel until ctx ends.
func (d *Device) Run(ctx context.Context) error { return d.watch.run(ctx) }

// Close gives back sockets. The devices stay as they are.
func (d *Device) Close() error {
	d.links.Close()
	err := d.client.Close()
	if d.watch != nil {
		err = errors.Join(err, d.watch.close())
	}
	return err
}

// control reads the WireGuard side of the device.
func (l *lane) control(ctx context.Context) (*wgtypes.Device, error) {
	var dev *wgtypes.Device
	err := l.within(ctx, func() (err error) {
		dev, err = l.client.Device(l.name)
		return err
	})
	return dev, err
}

func (l *lane) configure(ctx context.Context, config wgtypes.Config) error {
	return l.within(ctx, func() error { return l.client.ConfigureDevice(l.name, config) })
}

// within gives up waiting when ctx ends or the other side hangs.
func (l *lane) within(ctx context.Context, call func() error) error {
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- call() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("device %s does not answer: %w", l.name, ctx.Err())
	}
}
