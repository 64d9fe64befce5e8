package wireguard

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// UnderlayMTU returns the MTU of the link that bears addr.
func UnderlayMTU(addr netip.Addr) (int, error) {
	links, err := net.Interfaces()
	if err != nil {
		return 0, fmt.Errorf("find link of %s: %w", addr, err)
	}
	for _, link := range links {
		addrs, err := link.Addrs()
		if err != nil {
			return 0, fmt.Errorf("find link of %s: %w", addr, err)
		}
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && prefix(*n).Addr() == addr.Unmap() {
				return link.MTU, nil
			}
		}
	}
	return 0, fmt.Errorf("find link of %s: no link has it", addr)
}

// PathMTU returns the largest packet that the kernel knows to reach the endpoint:
// that of the link, or what a router on the way has complained of.
func PathMTU(endpoint netip.AddrPort) (int, error) {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(endpoint))
	if err != nil {
		return 0, fmt.Errorf("find way to %s: %w", endpoint, err)
	}
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("find way to %s: %w", endpoint, err)
	}
	level, option := unix.IPPROTO_IP, unix.IP_MTU
	if endpoint.Addr().Is6() {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_MTU
	}
	var mtu int
	var failed error
	if err := raw.Control(func(fd uintptr) { mtu, failed = unix.GetsockoptInt(int(fd), level, option) }); err != nil {
		return 0, fmt.Errorf("find way to %s: %w", endpoint, err)
	}
	if failed != nil {
		return 0, fmt.Errorf("read MTU of way to %s: %w", endpoint, failed)
	}
	return mtu, nil
}

// Gateways are the next hops of this node's own routes. Those of the mesh's routes are none: they have no gateway.
func Gateways() ([]netip.Addr, error) {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	var out []netip.Addr
	add := func(ip net.IP) {
		if addr, ok := netip.AddrFromSlice(ip); ok && !slices.Contains(out, addr.Unmap()) {
			out = append(out, addr.Unmap())
		}
	}
	for _, r := range routes {
		add(r.Gw)
		for _, hop := range r.MultiPath {
			add(hop.Gw)
		}
	}
	return out, nil
}
