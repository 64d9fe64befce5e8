package overlay

import (
	"fmt"
	"net/netip"
)

// Family is the IP version of the underlay, which carries WireGuard's packets.
type Family uint8

// Auto takes the family of this node's first InternalIP.
const (
	Auto Family = iota
	IPv4
	IPv6
)

// ParseFamily reads the configuration's word for a family.
func ParseFamily(s string) (Family, error) {
	switch s {
	case "", "auto":
		return Auto, nil
	case "ipv4":
		return IPv4, nil
	case "ipv6":
		return IPv6, nil
	}
	return Auto, fmt.Errorf("parse underlay family %q: want auto, ipv4 or ipv6", s)
}

func (f Family) String() string {
	switch f {
	case IPv4:
		return "ipv4"
	case IPv6:
		return "ipv6"
	}
	return "auto"
}

// FamilyOf returns the family of an address.
func FamilyOf(addr netip.Addr) Family {
	if addr.Unmap().Is4() {
		return IPv4
	}
	return IPv6
}

// overhead is what WireGuard adds to a packet: outer IP header, UDP header (8),
// its own header and tag (32).
func (f Family) overhead() int {
	if f == IPv6 {
		return 80
	}
	return 60
}

// The smallest MTUs that IPv4 and IPv6 allow on a link. Below the second the
// kernel takes IPv6 away from the device.
const (
	minMTU4 = 576
	minMTU6 = 1280
)

// WireGuard pads packets to this many bytes, but not beyond the device's MTU.
const padding = 16

// routeMTU returns the largest packet that fits the underlay. One that the device's
// MTU may exceed leaves room for the padding. An IPv6 route may be narrower than IPv6
// allows a link to be: TCP keeps to it.
func (l Local) routeMTU(outer Family) int {
	mtu := l.UnderlayMTU - outer.overhead()
	if mtu < minMTU6 {
		mtu -= mtu % padding
	}
	return max(mtu, minMTU4)
}

// deviceMTU returns what the device needs to carry packets of the inner family.
func (l Local) deviceMTU(outer, inner Family) int {
	if inner == IPv6 {
		return max(l.routeMTU(outer), minMTU6)
	}
	return l.routeMTU(outer)
}
