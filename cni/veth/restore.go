package veth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kithnet/kith/cni"
)

// Restore makes the host side of an attachment as Create left it. It makes no interface: without one the error is
// cni.ErrNoInterface.
func (l *Links) Restore(_ context.Context, a cni.Attachment) error {
	link, err := netlink.LinkByName(a.HostInterface)
	var gone netlink.LinkNotFoundError
	if errors.As(err, &gone) {
		return fmt.Errorf("restore %s: %w", a.HostInterface, cni.ErrNoInterface)
	}
	if err != nil {
		return fmt.Errorf("look up %s: %w", a.HostInterface, err)
	}
	if !isHostSide(link) {
		return fmt.Errorf("restore %s: not the host side of an attachment", a.HostInterface)
	}
	if err := l.restore(link, a); err != nil {
		return fmt.Errorf("restore %s: %w", a.HostInterface, err)
	}
	return nil
}

// restore changes what empties other things first: an interface that was down has no routes, one that had another hardware
// address or spoke ARP no neighbours.
func (l *Links) restore(link netlink.Link, a cni.Attachment) error {
	if err := l.sysctls.setHost(a); err != nil {
		return err
	}
	if !bytes.Equal(link.Attrs().HardwareAddr, a.HostMAC[:]) {
		if err := netlink.LinkSetHardwareAddr(link, a.HostMAC[:]); err != nil {
			return fmt.Errorf("set hardware address: %w", err)
		}
	}
	if link.Attrs().RawFlags&unix.IFF_NOARP == 0 {
		if err := netlink.LinkSetARPOff(link); err != nil {
			return fmt.Errorf("turn ARP off: %w", err)
		}
	}
	if link.Attrs().Flags&net.FlagUp == 0 {
		if err := netlink.LinkSetUp(link); err != nil {
			return fmt.Errorf("set up: %w", err)
		}
	}
	return setWays(link, a)
}

// setWays sets the neighbour and the route of each of the pod's addresses.
func setWays(link netlink.Link, a cni.Attachment) error {
	for _, addr := range a.Addresses {
		if err := netlink.NeighSet(neighbour(link, addr, a.PodMAC)); err != nil {
			return fmt.Errorf("set neighbour %s: %w", addr, err)
		}
		if err := netlink.RouteReplace(hostRoute(link, addr)); err != nil {
			return fmt.Errorf("set route to %s: %w", addr, err)
		}
	}
	return nil
}

// Forwards returns whether the node forwards a family, AF_INET or AF_INET6, of itself: single interfaces may differ.
func (l *Links) Forwards(family int) (bool, error) {
	path := "ipv4/ip_forward"
	if family == unix.AF_INET6 {
		path = "ipv6/conf/all/forwarding"
	}
	value, err := l.sysctls.get(path)
	return value != "0", err
}

// Read returns what the kernel has of all host sides, by name. What changes in the meantime is signalled.
func (w *Watch) Read(ctx context.Context) (map[string]cni.HostSide, error) {
	var links []netlink.Link
	err := uninterrupted(ctx, func() (err error) { links, err = netlink.LinkList(); return err })
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	sides, names := map[string]cni.HostSide{}, map[int]string{}
	for _, link := range links {
		if isHostSide(link) {
			name := link.Attrs().Name
			names[link.Attrs().Index] = name
			sides[name] = w.side(link)
		}
	}
	// Whose neighbours are watched must be known before they are read, or a change between the two is missed.
	watched := maps.Clone(names)
	w.ours.Store(&watched)
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		if err := w.readRoutes(ctx, family, names, sides); err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		if err := readNeighbours(ctx, family, names, sides); err != nil {
			return nil, fmt.Errorf("list neighbours: %w", err)
		}
	}
	return sides, nil
}

// uninterrupted repeats a listing for as long as what it lists changes meanwhile.
func uninterrupted(ctx context.Context, list func() error) error {
	err := list()
	for errors.Is(err, netlink.ErrDumpInterrupted) && ctx.Err() == nil {
		err = list()
	}
	return err
}

// side is all that belongs to the interface itself.
func (w *Watch) side(link netlink.Link) cni.HostSide {
	h := cni.HostSide{
		Up:       link.Attrs().Flags&net.FlagUp != 0,
		Settings: map[string]string{}, Routes: map[netip.Addr]bool{}, Neighbours: map[netip.Addr]cni.MAC{},
	}
	copy(h.MAC[:], link.Attrs().HardwareAddr)
	for _, s := range (cni.Attachment{Addresses: []netip.Addr{netip.IPv6Unspecified()}}).HostSettings() {
		path := s.Path(link.Attrs().Name)
		if value, err := w.links.sysctls.get(path); err == nil {
			h.Settings[path] = value
		}
	}
	return h
}

// readRoutes has the kernel pick routes of the protocol that host routes have: the node may have a million others.
func (w *Watch) readRoutes(ctx context.Context, family int, names map[int]string, sides map[string]cni.HostSide) error {
	filter := &netlink.Route{Table: unix.RT_TABLE_MAIN, Protocol: unix.RTPROT_BOOT, Type: unix.RTN_UNICAST}
	mask := netlink.RT_FILTER_TABLE | netlink.RT_FILTER_PROTOCOL | netlink.RT_FILTER_TYPE
	var routes []netlink.Route
	err := uninterrupted(ctx, func() (err error) {
		routes, err = w.handle.RouteListFiltered(family, filter, mask)
		return err
	})
	if errors.Is(err, unix.ENOENT) { // no main table, as long as nobody needed one
		return nil
	}
	if err != nil {
		return err
	}
	for _, r := range routes {
		name, ours := names[r.LinkIndex]
		if !ours || r.Dst == nil || len(r.Gw) > 0 {
			continue
		}
		if addr, ok := netip.AddrFromSlice(r.Dst.IP); ok {
			if ones, bits := r.Dst.Mask.Size(); ones == bits {
				sides[name].Routes[addr.Unmap()] = true
			}
		}
	}
	return nil
}

func readNeighbours(ctx context.Context, family int, names map[int]string, sides map[string]cni.HostSide) error {
	var all []netlink.Neigh
	err := uninterrupted(ctx, func() (err error) { all, err = netlink.NeighList(0, family); return err })
	if err != nil {
		return err
	}
	for _, n := range all {
		name, ours := names[n.LinkIndex]
		addr, ok := netip.AddrFromSlice(n.IP)
		if ours && ok && n.State&netlink.NUD_PERMANENT != 0 && len(n.HardwareAddr) == len(cni.MAC{}) {
			sides[name].Neighbours[addr.Unmap()] = cni.MAC(n.HardwareAddr)
		}
	}
	return nil
}
