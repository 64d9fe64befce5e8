package wireguard

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Neighbours keeps the kernel's entries for the neighbours by which a node reaches others. The kernel has one table of
// neighbours for a node and all its pods, and throws out what was silent when the table fills: an entry that somebody outside
// of the kernel is said to have learned has no place in that count, and stays. The kernel resolves it, and follows a neighbour
// that changes its hardware address, as any other.
type Neighbours struct {
	kept map[neighbour]struct{}
}

// neighbour is who is asked for by ARP or neighbour discovery on a link.
type neighbour struct {
	link int
	addr netip.Addr
}

// Keep keeps the next hops to the addresses, and those of all routes. Those of the last time that are none any more are again
// as others.
func (n *Neighbours) Keep(reached []netip.Addr) error {
	links, err := resolving()
	if err != nil {
		return err
	}
	want, err := nextHops(reached)
	if err != nil {
		return err
	}
	have, err := neighbours()
	if err != nil {
		return err
	}
	kept := map[neighbour]struct{}{}
	var failed error
	for hop := range want {
		if links[hop.link] {
			failed = errors.Join(failed, keep(hop, have))
			kept[hop] = struct{}{}
		}
	}
	for hop := range n.kept {
		if _, still := kept[hop]; !still && links[hop.link] {
			failed = errors.Join(failed, release(hop, have))
		}
	}
	n.kept = kept
	return failed
}

// resolving are the links on which the kernel asks for neighbours.
func resolving() (map[int]bool, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	out := map[int]bool{}
	for _, l := range links {
		out[l.Attrs().Index] = l.Attrs().RawFlags&(unix.IFF_NOARP|unix.IFF_LOOPBACK|unix.IFF_POINTOPOINT) == 0
	}
	return out, nil
}

func nextHops(reached []netip.Addr) (map[neighbour]struct{}, error) {
	out := map[neighbour]struct{}{}
	add := func(link int, ip []byte) {
		if addr, ok := netip.AddrFromSlice(ip); ok && !addr.IsUnspecified() {
			out[neighbour{link, addr.Unmap()}] = struct{}{}
		}
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		add(r.LinkIndex, r.Gw)
		for _, hop := range r.MultiPath {
			add(hop.LinkIndex, hop.Gw)
		}
	}
	for _, addr := range reached {
		routes, err := netlink.RouteGet(addr.AsSlice())
		if err != nil {
			continue // there is no way to it, and so no neighbour
		}
		for _, r := range routes {
			if r.Type == unix.RTN_UNICAST && r.Gw == nil {
				add(r.LinkIndex, addr.AsSlice())
			}
		}
	}
	return out, nil
}

func neighbours() (map[neighbour]netlink.Neigh, error) {
	all, err := netlink.NeighList(0, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list neighbours: %w", err)
	}
	out := make(map[neighbour]netlink.Neigh, len(all))
	for _, n := range all {
		if addr, ok := netip.AddrFromSlice(n.IP); ok {
			out[neighbour{n.LinkIndex, addr.Unmap()}] = n
		}
	}
	return out, nil
}

// keep leaves alone who is kept already, by whomever. Of one that is known it says what is known, to be confirmed when it is
// next used.
func keep(hop neighbour, have map[neighbour]netlink.Neigh) error {
	now, known := have[hop]
	if known && (now.Flags&netlink.NTF_EXT_LEARNED != 0 || now.State&netlink.NUD_PERMANENT != 0) {
		return nil
	}
	return set(hop, now, netlink.NTF_EXT_LEARNED)
}

func release(hop neighbour, have map[neighbour]netlink.Neigh) error {
	now, known := have[hop]
	if !known || now.Flags&netlink.NTF_EXT_LEARNED == 0 || now.State&netlink.NUD_PERMANENT != 0 {
		return nil
	}
	return set(hop, now, 0)
}

func set(hop neighbour, now netlink.Neigh, flags int) error {
	n := &netlink.Neigh{LinkIndex: hop.link, Family: unix.AF_INET, State: netlink.NUD_NONE, Flags: flags, IP: hop.addr.AsSlice()}
	if hop.addr.Is6() {
		n.Family = unix.AF_INET6
	}
	const resolved = netlink.NUD_REACHABLE | netlink.NUD_STALE | netlink.NUD_DELAY | netlink.NUD_PROBE
	if now.State&resolved != 0 {
		n.State, n.HardwareAddr = netlink.NUD_STALE, now.HardwareAddr
	}
	if err := netlink.NeighSet(n); err != nil {
		return fmt.Errorf("keep neighbour %s: %w", hop.addr, err)
	}
	return nil
}
