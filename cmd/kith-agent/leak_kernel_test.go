//go:build kernel

package main

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/overlay"
	"github.com/kithnet/kith/overlay/wireguard"
	"github.com/kithnet/kith/policy/ruleset"
)

// leaks are ways to lose the mesh under a pod that sends. Where the guard alone holds the pod's packets, a table without
// it must show them on the cable: that is how the test knows that it would see them.
var leaks = []struct {
	name    string
	cause   func(*tunnel, *tunnelNode) error
	guarded bool
}{
	{"device deleted", func(_ *tunnel, n *tunnelNode) error { return n.links(netlink.LinkDel) }, true},
	{"device set down", func(_ *tunnel, n *tunnelNode) error { return n.links(netlink.LinkSetDown) }, true},
	{"route deleted", func(t *tunnel, n *tunnelNode) error { return t.unroute(n) }, true},
	{"route turned to the underlay", func(t *tunnel, n *tunnelNode) error {
		return n.each(t.nodes[1].api.PodCIDRs, func(to netip.Prefix) error { return netlink.RouteReplace(onCable(to)) })
	}, true},
	{"more specific route to the underlay", func(t *tunnel, n *tunnelNode) error {
		var pods []netip.Prefix
		for _, addr := range t.nodes[1].attachment.Addresses {
			pods = append(pods, netip.PrefixFrom(addr, addr.BitLen()))
		}
		return n.each(pods, func(to netip.Prefix) error { return netlink.RouteReplace(onCable(to)) })
	}, true},
	{"peer removed", func(t *tunnel, n *tunnelNode) error {
		var plan overlay.Plan
		for lane, key := range t.nodes[1].claim().Keys {
			plan.Steps = append(plan.Steps, overlay.RemovePeer{On: overlay.On{Lane: lane}, Key: key})
		}
		return n.do(func() error { return n.device.Apply(t.Context(), plan) })
	}, false},
	{"Node deleted", func(t *tunnel, n *tunnelNode) error {
		var gone vacated
		gone.keep(t.network(), time.Now(), anyCIDR)
		left := gone.keep(network(n.api.Name, []overlay.Node{n.api}, nil), time.Now(), anyCIDR)
		if err := n.load(t.Context(), t.guards(left)); err != nil {
			return err
		}
		if err := t.unroute(n); err != nil {
			return err
		}
		sent := t.speak() // a connection from before would not be masqueraded
		t.until("packets of new connections are sent", func() bool { return sent.Load() > 200 })
		return nil
	}, true},
	{"wireguard-go killed", func(t *tunnel, n *tunnelNode) error {
		if t.mode == wireguard.Kernel {
			return nil
		}
		return syscall.Kill(n.process, syscall.SIGKILL)
	}, false},
}

// TestNothingLeavesInClear takes the mesh away under a pod that sends to a remote one, in every way there is, while the
// node has a default route that would take the packets.
func TestNothingLeavesInClear(t *testing.T) {
	for _, leak := range leaks {
		t.Run(leak.name, func(t *testing.T) {
			l := newTunnel(t, tunnelMode(t))
			n := l.nodes[0]
			mustDo(t, "load guard", n.load(t.Context(), l.guards(l.network())))
			mustDo(t, "add default routes", n.each(defaultRoutes(), func(to netip.Prefix) error { return netlink.RouteAdd(onCable(to)) }))
			sent, seen := l.chatter(), l.sniff()
			mustDo(t, leak.name, leak.cause(l, n))
			before := sent.Load()
			l.until("packets are sent", func() bool { return sent.Load() > before+200 })
			if n := seen.String(); n != none {
				t.Fatalf("%s with pod addresses on the cable", n)
			}
			mustDo(t, "take the guard out", n.load(t.Context(), ruleset.Ruleset{}))
			if leak.guarded {
				l.until("without the guard, they are on the cable", func() bool { return seen[0].Load() > 0 && seen[1].Load() > 0 })
				return
			}
			before = sent.Load()
			l.until("packets are sent", func() bool { return sent.Load() > before+200 })
			if n := seen.String(); n != none {
				t.Errorf("%s with pod addresses on the cable without the guard: say so above", n)
			}
		})
	}
}

// sightings are packets of both families.
type sightings [2]atomic.Int64

const none = "0 packets of IPv4 and 0 of IPv6"

func (s *sightings) String() string {
	return fmt.Sprintf("%d packets of IPv4 and %d of IPv6", s[0].Load(), s[1].Load())
}

// unroute takes the first node's routes to the second's pods away.
func (t *tunnel) unroute(n *tunnelNode) error {
	return n.each(t.nodes[1].api.PodCIDRs, func(to netip.Prefix) error {
		return netlink.RouteDel(&netlink.Route{Dst: ipNet(to), Scope: netlink.SCOPE_LINK})
	})
}

// network is what the first node's agent knows of both.
func (t *tunnel) network() ruleset.Network {
	return network(t.nodes[0].api.Name, []overlay.Node{t.nodes[0].api, t.nodes[1].api}, nil)
}

// guards is what the first node's agent would load without any policy.
func (t *tunnel) guards(known ruleset.Network) ruleset.Ruleset {
	n := t.nodes[0]
	return ruleset.Compile(ruleset.Input{
		Pods:        []identity.Pod{tunnelPod(n.api.Name, "tunnel", n.attachment.Addresses...)},
		Namespaces:  []identity.Namespace{{Name: tunnelNamespace}},
		Attachments: []ruleset.Attachment{attachment(n.attachment)},
		Network:     known,
	})
}

// links does something to both devices of the mesh.
func (n *tunnelNode) links(act func(netlink.Link) error) error {
	return n.do(func() error {
		for _, name := range ruleset.Devices {
			link, err := netlink.LinkByName(name)
			if err != nil {
				return err
			}
			if err := act(link); err != nil {
				return err
			}
		}
		return nil
	})
}

// each does something about prefixes of both families.
func (n *tunnelNode) each(to []netip.Prefix, act func(netip.Prefix) error) error {
	return n.do(func() error {
		for _, p := range to {
			if err := act(p); err != nil {
				return fmt.Errorf("%s: %w", p, err)
			}
		}
		return nil
	})
}

func defaultRoutes() []netip.Prefix { return prefixes("0.0.0.0/0", "::/0") }

// onCable routes something to the second node over the cable.
func onCable(to netip.Prefix) *netlink.Route {
	family := 0
	if to.Addr().Is6() {
		family = 1
	}
	return &netlink.Route{Dst: ipNet(to), Gw: cableEnds(2)[family].AsSlice()}
}

func (t *tunnel) until(what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(tunnelPatience); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after %s not: %s", tunnelPatience, what)
		}
	}
}

// chatter has the first node's pod send to the second's, in both families, for as long as the test lasts, and waits until
// it is heard.
func (t *tunnel) chatter() *atomic.Int64 {
	t.Helper()
	var heard []*net.UDPConn
	for _, addr := range t.nodes[1].attachment.Addresses {
		mustDo(t, "listen", t.nodes[1].pod.do(func() error {
			conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, chatterPort)))
			heard = append(heard, conn)
			return err
		}))
	}
	sent := t.speak()
	for _, conn := range heard {
		t.Cleanup(func() { conn.Close() })
		_ = conn.SetReadDeadline(time.Now().Add(tunnelPatience))
		_, err := conn.Read(make([]byte, 100))
		mustDo(t, "hear a packet through the tunnel", err)
	}
	return sent
}

const chatterPort = 9

// speak has the first node's pod send to the second's by new connections.
func (t *tunnel) speak() *atomic.Int64 {
	t.Helper()
	var conns []*net.UDPConn
	for _, addr := range t.nodes[1].attachment.Addresses {
		mustDo(t, "dial", t.nodes[0].pod.do(func() error {
			conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, chatterPort)))
			conns = append(conns, conn)
			return err
		}))
	}
	t.Cleanup(func() {
		for _, conn := range conns {
			conn.Close()
		}
	})
	var sent atomic.Int64
	go func() {
		for t.Context().Err() == nil {
			for _, conn := range conns {
				_, _ = conn.Write([]byte("in clear?"))
			}
			sent.Add(1)
			time.Sleep(2 * time.Millisecond)
		}
	}()
	return &sent
}

// sniff counts the packets that reach the second node over the cable with a pod's address as their source or target.
func (t *tunnel) sniff() *sightings {
	t.Helper()
	var seen sightings
	for family, protocol := range []uint16{unix.ETH_P_IP, unix.ETH_P_IPV6} {
		fd := t.openCable(protocol)
		done := make(chan struct{})
		go func() {
			defer close(done)
			packet := make([]byte, 2048)
			for t.Context().Err() == nil {
				if n, _, err := unix.Recvfrom(fd, packet, 0); err == nil && t.isPods(packet[:n]) {
					seen[family].Add(1)
				}
			}
		}()
		t.Cleanup(func() {
			<-done
			unix.Close(fd)
		})
	}
	return &seen
}

// openCable is a socket at the second node's end of the cable. Until it is bound it hears nothing: with a protocol from
// its start it would hear every device of the node, and so what leaves the tunnel.
func (t *tunnel) openCable(protocol uint16) (fd int) {
	t.Helper()
	mustDo(t, "sniff", t.nodes[1].do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		wait := unix.NsecToTimeval(int64(100 * time.Millisecond))
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
			return err
		}
		network := protocol<<8 | protocol>>8 // the order of its bytes
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: network, Ifindex: link.Attrs().Index})
	}))
	return fd
}

func (t *tunnel) isPods(packet []byte) bool {
	at, size := []int{12, 16}, 4
	if len(packet) >= 40 && packet[0]>>4 == 6 {
		at, size = []int{8, 24}, 16
	}
	if len(packet) < 20 {
		return false
	}
	for _, i := range at {
		addr, _ := netip.AddrFromSlice(packet[i : i+size])
		for _, n := range t.nodes {
			if slices.ContainsFunc(n.api.PodCIDRs, func(p netip.Prefix) bool { return p.Contains(addr) }) {
				return true
			}
		}
	}
	return false
}
