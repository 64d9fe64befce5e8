package wireguard

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

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

// leastMTU is what every link of IPv6 carries. What is said to be less is not believed.
const leastMTU = 1280

// Carrier returns what says of an endpoint the largest packet that this node lets out to it, and the largest that is said
// to arrive there, by whomever. It looks at each link once: it is for one look at all endpoints. Where as much as is enough
// is said to arrive, that much is let out.
//
// The kernel's WireGuard cuts its packets by what is said, and cannot be kept from it. Whole packets of that size cost less
// than pieces: there it is a limit, too, down to the least.
func (d *Device) Carrier(enough int) func(endpoint netip.AddrPort) (limit, said int, err error) {
	known := map[int]*net.Interface{}
	return func(endpoint netip.AddrPort) (limit, said int, err error) {
		if said, err = pathMTU(endpoint); err != nil || said >= enough {
			return said, said, err
		}
		if limit, err = routeMTU(endpoint, known); err != nil {
			return 0, 0, err
		}
		if d.mode == Kernel && said >= leastMTU {
			limit = min(limit, said)
		}
		return limit, said, nil
	}
}

// routeMTU returns the largest packet that this node's own links and routes let out to the endpoint. Nobody else has
// a say in it.
func routeMTU(endpoint netip.AddrPort, known map[int]*net.Interface) (int, error) {
	addr := endpoint.Addr().Unmap()
	routes, err := netlink.RouteGetWithOptions(addr.AsSlice(), &netlink.RouteGetOptions{FIBMatch: true})
	if err != nil {
		return 0, fmt.Errorf("find route to %s: %w", endpoint, err)
	}
	mtu := 0
	for _, r := range routes {
		sizes := []int{r.MTU, linkMTU(r.LinkIndex, addr, known)}
		for _, hop := range r.MultiPath {
			sizes = append(sizes, linkMTU(hop.LinkIndex, addr, known))
		}
		for _, n := range sizes {
			if n > 0 && (mtu == 0 || n < mtu) {
				mtu = n
			}
		}
	}
	if mtu == 0 {
		return 0, fmt.Errorf("find route to %s: it has no link", endpoint)
	}
	return mtu, nil
}

// linkMTU is what a link carries, for IPv6 by what routers on it have advertised. Zero: there is no such link.
func linkMTU(index int, addr netip.Addr, known map[int]*net.Interface) int {
	link := known[index]
	if link == nil {
		var err error
		if link, err = net.InterfaceByIndex(index); err != nil {
			return 0
		}
		known[index] = link
	}
	if !addr.Is6() {
		return link.MTU
	}
	text, err := os.ReadFile(filepath.Join("/proc/sys/net/ipv6/conf", link.Name, "mtu"))
	if err != nil {
		return link.MTU
	}
	advertised, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return link.MTU
	}
	return min(link.MTU, advertised)
}

// pathMTU returns the largest packet that the kernel believes to reach the endpoint: that of its route, or what anybody
// has said by ICMP in the last ten minutes, router on the way or not.
func pathMTU(endpoint netip.AddrPort) (int, error) {
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
