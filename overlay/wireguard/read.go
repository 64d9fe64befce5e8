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

// Read returns the mesh as the kernel has it. A lane without a device that can be
// configured has no Device, only the addresses and routes that are there.
func (d *Device) Read(ctx context.Context) (overlay.Mesh, error) {
	var mesh overlay.Mesh
	var err error
	if mesh.Unreachable, err = d.readUnreachable(); err != nil {
		return overlay.Mesh{}, err
	}
	for i, l := range d.lanes {
		routes, err := l.read(ctx, &mesh.Lanes[i])
		if err != nil {
			return overlay.Mesh{}, err
		}
		for _, r := range routes {
			r.Lane = i
			mesh.Routes = append(mesh.Routes, r)
		}
	}
	mesh.Sort()
	return mesh, nil
}

func (l *lane) read(ctx context.Context, into *overlay.Lane) ([]overlay.Route, error) {
	link, present, err := l.link()
	if err != nil || !present || !l.ours(link) {
		return nil, err
	}
	l.index.Store(int32(link.Attrs().Index))
	routes, err := l.readLink(into, link)
	if err != nil {
		return nil, err
	}
	dev, err := l.control(ctx)
	if unserved(err) {
		return routes, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read device %s: %w", l.name, err)
	}
	l.readDevice(into, dev)
	return routes, nil
}

func (l *lane) link() (netlink.Link, bool, error) {
	link, err := l.links.LinkByName(l.name)
	var absent netlink.LinkNotFoundError
	if errors.As(err, &absent) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("find device %s: %w", l.name, err)
	}
	return link, true, nil
}

// ours tells the kind of link that this mode works on from a leftover of the other.
func (l *lane) ours(link netlink.Link) bool {
	if l.mode == Kernel {
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

func (l *lane) readDevice(into *overlay.Lane, dev *wgtypes.Device) {
	into.Device = l.name
	if dev.PrivateKey != (wgtypes.Key{}) {
		into.Key = overlay.Key(dev.PublicKey)
	}
	into.ListenPort = uint16(dev.ListenPort)
	for _, p := range dev.Peers {
		key := overlay.Key(p.PublicKey)
		into.Peers = append(into.Peers, overlay.Peer{
			Key:        key,
			Endpoint:   l.endpoint(key, p.Endpoint),
			AllowedIPs: prefixes(p.AllowedIPs),
			Keepalive:  p.PersistentKeepaliveInterval,
			Preshared:  overlay.Preshared(p.PresharedKey),
		})
	}
}

// endpoint returns what this process last set. A peer that roams changes the
// kernel's; that is WireGuard's business and no difference to the plan.
func (l *lane) endpoint(key overlay.Key, current *net.UDPAddr) netip.AddrPort {
	if current == nil {
		return netip.AddrPort{}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if set, ok := l.endpoints[key]; ok {
		return set
	}
	return addrPort(current)
}

func (l *lane) readLink(into *overlay.Lane, link netlink.Link) ([]overlay.Route, error) {
	into.MTU = link.Attrs().MTU
	// A device whose settings somebody changed is set up again, by which they are written.
	into.Up = link.Attrs().Flags&net.FlagUp != 0 && l.sysctls.tuned(l.name)
	addrs, err := l.links.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses of %s: %w", l.name, err)
	}
	for _, a := range addrs {
		p := prefix(*a.IPNet)
		if p.IsSingleIP() && !p.Addr().IsLinkLocalUnicast() {
			into.Addresses = append(into.Addresses, p.Addr())
		}
	}
	routes, err := l.routes(&netlink.Route{Type: unix.RTN_UNICAST, LinkIndex: link.Attrs().Index}, netlink.RT_FILTER_OIF)
	if err != nil {
		return nil, fmt.Errorf("list routes of %s: %w", l.name, err)
	}
	out := make([]overlay.Route, 0, len(routes))
	for _, r := range routes {
		src, _ := netip.AddrFromSlice(r.Src)
		out = append(out, overlay.Route{CIDR: prefix(*r.Dst), Src: src.Unmap(), MTU: r.MTU})
	}
	return out, nil
}

func (k *kernel) readUnreachable() ([]netip.Prefix, error) {
	routes, err := k.routes(&netlink.Route{Type: unix.RTN_UNREACHABLE}, 0)
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
func (k *kernel) routes(filter *netlink.Route, mask uint64) ([]netlink.Route, error) {
	filter.Protocol = protocol
	filter.Table = unix.RT_TABLE_MAIN
	mask |= netlink.RT_FILTER_PROTOCOL | netlink.RT_FILTER_TYPE | netlink.RT_FILTER_TABLE
	for {
		routes, err := k.links.RouteListFiltered(netlink.FAMILY_ALL, filter, mask)
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return routes, err
		}
	}
}
