package veth

import (
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kithnet/kith/cni"
)

const errNoDevice = unix.ENODEV

func familyOf(addr netip.Addr) int {
	if addr.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func neighbour(link netlink.Link, addr netip.Addr, mac cni.MAC) *netlink.Neigh {
	return &netlink.Neigh{
		LinkIndex:    link.Attrs().Index,
		Family:       familyOf(addr),
		State:        netlink.NUD_PERMANENT,
		IP:           addr.AsSlice(),
		HardwareAddr: net.HardwareAddr(mac[:]),
	}
}

func hostRoute(link netlink.Link, addr netip.Addr) *netlink.Route {
	return &netlink.Route{
		LinkIndex: link.Attrs().Index,
		Family:    familyOf(addr),
		Scope:     netlink.SCOPE_LINK,
		Dst:       ipNet(cni.Single(addr)),
	}
}

// podAddress has no duplicate detection: nobody else is on the link, and the pod wants to use it now.
func podAddress(addr netip.Addr) *netlink.Addr {
	flags := 0
	if addr.Is6() {
		flags = unix.IFA_F_NODAD
	}
	return &netlink.Addr{IPNet: ipNet(cni.Single(addr)), Flags: flags, Scope: int(netlink.SCOPE_UNIVERSE)}
}

// podRoutes returns the routes of a pod with this address, in the order they can be added.
func podRoutes(link netlink.Link, addr netip.Addr) []*netlink.Route {
	gw := cni.Gateway(addr)
	onLink := &netlink.Route{
		LinkIndex: link.Attrs().Index,
		Family:    familyOf(addr),
		Scope:     netlink.SCOPE_LINK,
		Dst:       ipNet(cni.Single(gw)),
	}
	all := &netlink.Route{
		LinkIndex: link.Attrs().Index,
		Family:    familyOf(addr),
		Dst:       &net.IPNet{IP: make(net.IP, addr.BitLen()/8), Mask: net.CIDRMask(0, addr.BitLen())},
		Gw:        gw.AsSlice(),
		Flags:     int(netlink.FLAG_ONLINK),
	}
	return []*netlink.Route{onLink, all}
}
