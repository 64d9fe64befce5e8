package veth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"

	"github.com/kithnet/kith/cni"
)

// differences collects what is not as it must be.
type differences []string

func (d *differences) add(format string, args ...any) { *d = append(*d, fmt.Sprintf(format, args...)) }

// Check returns every way in which the kernel differs from what Create made.
func (l *Links) Check(_ context.Context, a cni.Attachment) error {
	var diff differences
	hostIndex, podPeer := checkHost(&diff, a), 0
	sandbox, err := openSandbox(a.Netns)
	if err != nil {
		diff.add("sandbox: %v", err)
	} else {
		defer func() { _ = sandbox.Close() }()
		if err := sandbox.Do(func(ns.NetNS) error { podPeer = checkPod(&diff, a); return nil }); err != nil {
			diff.add("sandbox: %v", err)
		}
	}
	if hostIndex != 0 && podPeer != 0 && hostIndex != podPeer {
		diff.add("%s is not the peer of %s", a.IfName, a.HostInterface)
	}
	if len(diff) > 0 {
		return errors.New(strings.Join(diff, "; "))
	}
	return nil
}

// checkHost returns the index of the host side, 0 if there is none.
func checkHost(diff *differences, a cni.Attachment) int {
	link, err := netlink.LinkByName(a.HostInterface)
	if err != nil {
		diff.add("interface %s: %v", a.HostInterface, err)
		return 0
	}
	checkLink(diff, link, a.HostMAC)
	for _, addr := range a.Addresses {
		checkRoute(diff, link, hostRoute(link, addr))
		checkNeighbour(diff, link, neighbour(link, addr, a.PodMAC))
	}
	return link.Attrs().Index
}

// checkPod returns the index of the pod side's peer, 0 if there is no pod side.
func checkPod(diff *differences, a cni.Attachment) int {
	link, err := netlink.LinkByName(a.IfName)
	if err != nil {
		diff.add("interface %s in %s: %v", a.IfName, a.Netns, err)
		return 0
	}
	checkLink(diff, link, a.PodMAC)
	for _, addr := range a.Addresses {
		checkAddress(diff, link, addr)
		checkNeighbour(diff, link, neighbour(link, cni.Gateway(addr), a.HostMAC))
		for _, route := range podRoutes(link, addr) {
			checkRoute(diff, link, route)
		}
	}
	return link.Attrs().ParentIndex
}

func checkLink(diff *differences, link netlink.Link, mac cni.MAC) {
	attrs := link.Attrs()
	if link.Type() != "veth" {
		diff.add("interface %s is a %s, not a veth", attrs.Name, link.Type())
	}
	if attrs.Flags&net.FlagUp == 0 {
		diff.add("interface %s is down", attrs.Name)
	}
	if !bytes.Equal(attrs.HardwareAddr, mac[:]) {
		diff.add("interface %s has hardware address %s, not %s", attrs.Name, attrs.HardwareAddr, mac)
	}
}

func checkAddress(diff *differences, link netlink.Link, addr netip.Addr) {
	addrs, err := netlink.AddrList(link, familyOf(addr))
	if err != nil {
		diff.add("addresses of %s: %v", link.Attrs().Name, err)
		return
	}
	want := podAddress(addr).IPNet.String()
	if !slices.ContainsFunc(addrs, func(got netlink.Addr) bool { return got.IPNet.String() == want }) {
		diff.add("interface %s has no address %s", link.Attrs().Name, want)
	}
}

func checkNeighbour(diff *differences, link netlink.Link, want *netlink.Neigh) {
	neighs, err := netlink.NeighList(link.Attrs().Index, want.Family)
	if err != nil {
		diff.add("neighbours on %s: %v", link.Attrs().Name, err)
		return
	}
	same := func(got netlink.Neigh) bool {
		return got.IP.Equal(want.IP) && got.State&netlink.NUD_PERMANENT != 0 &&
			bytes.Equal(got.HardwareAddr, want.HardwareAddr)
	}
	if !slices.ContainsFunc(neighs, same) {
		diff.add("interface %s has no permanent neighbour %s with hardware address %s",
			link.Attrs().Name, want.IP, want.HardwareAddr)
	}
}

func checkRoute(diff *differences, link netlink.Link, want *netlink.Route) {
	routes, err := netlink.RouteList(link, want.Family)
	if err != nil {
		diff.add("routes on %s: %v", link.Attrs().Name, err)
		return
	}
	same := func(got netlink.Route) bool {
		return prefixOf(got.Dst) == prefixOf(want.Dst) && got.Gw.Equal(want.Gw) && got.Type <= 1
	}
	if !slices.ContainsFunc(routes, same) {
		diff.add("interface %s has no route to %s", link.Attrs().Name, prefixOf(want.Dst))
	}
}

// prefixOf reads the several forms in which netlink tells a default route as one.
func prefixOf(dst *net.IPNet) string {
	if dst == nil {
		return "default"
	}
	if ones, _ := dst.Mask.Size(); ones == 0 {
		return "default"
	}
	return dst.String()
}
