package wireguard

import (
	"fmt"
	"net"
	"net/netip"
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
