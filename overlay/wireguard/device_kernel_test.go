//go:build kernel

package wireguard_test

import (
	"context"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kithnet/kith/overlay"
	"github.com/kithnet/kith/overlay/wireguard"
)

// threeNodes is a mesh that carries.
func threeNodes(tb testing.TB, family overlay.Family, underlayMTU int) *lab {
	tb.Helper()
	l := newLab(tb, underlayMTU)
	for range 3 {
		l.addNode(family).echo()
	}
	l.reconcile()
	return l
}

func TestModeIsTheOneDemanded(t *testing.T) {
	l := newLab(t, 1500)
	n := l.addNode(overlay.IPv4)
	if n.dev.Kind() != l.mode {
		t.Errorf("device is carried by %s, want %s", n.dev.Kind(), l.mode)
	}
	if l.mode == wireguard.Kernel {
		if mode, err := wireguard.Probe(); err != nil || mode != wireguard.Kernel {
			t.Errorf("probe: %s, %v", mode, err)
		}
	}
}

func TestMeshCarriesBothFamilies(t *testing.T) {
	for _, family := range []overlay.Family{overlay.IPv4, overlay.IPv6} {
		t.Run(family.String(), func(t *testing.T) {
			l := threeNodes(t, family, 1500)
			l.mustReachAll()
			for _, n := range l.nodes {
				if plan := n.plan(); !plan.Empty() {
					t.Errorf("%s has a plan without a change:\n%s", n.api.Name, plan)
				}
			}
		})
	}
}

func TestNewAgentFindsNothingToDo(t *testing.T) {
	l := threeNodes(t, overlay.IPv4, 1500)
	l.mustReachAll()
	n := l.nodes[0]
	n.open()
	if plan := n.plan(); !plan.Empty() {
		t.Errorf("new agent would change:\n%s", plan)
	}
}

func TestPeerRemovedWithItsNode(t *testing.T) {
	l := threeNodes(t, overlay.IPv4, 1500)
	a, b, c := l.nodes[0], l.nodes[1], l.nodes[2]
	mustReach(t, a, podAddr(c.api.PodCIDRs[0]))
	l.nodes = l.nodes[:2]
	a.reconcile()
	if a.reaches(podAddr(c.api.PodCIDRs[0]), 2*time.Second) {
		t.Error("a removed node is still reached")
	}
	mustReach(t, a, podAddr(b.api.PodCIDRs[0]))
}

func TestEndpointMoves(t *testing.T) {
	l := threeNodes(t, overlay.IPv4, 1500)
	a, b := l.nodes[0], l.nodes[1]
	pod := podAddr(b.api.PodCIDRs[0])
	mustReach(t, a, pod)
	moved := netip.MustParseAddr("172.31.0.102")
	b.renumber(moved)
	b.claim.Endpoints = []netip.AddrPort{netip.AddrPortFrom(moved, 51820)}
	if plan := a.plan(); len(plan.Steps) != overlay.Lanes || !strings.Contains(plan.String(), "endpoint 172.31.0.102:51820") {
		t.Errorf("plan is not one endpoint for each lane:\n%s", plan)
	}
	a.reconcile()
	mustReach(t, a, pod)
}

// renumber replaces the node's underlay address.
func (n *node) renumber(to netip.Addr) {
	n.do(func() {
		addAddr(n.lab.tb, "eth0", netip.PrefixFrom(to, 24))
		link, err := netlink.LinkByName("eth0")
		if err == nil {
			old := &net.IPNet{IP: n.api.InternalIPs[0].AsSlice(), Mask: net.CIDRMask(24, 32)}
			err = netlink.AddrDel(link, &netlink.Addr{IPNet: old})
		}
		if err != nil {
			n.lab.tb.Errorf("renumber: %v", err)
		}
		// The kernel removes the second address of a subnet with the first.
		netlink.AddrReplace(link, &netlink.Addr{IPNet: &net.IPNet{IP: to.AsSlice(), Mask: net.CIDRMask(24, 32)}})
	})
}

func TestRoamingIsNoDifference(t *testing.T) {
	l := threeNodes(t, overlay.IPv4, 1500)
	a, b := l.nodes[0], l.nodes[1]
	mustReach(t, b, podAddr(a.api.PodCIDRs[0]))
	roamed := netip.MustParseAddr("172.31.0.102")
	b.renumber(roamed)
	mustReach(t, b, podAddr(a.api.PodCIDRs[0]))
	peers, err := a.dev.Peers(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range peers {
		if p.Key == b.public()[0] && (p.Endpoint.Addr() != roamed || p.LastHandshake.IsZero() || p.ReceivedBytes == 0) {
			t.Errorf("status of the peer that roamed: %+v", p)
		}
	}
	if plan := a.plan(); !plan.Empty() {
		t.Errorf("roaming makes a plan:\n%s", plan)
	}
}

// steady sends to one address all the time and counts what does not come back.
func steady(n *node, to netip.Addr) (stop func() (sent, lost int)) {
	conn, err := n.dial(to)
	if err != nil {
		n.lab.tb.Fatal(err)
	}
	quit, done := make(chan struct{}), make(chan struct{})
	var sent, lost int
	go func() {
		defer close(done)
		for {
			select {
			case <-quit:
				return
			default:
			}
			sent++
			if !once(conn, 5*time.Second) {
				lost++
			}
		}
	}()
	return func() (int, int) {
		close(quit)
		<-done
		conn.Close()
		return sent, lost
	}
}

func TestCIDRMovesWithoutAWindow(t *testing.T) {
	l := threeNodes(t, overlay.IPv4, 1500)
	a, b, c := l.nodes[0], l.nodes[1], l.nodes[2]
	extra := netip.MustParsePrefix("10.244.99.0/24")
	for _, n := range []*node{b, c} {
		n.do(func() { addAddr(t, "lo", netip.PrefixFrom(podAddr(extra), 32)) })
		n.answer(podAddr(extra))
	}
	b.api.PodCIDRs = append(b.api.PodCIDRs, extra)
	l.reconcile()
	mustReach(t, a, podAddr(extra))
	mustReach(t, a, podAddr(b.api.PodCIDRs[0]))
	stop := steady(a, podAddr(b.api.PodCIDRs[0]))
	received := a.received(b)
	for range 10 {
		b.api.PodCIDRs = b.api.PodCIDRs[:2]
		c.api.PodCIDRs = append(c.api.PodCIDRs, extra)
		l.reconcile()
		mustReach(t, a, podAddr(extra))
		c.api.PodCIDRs = c.api.PodCIDRs[:2]
		a.reconcile()
		b.api.PodCIDRs = append(b.api.PodCIDRs, extra)
		l.reconcile()
		mustReach(t, a, podAddr(extra))
	}
	sent, lost := stop()
	t.Logf("%d packets while a CIDR moved 20 times, %d lost", sent, lost)
	if lost > 0 || sent < 20 {
		t.Errorf("%d of %d packets to the peer that keeps its CIDR were lost", lost, sent)
	}
	if a.received(b) <= received {
		t.Error("the answers did not come through the tunnel")
	}
}

func (n *node) received(from *node) int64 {
	peers, err := n.dev.Peers(context.Background())
	if err != nil {
		n.lab.tb.Fatal(err)
	}
	for _, p := range peers {
		if p.Key == from.public()[0] {
			return p.ReceivedBytes
		}
	}
	return 0
}

// awaitChange waits for the signal that an agent waits for, then does its work.
func (n *node) awaitChange(what string) {
	n.lab.tb.Helper()
	for end := time.After(patience); ; {
		select {
		case <-n.dev.Changed():
		case <-end:
			n.lab.tb.Fatalf("%s: no signal", what)
		}
		if plan := n.plan(); !plan.Empty() {
			n.lab.tb.Logf("%s:\n%s", what, plan)
			n.reconcile()
			return
		}
	}
}

// settle takes the signals of the agent's own work, and does what an agent does at each: the kernel may have been
// half way through a change when the one before was answered.
func (n *node) settle() {
	for {
		select {
		case <-n.dev.Changed():
			if plan := n.plan(); !plan.Empty() {
				n.reconcile()
			}
		case <-time.After(200 * time.Millisecond):
			return
		}
	}
}

func TestWhatIsDeletedByHandComesBack(t *testing.T) {
	l := threeNodes(t, overlay.IPv4, 1500)
	a, b := l.nodes[0], l.nodes[1]
	pod := podAddr(b.api.PodCIDRs[0])
	mustReach(t, a, pod)
	for what, remove := range map[string]func(link netlink.Link) error{
		"device deleted":  netlink.LinkDel,
		"device set down": netlink.LinkSetDown,
		"MTU changed":     func(link netlink.Link) error { return netlink.LinkSetMTU(link, 1300) },
		"address deleted": func(link netlink.Link) error {
			own := overlay.MeshAddress(a.api.PodCIDRs[0])
			return netlink.AddrDel(link, &netlink.Addr{IPNet: &net.IPNet{IP: own.AsSlice(), Mask: net.CIDRMask(32, 32)}})
		},
		"route deleted": func(link netlink.Link) error {
			dst := &net.IPNet{IP: b.api.PodCIDRs[0].Addr().AsSlice(), Mask: net.CIDRMask(24, 32)}
			return netlink.RouteDel(&netlink.Route{Dst: dst, LinkIndex: link.Attrs().Index, Scope: netlink.SCOPE_LINK})
		},
		"unreachable route deleted": func(netlink.Link) error {
			dst := &net.IPNet{IP: a.api.PodCIDRs[0].Addr().AsSlice(), Mask: net.CIDRMask(24, 32)}
			return netlink.RouteDel(&netlink.Route{Dst: dst, Type: unix.RTN_UNREACHABLE})
		},
		"strict reverse path filter": func(netlink.Link) error { return setting("ipv4/conf/"+a.devices[0]+"/rp_filter", "1") },
		"strict filter for all":      func(netlink.Link) error { return setting("ipv4/conf/all/rp_filter", "1") },
		"device does not forward":    func(netlink.Link) error { return setting("ipv4/conf/"+a.devices[1]+"/forwarding", "0") },
	} {
		a.settle()
		a.do(func() {
			link, err := netlink.LinkByName(a.devices[0])
			if err == nil {
				err = remove(link)
			}
			if err != nil {
				t.Errorf("%s: %v", what, err)
			}
		})
		start := time.Now()
		a.awaitChange(what)
		t.Logf("%s: restored in %s", what, time.Since(start).Round(time.Millisecond))
		mustReach(t, a, pod)
	}
}

// setting writes one of the kernel's network settings of the namespace.
func setting(path, value string) error {
	return os.WriteFile("/proc/sys/net/"+path, []byte(value), 0o600)
}

func TestProcessRestartKeepsTheTunnel(t *testing.T) {
	l := threeNodes(t, overlay.IPv4, 1500)
	l.only(wireguard.Userspace)
	a, b := l.nodes[0], l.nodes[1]
	pod := podAddr(b.api.PodCIDRs[0])
	mustReach(t, a, pod)
	mustReach(t, b, podAddr(a.api.PodCIDRs[0]))
	index := a.index()
	for range 3 {
		a.settle()
		stop(a.process)
		if left := a.index(); left != index {
			t.Fatalf("the interface changed from %d to %d", index, left)
		}
		start := time.Now()
		a.startProcess()
		a.awaitChange("process restarted")
		mustReach(t, b, podAddr(a.api.PodCIDRs[0]))
		t.Logf("other node gets an answer %s after the start", time.Since(start).Round(time.Millisecond))
		mustReach(t, a, pod)
		// After 15 seconds without an answer the other node would begin anew by itself.
		if d := time.Since(start); d > 12*time.Second {
			t.Errorf("restart took %s", d)
		}
	}
	if left := a.index(); left != index {
		t.Errorf("the interface changed from %d to %d", index, left)
	}
}

func (n *node) index() (index int) {
	n.do(func() {
		link, err := netlink.LinkByName(n.devices[0])
		if err != nil {
			n.lab.tb.Errorf("find device: %v", err)
			return
		}
		index = link.Attrs().Index
	})
	return index
}

func TestWithoutProcessThereIsAClearWord(t *testing.T) {
	l := newLab(t, 1500)
	l.only(wireguard.Userspace)
	n := l.addNode(overlay.IPv4)
	n.reconcile()
	stop(n.process)
	var err error
	plan := n.plan()
	n.do(func() { err = n.dev.Apply(context.Background(), plan) })
	if err == nil || !strings.Contains(err.Error(), "is kith-wireguard running?") {
		t.Errorf("error without a process: %v", err)
	}
}
