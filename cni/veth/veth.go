// Package veth makes, compares and removes the kernel's side of attachments: a veth pair of which one
// side is in the pod's network namespace, and the addresses, routes and neighbours on both sides.
//
// Input is cni.Attachment; output is the kernel's state. Links satisfies the Links interface of
// package cni. There is no bridge and no ARP: the pod's gateway is a link-local address with a
// permanent neighbour entry that points at the host side, whose hardware address never changes; the
// host has a route and a permanent neighbour entry for each of the pod's addresses. Both sides are
// NOARP: the kernel has one table of neighbours for all network namespaces, and neither what a pod
// says on its link nor whom it looks for there may take the places in it.
//
// Watch reads what the kernel has of all host sides, and signals when somebody may have changed one;
// Restore makes one as Create left it.
//
// Invariants: Create leaves nothing outside the pair, so that Delete of the pair undoes all of it;
// Create fails if the pod has an interface of the name already; Delete succeeds if there is no pair,
// and touches only veths with the name of an attachment's host side; Restore makes no interface.
//
// Links works in the network namespace of the process. Out of scope: whether packets may pass.
package veth

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kithnet/kith/cni"
)

// Links is the veths of this node's attachments. It has no state but the kernel's.
type Links struct {
	sysctls sysctls
}

// New returns the node's links. procSys is where the kernel's settings can be written, /proc/sys if
// the process may write there.
func New(procSys string) *Links { return &Links{sysctls: sysctls{root: procSys}} }

// Create makes the attachment's veth with all that belongs to it, and returns when it carries packets. After
// an error something may be left for Delete.
func (l *Links) Create(ctx context.Context, a cni.Attachment) error {
	sandbox, err := openSandbox(a.Netns)
	if err != nil {
		return err
	}
	defer func() { _ = sandbox.Close() }()
	if err := addPair(a, sandbox); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := l.setUpHost(a); err != nil {
		return fmt.Errorf("host side %s: %w", a.HostInterface, err)
	}
	if err := sandbox.Do(func(ns.NetNS) error { return l.setUpPod(a) }); err != nil {
		return fmt.Errorf("pod side %s in %s: %w", a.IfName, a.Netns, err)
	}
	if err := await(ctx, func() (bool, error) { return carries(a.HostInterface) }); err != nil {
		return fmt.Errorf("host side %s: %w", a.HostInterface, err)
	}
	err = sandbox.Do(func(ns.NetNS) error { return await(ctx, func() (bool, error) { return usable(a) }) })
	if err != nil {
		return fmt.Errorf("pod side %s in %s: %w", a.IfName, a.Netns, err)
	}
	return nil
}

// await asks until the answer is yes. What an interface that is set up needs to carry packets, and an IPv6 address to
// receive them, the kernel does at its leisure.
func await(ctx context.Context, ready func() (bool, error)) error {
	for {
		if done, err := ready(); done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until it carries packets: %w", ctx.Err())
		case <-time.After(time.Millisecond):
		}
	}
}

func carries(name string) (bool, error) {
	link, err := netlink.LinkByName(name)
	return err == nil && link.Attrs().OperState == netlink.OperUp, err
}

func usable(a cni.Attachment) (bool, error) {
	for _, addr := range a.Addresses {
		routes, err := netlink.RouteGet(addr.AsSlice())
		if err != nil {
			return false, fmt.Errorf("look up the way to %s: %w", addr, err)
		}
		if len(routes) == 0 || routes[0].Type != unix.RTN_LOCAL {
			return false, nil
		}
	}
	return carries(a.IfName)
}

func openSandbox(path string) (ns.NetNS, error) {
	sandbox, err := ns.GetNS(path)
	if err != nil {
		return nil, types.NewError(types.ErrInvalidNetNS, "CNI_NETNS: invalid", err.Error())
	}
	return sandbox, nil
}

func addPair(a cni.Attachment, sandbox ns.NetNS) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = a.HostInterface, a.MTU, a.HostMAC[:]
	pair := netlink.NewVeth(attrs)
	pair.PeerName, pair.PeerHardwareAddr = a.IfName, a.PodMAC[:]
	pair.PeerMTU, pair.PeerNamespace = uint32(a.MTU), netlink.NsFd(sandbox.Fd())
	if err := netlink.LinkAdd(pair); err != nil {
		return fmt.Errorf("add veth %s with %s in %s: %w", a.HostInterface, a.IfName, a.Netns, err)
	}
	return nil
}

func (l *Links) setUpHost(a cni.Attachment) error {
	link, err := netlink.LinkByName(a.HostInterface)
	if err != nil {
		return err
	}
	if err := l.sysctls.setHost(a); err != nil {
		return err
	}
	if err := netlink.LinkSetARPOff(link); err != nil {
		return fmt.Errorf("turn ARP off: %w", err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	return setWays(link, a)
}

func (l *Links) setUpPod(a cni.Attachment) error {
	link, err := netlink.LinkByName(a.IfName)
	if err != nil {
		return err
	}
	if err := l.sysctls.setPod(a); err != nil {
		return err
	}
	if err := netlink.LinkSetARPOff(link); err != nil {
		return fmt.Errorf("turn ARP off: %w", err)
	}
	for _, addr := range a.Addresses {
		if err := netlink.AddrAdd(link, podAddress(addr)); err != nil {
			return fmt.Errorf("add address %s: %w", addr, err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	for _, addr := range a.Addresses {
		gw := cni.Gateway(addr)
		if err := netlink.NeighSet(neighbour(link, gw, a.HostMAC)); err != nil {
			return fmt.Errorf("set neighbour %s: %w", gw, err)
		}
		for _, route := range podRoutes(link, addr) {
			if err := netlink.RouteAdd(route); err != nil {
				return fmt.Errorf("add route to %s via %s: %w", route.Dst, gw, err)
			}
		}
	}
	return nil
}

// Delete removes the pair with this host side, and with it all that Create made.
func (l *Links) Delete(_ context.Context, hostInterface string) error {
	link, err := netlink.LinkByName(hostInterface)
	var gone netlink.LinkNotFoundError
	if errors.As(err, &gone) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look up %s: %w", hostInterface, err)
	}
	if !isHostSide(link) {
		return fmt.Errorf("delete %s: not the host side of an attachment", hostInterface)
	}
	err = netlink.LinkDel(link)
	// The pair goes by itself when its sandbox does, also between look-up and here.
	if err != nil && !errors.Is(err, errNoDevice) {
		return fmt.Errorf("delete %s: %w", hostInterface, err)
	}
	return nil
}

// List returns the host sides of all attachments' veths.
func (l *Links) List(ctx context.Context) ([]string, error) {
	links, err := netlink.LinkList()
	for errors.Is(err, netlink.ErrDumpInterrupted) && ctx.Err() == nil {
		links, err = netlink.LinkList()
	}
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var names []string
	for _, link := range links {
		if isHostSide(link) {
			names = append(names, link.Attrs().Name)
		}
	}
	return names, nil
}

func isHostSide(link netlink.Link) bool {
	name := link.Attrs().Name
	return link.Type() == "veth" && strings.HasPrefix(name, cni.HostPrefix) && len(name) == len(cni.HostPrefix)+10
}

// SandboxExists says whether a network namespace is at this path. It says no only if it is sure.
func (l *Links) SandboxExists(netns string) bool {
	err := ns.IsNSorErr(netns)
	var gone ns.NSPathNotExistErr
	var other ns.NSPathNotNSErr
	return !errors.As(err, &gone) && !errors.As(err, &other)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
