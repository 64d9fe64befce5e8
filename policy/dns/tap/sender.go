package tap

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kithnet/kith/policy/dns"
)

// sender puts packets onto links, behind all rules: they passed them already.
type sender struct {
	socket int
	links  *netlink.Handle

	mu   sync.Mutex
	macs map[place]net.HardwareAddr
}

// place is where an address is.
type place struct {
	link int
	pod  netip.Addr
}

// errGone is that nobody waits for an answer any more.
var errGone = errors.New("the pod is gone: it is no neighbour")

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
	return &sender{socket: socket, links: links, macs: map[place]net.HardwareAddr{}}, nil
}

func (s *sender) close() error {
	s.links.Close()
	return unix.Close(s.socket)
}

func (s *sender) send(a answer) error {
	dns.Sum(a.packet)
	mac, err := s.neighbour(place{a.link, a.pod})
	if err != nil {
		return err
	}
	address := &unix.SockaddrLinklayer{Protocol: bigEndian(unix.ETH_P_IP), Ifindex: a.link, Halen: uint8(len(mac))}
	if a.pod.Is6() {
		address.Protocol = bigEndian(unix.ETH_P_IPV6)
	}
	copy(address.Addr[:], mac)
	if err := unix.Sendto(s.socket, a.packet, 0, address); err != nil {
		return fmt.Errorf("send %d bytes by link %d: %w", len(a.packet), a.link, err)
	}
	return nil
}

func bigEndian(n uint16) uint16 { return n<<8 | n>>8 }

// forget has neighbours looked up again: the pods may be others.
func (s *sender) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.macs)
}

// neighbour is a pod's hardware address, which is written down since its ADD. To look for it, the kernel walks through all
// neighbours of the node.
func (s *sender) neighbour(at place) (net.HardwareAddr, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if mac := s.macs[at]; mac != nil {
		return mac, nil
	}
	family := netlink.FAMILY_V4
	if at.pod.Is6() {
		family = netlink.FAMILY_V6
	}
	all, err := s.links.NeighList(at.link, family)
	if err != nil {
		return nil, fmt.Errorf("list neighbours of link %d: %w", at.link, err)
	}
	for _, n := range all {
		if have, ok := netip.AddrFromSlice(n.IP); ok && have.Unmap() == at.pod && len(n.HardwareAddr) == 6 {
			s.macs[at] = n.HardwareAddr
			return n.HardwareAddr, nil
		}
	}
	return nil, errGone
}
