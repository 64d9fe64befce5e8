// Package wireguard is the edge between a Mesh value and the kernel.
//
// Input: a Plan. Output: the Mesh as the kernel holds it, the state of its peers,
// and a signal when somebody else changed it.
//
// The device is the kernel's own where the kernel has WireGuard, else wireguard-go
// in a process of its own behind a TUN device of the same name; this package
// configures both in the same way.
//
// Invariants:
//   - Read after Apply gives the planned Mesh; what Read gives depends on nothing
//     but the kernel and the endpoints this process has set.
//   - Only routes that bear this package's routing protocol number are touched.
//   - The private key never appears in errors, logs or formatted text.
//
// Out of scope: what the mesh should be, when to apply it, and packet filters.
package wireguard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
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
	Name    string
	Key     PrivateKey
	Mode    Mode
	ProcSys string
	Log     *slog.Logger
}

// Device is the mesh device of the network namespace it was opened in.
type Device struct {
	name    string
	key     PrivateKey
	mode    Mode
	log     *slog.Logger
	sysctls sysctls
	links   *netlink.Handle
	client  *wgctrl.Client
	watch   *watch
	index   atomic.Int32
	timeout time.Duration

	mu        sync.Mutex
	endpoints map[overlay.Key]netip.AddrPort
}

// A process behind a socket can hang; the kernel cannot.
const callTimeout = 15 * time.Second

// Open prepares to configure the device. It creates nothing.
func Open(o Options) (*Device, error) {
	mode, err := resolve(o.Mode)
	if err != nil {
		return nil, err
	}
	d := &Device{
		name:      o.Name,
		key:       o.Key,
		mode:      mode,
		log:       o.Log,
		sysctls:   sysctls(cmp.Or(o.ProcSys, "/proc/sys")),
		timeout:   callTimeout,
		endpoints: make(map[overlay.Key]netip.AddrPort),
	}
	if d.links, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("open rtnetlink: %w", err)
	}
	if d.client, err = wgctrl.New(); err != nil {
		d.links.Close()
		return nil, fmt.Errorf("open WireGuard control: %w", err)
	}
	if d.watch, err = newWatch(d.name, &d.index); err != nil {
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

// Changed receives after somebody, this process included, changed the device, its
// addresses or routes. It is for one consumer.
func (d *Device) Changed() <-chan struct{} { return d.watch.changed }

// Run watches the kernel until ctx ends.
func (d *Device) Run(ctx context.Context) error { return d.watch.run(ctx) }

// Close gives back sockets. The device stays as it is.
func (d *Device) Close() error {
	d.links.Close()
	err := d.client.Close()
	if d.watch != nil {
		err = errors.Join(err, d.watch.close())
	}
	return err
}

// control reads the WireGuard side of the device.
func (d *Device) control(ctx context.Context) (*wgtypes.Device, error) {
	var dev *wgtypes.Device
	err := d.within(ctx, func() (err error) {
		dev, err = d.client.Device(d.name)
		return err
	})
	return dev, err
}

func (d *Device) configure(ctx context.Context, config wgtypes.Config) error {
	return d.within(ctx, func() error { return d.client.ConfigureDevice(d.name, config) })
}

// within gives up waiting when ctx ends or the other side hangs.
func (d *Device) within(ctx context.Context, call func() error) error {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- call() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("device %s does not answer: %w", d.name, ctx.Err())
	}
}
