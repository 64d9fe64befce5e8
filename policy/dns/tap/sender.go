package tap

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kithnet/kith/policy/dns"
)

// sender puts packets onto links, behind all rules: they passed them already.
type sender struct {
	socket int
	links  *netlink.Handle
}

func newSender() (*sender, error) {
	links, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	// Protocol 0: nothing is received.
	socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		links.Close()
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	return &sender{socket, links}, nil
}

func (s *sender) close() error {
	s.links.Close()
	return unix.Close(s.socket)
}

func (s *sender) send(a answer) error {
	to, err := dns.Sum(a.packet)
	if err != nil {
		return err
	}
	mac, err := s.neighbour(a.link, to)
	if err != nil {
		return err
	}
	address := &unix.SockaddrLinklayer{Protocol: bigEndian(unix.ETH_P_IP), Ifindex: a.link, Halen: uint8(len(mac))}
	if to.Is6() {
		address.Protocol = bigEndian(unix.ETH_P_IPV6)
	}
	copy(address.Addr[:], mac)
	if err := unix.Sendto(s.socket, a.packet, 0, address); err != nil {
		return fmt.Errorf("send %d bytes by link %d: %w", len(a.packet), a.link, err)
	}
	return nil
}

func bigEndian(n uint16) uint16 { return n<<8 | n>>8 }

// neighbour is a pod's hardware address, which is written down since its ADD.
func (s *sender) neighbour(link int, pod netip.Addr) (net.HardwareAddr, error) {
	family := netlink.FAMILY_V4
	if pod.Is6() {
		family = netlink.FAMILY_V6
	}
	all, err := s.links.NeighList(link, family)
	if err != nil {
		return nil, fmt.Errorf("list neighbours of link %d: %w", link, err)
	}
	for _, n := range all {
		if have, ok := netip.AddrFromSlice(n.IP); ok && have.Unmap() == pod && len(n.HardwareAddr) == 6 {
			return n.HardwareAddr, nil
		}
	}
	return nil, errors.New("the pod is gone: no neighbour " + pod.String())
}
