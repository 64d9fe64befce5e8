package wireguard

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/kithnet/kith/overlay"
)

// protocol marks our routes in the kernel, as other routing daemons mark theirs.
const protocol = netlink.RouteProtocol(0x4b)

// Read returns the mesh as the kernel has it. Without a device that can be
// configured it has no Device, only the addresses and routes that are there.
func (d *Device) Read(ctx context.Context) (overlay.Mesh, error) {
	mesh, err := d.read(ctx)
	mesh.Sort()
	return mesh, err
}

func (d *Device) read(ctx context.Context) (mesh overlay.Mesh, err error) {
	if mesh.Unreachable, err = d.readUnreachable(); err != nil {
		return overlay.Mesh{}, err
	}
	link, present, err := d.link()
	if err != nil {
		return overlay.Mesh{}, err
	}
	if !present || !d.ours(link) {
		return mesh, nil
	}
	d.index.Store(int32(link.Attrs().Index))
	if err := d.readLink(&mesh, link); err != nil {
		return overlay.Mesh{}, err
	}
	dev, err := d.control(ctx)
	if unserved(err) {
		return mesh, nil
	}
	if err != nil {
		return overlay.Mesh{}, fmt.Errorf("read device %s: %w", d.name, err)
	}
	d.readDevice(&mesh, dev)
	return mesh, nil
}

func (d *Device) link() (netlink.Link, bool, error) {
	link, err := d.links.LinkByName(d.name)
	var absent netlink.LinkNotFoundError
	if errors.As(err, &absent) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("find device %s: %w", d.name, err)
	}
	return link, true, nil
}

// ours tells the kind of link that this mode works on from a leftover of the other.
func (d *Device) ours(link netlink.Link) bool {
	if d.mode == Kernel {
		return isKernel(link)
	}
	return isTUN(link)
}

func isKernel(link netlink.Link) bool { return link.Type() == "wireguard" }

func isTUN(link netlink.Link) bool { return link.Type() == "tuntap" || link.Type() == "tun" }

// unserved recognises a TUN without its process: no socket, or one left behind.
func unserved(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}

func (d *Device) readDevice(mesh *overlay.Mesh, dev *wgtypes.Device) {
	mesh.Device = d.name
	if dev.PrivateKey != (wgtypes.Key{}) {
		mesh.Key = overlay.Key(dev.PublicKey)
	}
	mesh.ListenPort = uint16(dev.ListenPort)
	for _, p := range dev.Peers {
		key := overlay.Key(p.PublicKey)
		mesh.Peers = append(mesh.Peers, overlay.Peer{
			Key:        key,
			Endpoint:   d.endpoint(key, p.Endpoint),
			AllowedIPs: prefixes(p.AllowedIPs),
			Keepalive:  p.PersistentKeepaliveInterval,
		})
	}
}

// endpoint returns what this process last set. A peer that roams changes the
// kernel's; that is WireGuard's business and no difference to the plan.
func (d *Device) endpoint(key overlay.Key, current *net.UDPAddr) netip.AddrPort {
	if current == nil {
		return netip.AddrPort{}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if set, ok := d.endpoints[key]; ok {
		return set
	}
	return addrPort(current)
}

func (d *Device) readLink(mesh *overlay.Mesh, link netlink.Link) error {
	mesh.MTU = link.Attrs().MTU
	mesh.Up = link.Attrs().Flags&net.FlagUp != 0
	addrs, err := d.links.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list addresses of %s: %w", d.name, err)
	}
	for _, a := range addrs {
		p := prefix(*a.IPNet)
		if p.IsSingleIP() && !p.Addr().IsLinkLocalUnicast() {
			mesh.Addresses = append(mesh.Addresses, p.Addr())
		}
	}
	routes, err := d.routes(&netlink.Route{Type: unix.RTN_UNICAST, LinkIndex: link.Attrs().Index}, netlink.RT_FILTER_OIF)
	if err != nil {
		return fmt.Errorf("list routes of %s: %w", d.name, err)
	}
	for _, r := range routes {
		src, _ := netip.AddrFromSlice(r.Src)
		mesh.Routes = append(mesh.Routes, overlay.Route{CIDR: prefix(*r.Dst), Src: src.Unmap(), MTU: r.MTU})
	}
	return nil
}

func (d *Device) readUnreachable() ([]netip.Prefix, error) {
	routes, err := d.routes(&netlink.Route{Type: unix.RTN_UNREACHABLE}, 0)
	if err != nil {
		return nil, fmt.Errorf("list unreachable routes: %w", err)
	}
	var out []netip.Prefix
	for _, r := range routes {
		out = append(out, prefix(*r.Dst))
	}
	return out, nil
}

// routes lists our own routes of one type. A table that changes while it is read
// interrupts the listing; then it is read again.
func (d *Device) routes(filter *netlink.Route, mask uint64) ([]netlink.Route, error) {
	filter.Protocol = protocol
	filter.Table = unix.RT_TABLE_MAIN
	mask |= netlink.RT_FILTER_PROTOCOL | netlink.RT_FILTER_TYPE | netlink.RT_FILTER_TABLE
	for {
		routes, err := d.links.RouteListFiltered(netlink.FAMILY_ALL, filter, mask)
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return routes, err
		}
	}
}
