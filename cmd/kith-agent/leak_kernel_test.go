//go:build kernel

package main

import (
	"net"
	"net/netip"
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
	{"route deleted", func(t *tunnel, n *tunnelNode) error {
		return n.do(func() error { return netlink.RouteDel(&netlink.Route{Dst: t.remote(), Scope: netlink.SCOPE_LINK}) })
	}, true},
	{"route turned to the underlay", func(t *tunnel, n *tunnelNode) error {
		return n.do(func() error { return netlink.RouteReplace(t.gateway(t.remote())) })
	}, true},
	{"more specific route to the underlay", func(t *tunnel, n *tunnelNode) error {
		pod := t.nodes[1].attachment.Addresses[0]
		return n.do(func() error {
			return netlink.RouteReplace(t.gateway(&net.IPNet{IP: pod.AsSlice(), Mask: net.CIDRMask(32, 32)}))
		})
	}, true},
	{"peer removed", func(t *tunnel, n *tunnelNode) error {
		var plan overlay.Plan
		for lane, key := range t.nodes[1].claim().Keys {
			plan.Steps = append(plan.Steps, overlay.RemovePeer{On: overlay.On{Lane: lane}, Key: key})
		}
		return n.do(func() error { return n.device.Apply(t.Context(), plan) })
	}, false},
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
			rules := l.guards()
			mustDo(t, "load guard", n.load(t.Context(), rules))
			mustDo(t, "add default route", n.do(func() error { return netlink.RouteAdd(l.gateway(nil)) }))
			sent, seen := l.chatter(), l.sniff()
			mustDo(t, leak.name, leak.cause(l, n))
			before := sent.Load()
			l.until("packets are sent", func() bool { return sent.Load() > before+200 })
			if n := seen.Load(); n > 0 {
				t.Fatalf("%d packets with pod addresses on the cable", n)
			}
			mustDo(t, "take the guard out", n.load(t.Context(), ruleset.Ruleset{}))
			if leak.guarded {
				l.until("without the guard, they are on the cable", func() bool { return seen.Load() > 0 })
				return
			}
			before = sent.Load()
			l.until("packets are sent", func() bool { return sent.Load() > before+200 })
			if n := seen.Load(); n > 0 {
				t.Errorf("%d packets with pod addresses on the cable without the guard: say so above", n)
			}
		})
	}
}

// guards is what the first node's agent would load without any policy.
func (t *tunnel) guards() ruleset.Ruleset {
	n := t.nodes[0]
	return ruleset.Compile(ruleset.Input{
		Pods:        []identity.Pod{tunnelPod(n.api.Name, "tunnel", n.attachment.Addresses[0])},
		Namespaces:  []identity.Namespace{{Name: tunnelNamespace}},
		Attachments: []ruleset.Attachment{attachment(n.attachment)},
		Network:     network(n.api.Name, []overlay.Node{t.nodes[0].api, t.nodes[1].api}, nil),
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

// remote is the second node's pod CIDR.
func (t *tunnel) remote() *net.IPNet {
	cidr := t.nodes[1].api.PodCIDRs[0]
	return &net.IPNet{IP: cidr.Addr().AsSlice(), Mask: net.CIDRMask(cidr.Bits(), 32)}
}

// gateway routes something to the second node over the cable.
func (t *tunnel) gateway(to *net.IPNet) *netlink.Route {
	return &netlink.Route{Dst: to, Gw: t.nodes[1].api.InternalIPs[0].AsSlice()}
}

func (t *tunnel) until(what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(tunnelPatience); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after %s not: %s", tunnelPatience, what)
		}
	}
}

// chatter has the first node's pod send to the second's for as long as the test lasts, and waits until it is heard.
func (t *tunnel) chatter() *atomic.Int64 {
	t.Helper()
	to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(t.nodes[1].attachment.Addresses[0], 9))
	var heard *net.UDPConn
	mustDo(t, "listen", t.nodes[1].pod.do(func() (err error) { heard, err = net.ListenUDP("udp", to); return err }))
	t.Cleanup(func() { heard.Close() })
	var conn *net.UDPConn
	mustDo(t, "dial", t.nodes[0].pod.do(func() (err error) { conn, err = net.DialUDP("udp", nil, to); return err }))
	t.Cleanup(func() { conn.Close() })
	var sent atomic.Int64
	go func() {
		for t.Context().Err() == nil {
			_, _ = conn.Write([]byte("in clear?"))
			sent.Add(1)
			time.Sleep(2 * time.Millisecond)
		}
	}()
	_ = heard.SetReadDeadline(time.Now().Add(tunnelPatience))
	_, err := heard.Read(make([]byte, 100))
	mustDo(t, "hear a packet through the tunnel", err)
	return &sent
}

// sniff counts the packets that reach the second node over the cable with a pod's address as their source or target.
func (t *tunnel) sniff() *atomic.Int64 {
	t.Helper()
	var fd int
	mustDo(t, "sniff", t.nodes[1].do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		const ipv4 = (unix.ETH_P_IP<<8 | unix.ETH_P_IP>>8) & 0xffff // in the byte order of the network
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, ipv4); err != nil {
			return err
		}
		wait := unix.NsecToTimeval(int64(100 * time.Millisecond))
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: ipv4, Ifindex: link.Attrs().Index})
	}))
	var seen atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		packet := make([]byte, 2048)
		for t.Context().Err() == nil {
			if n, _, err := unix.Recvfrom(fd, packet, 0); err == nil && n >= 20 && t.isPods(packet) {
				seen.Add(1)
			}
		}
	}()
	t.Cleanup(func() {
		<-done
		unix.Close(fd)
	})
	return &seen
}

func (t *tunnel) isPods(packet []byte) bool {
	for _, at := range []int{12, 16} {
		addr := netip.AddrFrom4([4]byte(packet[at : at+4]))
		if t.nodes[0].api.PodCIDRs[0].Contains(addr) || t.nodes[1].api.PodCIDRs[0].Contains(addr) {
			return true
		}
	}
	return false
}
