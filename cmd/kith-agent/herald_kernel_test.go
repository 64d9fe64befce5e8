//go:build kernel

package main

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/identity/announce"
	"github.com/kithnet/kith/overlay"
	"github.com/kithnet/kith/policy/ruleset"
)

// TestHintsComeByTheMesh: through tunnel and guard, a node hears whose its neighbour's addresses are. It does not believe
// a process of its own that uses the neighbour's address.
func TestHintsComeByTheMesh(t *testing.T) {
	const port = 7948
	l := newTunnel(t, tunnelMode(t))
	mustDo(t, "load guard", l.nodes[0].load(t.Context(), l.guards(l.network())))
	heard := make(chan identity.Hint, 100)
	var announcers [2]*announce.Announcer
	for i, n := range l.nodes {
		other := l.nodes[1-i].api
		a := announce.New(port, ruleset.Devices[:], func(h identity.Hint) {
			if i == 0 {
				heard <- h
			}
		})
		mustDo(t, "follow", n.do(func() error {
			return a.Follow(overlay.MeshAddresses(n.api.PodCIDRs), []announce.Node{
				{Name: other.Name, Addresses: overlay.MeshAddresses(other.PodCIDRs), CIDRs: other.PodCIDRs},
			})
		}))
		go func() { _ = a.Run(t.Context()) }()
		announcers[i] = a
	}
	n := l.nodes[1]
	pin := identity.Pin{Pod: identity.PodKey{Namespace: tunnelNamespace, Name: n.api.Name}, UID: n.api.Name}
	begin := time.Now()
	mustDo(t, "say", announcers[1].Say(pin, n.attachment.Addresses))
	var packet identity.Hint
	select {
	case packet = <-heard:
		t.Logf("heard after %s", time.Since(begin))
	case <-time.After(tunnelPatience):
		t.Fatal("nothing is heard")
	}
	if packet.Pin != pin || packet.Node != n.api.Name || !slices.Equal(packet.Addresses, n.attachment.Addresses) {
		t.Errorf("heard %+v", packet)
	}
	l.impersonate(port)
	for end := time.After(2 * time.Second); ; {
		select {
		case h := <-heard:
			if h.Sequence == forgedSequence {
				t.Fatalf("a process of this node is believed: %+v", h)
			}
		case <-end:
			return
		}
	}
}

// forgedSequence is that of a hint which the first node's own process sends as if it were the second node's.
const forgedSequence = 1<<64 - 1

func (t *tunnel) impersonate(port int) {
	t.Helper()
	from := net.UDPAddrFromAddrPort(netip.AddrPortFrom(overlay.MeshAddress(t.nodes[1].api.PodCIDRs[0]), uint16(port)))
	to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(overlay.MeshAddress(t.nodes[0].api.PodCIDRs[0]), uint16(port)))
	forged := []byte("khnt\x01\x01\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x04")
	forged = append(forged, t.nodes[1].attachment.Addresses[0].AsSlice()...)
	mustDo(t.TB, "send as another node", t.nodes[0].do(func() error {
		lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
			var failed error
			err := raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TRANSPARENT, 1) })
			return errors.Join(err, failed)
		}}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(lo); err != nil {
			return err
		}
		conn, err := lc.ListenPacket(t.Context(), "udp", from.String())
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = conn.WriteTo(forged, to)
		return err
	}))
}
