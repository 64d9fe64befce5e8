//go:build kernel

package nft

import (
	"net"
	"testing"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy/ruleset"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestSegmentsFitTheRoute opens connections both ways over a route of a small MTU: both ends send segments that fit.
// A route that grows again changes nothing about what the ends themselves asked for.
func TestSegmentsFitTheRoute(t *testing.T) {
	families(t, func(t *testing.T, family int) {
		l := newLab(t)
		l.under()
		pod, remote := l.pods[0].end, l.remotes[0]
		headers := []int{40, 60}[family]
		for _, mtu := range []int{1200, 1400, 9000} {
			l.narrow(family, mtu)
			for _, f := range []flow{l.between(pod, remote, family, identity.TCP, 80), l.between(remote, pod, family, identity.TCP, 80)} {
				c := l.call(f)
				fits := min(mtu, 1500) - headers
				for name, conn := range map[string]net.Conn{"caller": c.client, "server": c.server} {
					// TCP may use up to 40 bytes of a segment for its options.
					if got := segment(t, conn); got > fits || got < fits-40 {
						t.Errorf("%s over MTU %d: the %s sends %d bytes a segment, %d fit", f, mtu, name, got, fits)
					}
				}
			}
		}
	})
}

// narrow sets the MTU of the route into the mesh.
func (l *lab) narrow(family, mtu int) {
	l.Helper()
	must(l, "set route's MTU", l.router.handle.RouteReplace(&netlink.Route{
		LinkIndex: l.find(l.router, ruleset.Devices[0]).Attrs().Index, Dst: ipNet(remoteCIDRs[family]), Scope: netlink.SCOPE_LINK, MTU: mtu,
	}))
}

// segment is how many bytes of data an end puts into a packet.
func segment(t testing.TB, conn net.Conn) int {
	t.Helper()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	must(t, "open socket", err)
	var size int
	must(t, "read socket", raw.Control(func(fd uintptr) { size, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG) }))
	must(t, "read segment size", err)
	return size
}
