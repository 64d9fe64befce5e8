//go:build kernel

package wireguard_test

import (
	"context"
	"net"
	"os"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/kithnet/kith/overlay"
	"github.com/kithnet/kith/overlay/wireguard"
)

func TestLargeTransfersFitTheUnderlay(t *testing.T) {
	for _, family := range []overlay.Family{overlay.IPv4, overlay.IPv6} {
		for _, mtu := range []int{1280, 1500, 9000} {
			t.Run(family.String()+" "+netMTU(mtu), func(t *testing.T) {
				l := newLab(t, mtu)
				a, b := l.addNode(family), l.addNode(family)
				l.reconcile()
				size := 2 << 20
				if l.mode == wireguard.Kernel {
					size = 256 << 10
				}
				for _, cidr := range b.api.PodCIDRs {
					transfer(t, a, b, podAddr(cidr), size)
				}
			})
		}
	}
}

func netMTU(mtu int) string {
	return map[int]string{1280: "small", 1500: "usual", 9000: "jumbo"}[mtu]
}

func TestPortInUseIsToldAndTriedAgain(t *testing.T) {
	l := newLab(t, 1500)
	a, b := l.addNode(overlay.IPv4), l.addNode(overlay.IPv4)
	b.echo()
	b.reconcile()
	var squatter *net.UDPConn
	a.do(func() {
		var err error
		if squatter, err = net.ListenUDP("udp", &net.UDPAddr{Port: 51820}); err != nil {
			t.Errorf("take the port: %v", err)
		}
	})
	a.await()
	var err error
	plan := a.plan()
	a.do(func() { err = a.dev.Apply(context.Background(), plan) })
	if err == nil {
		t.Error("a port in use is no error")
	}
	squatter.Close()
	a.reconcile()
	mustReach(t, a, podAddr(b.api.PodCIDRs[0]))
}

func TestLeftoverOfTheOtherModeGoes(t *testing.T) {
	l := newLab(t, 1500)
	l.only(wireguard.Kernel)
	n := l.addNode(overlay.IPv4)
	n.do(func() {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = n.devices[0]
		if err := netlink.LinkAdd(&netlink.Tuntap{LinkAttrs: attrs, Mode: netlink.TUNTAP_MODE_TUN}); err != nil {
			t.Errorf("make TUN: %v", err)
		}
	})
	n.reconcile()
}

func TestForeignDeviceIsLeftAlone(t *testing.T) {
	l := newLab(t, 1500)
	n := l.addNode(overlay.IPv4)
	n.rename("kx")
	n.process = nil
	n.open()
	n.do(func() {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = n.devices[0]
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
			t.Errorf("make bridge: %v", err)
		}
	})
	plan := n.plan()
	var err error
	n.do(func() { err = n.dev.Apply(context.Background(), plan) })
	if err == nil {
		t.Error("a foreign device of our name is no error")
	}
	n.do(func() {
		if _, err := netlink.LinkByName(n.devices[0]); err != nil {
			t.Errorf("the foreign device is gone: %v", err)
		}
	})
}

func TestUnderlayMTUIsTheLinksOwn(t *testing.T) {
	l := newLab(t, 1450)
	n := l.addNode(overlay.IPv4)
	n.do(func() {
		mtu, err := wireguard.UnderlayMTU(n.api.InternalIPs[0])
		if err != nil || mtu != 1450 {
			t.Errorf("underlay MTU: %d, %v", mtu, err)
		}
	})
}

func TestReversePathFilterIsOff(t *testing.T) {
	l := newLab(t, 1500)
	n := l.addNode(overlay.IPv4)
	n.reconcile()
	n.do(func() {
		value, err := os.ReadFile("/proc/sys/net/ipv4/conf/" + n.devices[1] + "/rp_filter")
		if err != nil || string(value) == "1\n" {
			t.Errorf("rp_filter of the device: %q, %v", value, err)
		}
		if err := setting("ipv4/conf/"+n.devices[1]+"/rp_filter", "2"); err != nil {
			t.Error(err)
		}
	})
	if plan := n.plan(); !plan.Empty() {
		t.Errorf("what systemd sets is undone:\n%s", plan)
	}
}
