package veth

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kithnet/kith/cni"
)

// What package unix lacks of RTM_NEWNETCONF, by which the kernel says that an interface's forwarding or rp_filter changed.
const (
	newNetconf       = 80
	netconfHeader    = 4 // the family, and what aligns it
	netconfIndex     = 1
	allInterfaces    = -1
	groupIPv4Netconf = 24
	groupIPv6Netconf = 25
)

// Watch reads the host sides of attachments, and signals when somebody may have changed one, or the node's forwarding.
// It belongs to the network namespace it was made in.
type Watch struct {
	links   *Links
	handle  *netlink.Handle
	socket  *os.File
	ours    atomic.Pointer[map[int]string] // the host sides as last read
	changed chan struct{}
}

// Watch begins to watch; what happens from now on is signalled once Run runs.
func (l *Links) Watch() (*Watch, error) { return l.watch(groups()) }

// groups are the kinds of messages that are heard.
func groups() []uint {
	return []uint{
		unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, groupIPv4Netconf, groupIPv6Netconf,
	}
}

func (l *Links) watch(groups []uint) (*Watch, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink: %w", err)
	}
	// Without it the kernel filters nothing, as kernels before 4.20 do in any case.
	_ = handle.SetStrictCheck(true)
	socket, err := subscribe(groups)
	if err != nil {
		handle.Close()
		return nil, fmt.Errorf("watch interfaces: %w", err)
	}
	return &Watch{links: l, handle: handle, socket: socket, changed: make(chan struct{}, 1)}, nil
}

func subscribe(groups []uint) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	var mask uint32
	for _, group := range groups {
		mask |= 1 << (group - 1)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: mask}); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "rtnetlink"), nil
}

// Changed receives after somebody, this process included, may have changed a host side. It is for one consumer.
func (w *Watch) Changed() <-chan struct{} { return w.changed }

// Close gives back sockets.
func (w *Watch) Close() error {
	w.handle.Close()
	if err := w.socket.Close(); !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// Run reads the kernel's messages until ctx ends.
func (w *Watch) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { w.socket.Close() })
	defer stop()
	buf := make([]byte, 1<<16)
	for {
		n, err := w.socket.Read(buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS): // messages were lost
		case err != nil:
			return fmt.Errorf("watch interfaces: %w", err)
		case !w.concerns(buf[:n]):
			continue
		}
		select {
		case w.changed <- struct{}{}:
		default:
		}
	}
}

func (w *Watch) concerns(data []byte) bool {
	messages, err := syscall.ParseNetlinkMessage(data)
	if err != nil {
		return true
	}
	for _, m := range messages {
		if w.about(m) {
			return true
		}
	}
	return false
}

// about reports whether a message may be about a host side. The kernel says nothing of the routes that an interface loses
// when it goes down, and nothing of the route that another one replaces, but of the other, which may lead anywhere.
func (w *Watch) about(m syscall.NetlinkMessage) bool {
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		return w.aboutLink(m)
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		return w.has(index(m.Data, 4)) && ofOnePod(m.Data)
	case unix.RTM_DELROUTE:
		device, there := attribute(m.Data, unix.SizeofRtMsg, unix.RTA_OIF)
		return there && w.has(index(device, 0))
	case unix.RTM_NEWROUTE:
		return m.Header.Flags&unix.NLM_F_REPLACE != 0 && ofOneAddress(m.Data)
	case newNetconf:
		value, there := attribute(m.Data, netconfHeader, netconfIndex)
		i := index(value, 0)
		return there && (i == allInterfaces || w.has(i))
	}
	return false
}

// aboutLink passes over what a pod can bring about as often as it likes by taking its own end down and up.
func (w *Watch) aboutLink(m syscall.NetlinkMessage) bool {
	attr, _ := attribute(m.Data, unix.SizeofIfInfomsg, unix.IFLA_IFNAME)
	name, known := unix.ByteSliceToString(attr), w.name(index(m.Data, 4))
	if !strings.HasPrefix(name, cni.HostPrefix) && known == "" {
		return false
	}
	mac, want := cni.MAC{}, cni.HostMAC()
	attr, _ = attribute(m.Data, unix.SizeofIfInfomsg, unix.IFLA_ADDRESS)
	copy(mac[:], attr)
	isUp := len(m.Data) >= unix.SizeofIfInfomsg && binary.NativeEndian.Uint32(m.Data[8:])&unix.IFF_UP != 0
	return m.Header.Type == unix.RTM_DELLINK || name != known || !isUp || mac != want
}

// name is that of the host side with this number, as last read.
func (w *Watch) name(index int) string {
	if ours := w.ours.Load(); ours != nil {
		return (*ours)[index]
	}
	return ""
}

func (w *Watch) has(index int) bool { return w.name(index) != "" }

// index is the number of an interface at a place in a message.
func index(data []byte, at int) int {
	if len(data) < at+4 {
		return 0
	}
	return int(int32(binary.NativeEndian.Uint32(data[at:])))
}

// ofOnePod reports whether a message may be about a pod's neighbour. The node makes others for its own multicast, and drops
// them when the pod's end goes down.
func ofOnePod(data []byte) bool {
	attr, _ := attribute(data, unix.SizeofNdMsg, unix.NDA_DST)
	addr, _ := netip.AddrFromSlice(attr)
	return !addr.IsMulticast() && !addr.IsLinkLocalUnicast()
}

// ofOneAddress reports whether a message is about a route to a single address.
func ofOneAddress(data []byte) bool {
	if len(data) < unix.SizeofRtMsg {
		return false
	}
	family, bits := data[0], data[1]
	return family == unix.AF_INET && bits == 32 || family == unix.AF_INET6 && bits == 128
}

// attribute finds an attribute behind the header of a message.
func attribute(data []byte, header int, kind uint16) ([]byte, bool) {
	for rest := data[min(header, len(data)):]; len(rest) >= unix.SizeofRtAttr; {
		size := int(binary.NativeEndian.Uint16(rest))
		if size < unix.SizeofRtAttr || size > len(rest) {
			return nil, false
		}
		if binary.NativeEndian.Uint16(rest[2:]) == kind {
			return rest[unix.SizeofRtAttr:size], true
		}
		rest = rest[min((size+3)&^3, len(rest)):]
	}
	return nil, false
}
