//go:build kernel

package wireguard_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/kithnet/kith/overlay"
	"github.com/kithnet/kith/overlay/path"
	"github.com/kithnet/kith/overlay/probe"
	"github.com/kithnet/kith/overlay/wireguard"
)

// probe starts what an agent has for finding its ways, in a hurry.
func (n *node) probe() {
	n.lab.tb.Helper()
	n.prober = probe.New(7947, path.Config{
		Interval: 200 * time.Millisecond, Timeout: 500 * time.Millisecond, Check: 300 * time.Millisecond,
		Raise: 2 * time.Second, Patience: 2 * time.Second,
	})
	n.follow()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.prober.Run(ctx) }()
	n.lab.tb.Cleanup(func() {
		cancel()
		<-done
	})
}

// follow tells the prober about the peers, as an agent does all the time.
func (n *node) follow() {
	n.lab.tb.Helper()
	mesh := n.computed()
	received := map[overlay.Key]int64{}
	var targets []probe.Target
	n.do(func() {
		peers, err := n.dev.Peers(context.Background())
		if err != nil {
			n.lab.tb.Errorf("%s: read peers: %v", n.api.Name, err)
		}
		for _, p := range peers {
			received[p.Key] = p.ReceivedBytes
		}
		for i, p := range mesh.Lanes[0].Peers {
			limit, said, err := n.dev.Carrier(n.lab.mtu)(p.Endpoint)
			if err != nil {
				n.lab.tb.Errorf("%s: %v", n.api.Name, err)
			}
			targets = append(targets, probe.Target{Address: overlay.MeshAddress(p.AllowedIPs[0]), Target: path.Target{
				Name: p.Name, Limit: min(mesh.Routes[0].MTU, overlay.Fits(limit, p.Endpoint)), Hint: overlay.Fits(said, p.Endpoint),
				Received: received[p.Key] + received[mesh.Lanes[1].Peers[i].Key], Alive: true,
			}})
		}
		if err := n.prober.Follow(mesh.Lanes[0].Addresses, targets); err != nil {
			n.lab.tb.Errorf("%s: %v", n.api.Name, err)
		}
	})
}

// until lets all agents work until a condition holds.
func (l *lab) until(what string, holds func() bool) time.Duration {
	l.tb.Helper()
	start := time.Now()
	for !holds() {
		if time.Since(start) > patience {
			for _, n := range l.nodes {
				l.tb.Logf("%s: %+v", n.api.Name, n.prober.Paths())
			}
			l.tb.Fatalf("after %s not: %s", patience, what)
		}
		for _, n := range l.nodes {
			n.follow()
			n.reconcile()
			n.remake()
		}
		time.Sleep(20 * time.Millisecond)
	}
	return time.Since(start)
}

// remake does what an agent does about peers from which nothing comes back.
func (n *node) remake() {
	for _, name := range n.prober.Remake() {
		plan := n.computed().Remake(name)
		var err error
		n.do(func() { err = n.dev.Apply(context.Background(), plan) })
		n.lab.tb.Logf("%s: remade peer %s: %v", n.api.Name, name, err)
	}
}

// TestSilentPeerIsRemade sends both ends' packets to where nobody is, behind the agents' backs. No plan mends that.
func TestSilentPeerIsRemade(t *testing.T) {
	l := newLab(t, 1500)
	a, b := l.addNode(overlay.IPv4), l.addNode(overlay.IPv4)
	l.reconcile()
	a.probe()
	b.probe()
	limit := a.computed().Routes[0].MTU
	l.until("the way is known", l.known(limit))
	l.until("silence is seen", func() bool {
		// Again and again: a packet that was under way makes its receiver answer to where it came from.
		for _, n := range l.nodes {
			n.mislead(netip.MustParseAddrPort("172.31.0.99:51820"))
		}
		return !a.prober.Paths()[0].Silent.IsZero()
	})
	if plan := a.plan(); !plan.Empty() {
		t.Errorf("the plan is not empty:\n%s", plan)
	}
	l.until("the silence is over", func() bool {
		return a.prober.Paths()[0].Silent.IsZero() && b.prober.Paths()[0].Silent.IsZero()
	})
	l.until("the way is known again", l.known(limit))
	if a.prober.Paths()[0].Remade.IsZero() && b.prober.Paths()[0].Remade.IsZero() {
		t.Error("nobody remade a peer")
	}
}

// mislead changes the endpoint of all peers.
func (n *node) mislead(endpoint netip.AddrPort) {
	n.lab.tb.Helper()
	n.do(func() {
		client, err := wgctrl.New()
		if err != nil {
			n.lab.tb.Fatal(err)
		}
		defer client.Close()
		for i, lane := range n.computed().Lanes {
			var config wgtypes.Config
			for _, p := range lane.Peers {
				config.Peers = append(config.Peers, wgtypes.PeerConfig{
					PublicKey: wgtypes.Key(p.Key), UpdateOnly: true, Endpoint: net.UDPAddrFromAddrPort(endpoint),
				})
			}
			if err := client.ConfigureDevice(n.devices[i], config); err != nil {
				n.lab.tb.Errorf("%s: %v", n.api.Name, err)
			}
		}
	})
}

// known says whether every node takes its ways for that wide, and its routes too.
func (l *lab) known(mtu int) func() bool {
	return func() bool {
		for _, n := range l.nodes {
			for _, way := range n.prober.Paths() {
				if way.MTU != mtu {
					return false
				}
			}
			if !n.plan().Empty() {
				return false
			}
		}
		return true
	}
}

// hop sets what the bridge passes on to node 2, give or take the four bytes of a VLAN tag. It drops larger frames, and
// says nothing.
func (l *lab) hop(mtu int) {
	l.tb.Helper()
	l.bridge.do(func() {
		link, err := netlink.LinkByName("port2")
		if err == nil {
			err = netlink.LinkSetMTU(link, mtu)
		}
		if err != nil {
			l.tb.Errorf("set MTU of the hop: %v", err)
		}
	})
}

// realPackets has packets cut before they leave a node: a bundle of them would pass a hop that its parts do not.
func (l *lab) realPackets() {
	for _, n := range l.nodes {
		n.do(func() {
			link, err := netlink.LinkByName("eth0")
			if err == nil {
				err = netlink.LinkSetGSOMaxSegs(link, 1)
			}
			if err != nil {
				l.tb.Errorf("%s: %v", n.api.Name, err)
			}
		})
	}
}

// TestWayRoundABlackHole has a hop between the nodes that is smaller than their links, and becomes so under way.
func TestWayRoundABlackHole(t *testing.T) {
	for _, test := range []struct {
		family        overlay.Family
		underlay, hop int
	}{
		{overlay.IPv4, 1280, 1100}, {overlay.IPv4, 1500, 1390}, {overlay.IPv4, 9000, 1500},
		{overlay.IPv6, 1280, 1200}, {overlay.IPv6, 1500, 1280}, {overlay.IPv6, 9000, 8000},
	} {
		t.Run(fmt.Sprintf("%s %d over %d", test.family, test.underlay, test.hop), func(t *testing.T) {
			l := newLab(t, test.underlay)
			a, b := l.addNode(test.family), l.addNode(test.family)
			l.realPackets()
			l.reconcile()
			a.probe()
			b.probe()
			limit := a.computed().Routes[0].MTU
			l.until("the whole way is known", l.known(limit))
			open := a.connect(b, podAddr(b.api.PodCIDRs[0]))
			l.hop(test.hop)
			overhead := map[overlay.Family]int{overlay.IPv4: 60, overlay.IPv6: 80}[test.family]
			fits := (test.hop - overhead) / 16 * 16
			took := l.until("the way round is known", l.known(fits))
			t.Logf("known to carry %d after %s", fits, took.Round(time.Millisecond))
			size := 2 << 20
			if l.mode == wireguard.Kernel {
				size = 256 << 10
			}
			for i := range b.api.PodCIDRs {
				transfer(t, a, b, podAddr(b.api.PodCIDRs[i]), size)
				transfer(t, b, a, podAddr(a.api.PodCIDRs[i]), size)
			}
			open(size)
			l.hop(test.underlay)
			l.until("the whole way is known again", l.known(limit))
		})
	}
}

// connect opens a TCP connection to use later.
func (n *node) connect(to *node, addr netip.Addr) func(size int) {
	tb := n.lab.tb
	var listener *net.TCPListener
	var err error
	to.do(func() { listener, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(addr, 0))) })
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { listener.Close() })
	var conn *net.TCPConn
	n.do(func() { conn, err = net.DialTCP("tcp", nil, listener.Addr().(*net.TCPAddr)) })
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { conn.Close() })
	return func(size int) {
		tb.Helper()
		received := make(chan int64, 1)
		go func() {
			other, err := listener.Accept()
			if err != nil {
				received <- 0
				return
			}
			defer other.Close()
			n, _ := io.Copy(io.Discard, other)
			received <- n
		}()
		conn.SetDeadline(time.Now().Add(patience))
		if _, err := conn.Write(make([]byte, size)); err != nil {
			tb.Errorf("send on the open connection: %v", err)
		}
		conn.CloseWrite()
		if got := <-received; got != int64(size) {
			tb.Errorf("of %d bytes on the open connection %d came", size, got)
		}
	}
}
