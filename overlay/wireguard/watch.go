package wireguard

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/kithnet/kith/overlay"
)

// What package unix lacks of RTM_NEWNETCONF, by which the kernel says that a device's forwarding or rp_filter changed.
const (
	newNetconf       = 80
	netconfHeader    = 4 // the family, and what aligns it
	netconfIndex     = 1
	allDevices       = -1
	groupIPv4Netconf = 24
	groupIPv6Netconf = 25
)

// watch listens to the kernel's routing messages and picks out those about the
// devices. Its socket belongs to the network namespace it was made in.
type watch struct {
	lanes   [overlay.Lanes]*lane
	socket  *os.File
	changed chan struct{}
}

func newWatch(lanes [overlay.Lanes]*lane) (*watch, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("watch devices: %w", err)
	}
	groups := []uint{
		unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, groupIPv4Netconf, groupIPv6Netconf,
	}
	var mask uint32
	for _, group := range groups {
		mask |= 1 << (group - 1)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: mask}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("watch devices: %w", err)
	}
	return &watch{
		lanes:   lanes,
		socket:  os.NewFile(uintptr(fd), "rtnetlink"),
		changed: make(chan struct{}, 1),
	}, nil
}

func (w *watch) close() error {
	if err := w.socket.Close(); !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// run reads until ctx ends, which closes the socket.
func (w *watch) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { w.socket.Close() })
	defer stop()
	buf := make([]byte, 1<<16)
	for {
		n, err := w.socket.Read(buf)
		switch {
		case errors.Is(err, unix.ENOBUFS):
			// Messages were lost; any of them may have been ours.
			w.signal()
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("watch devices: %w", err)
		case w.concerns(buf[:n]):
			w.signal()
		}
	}
}

func (w *watch) signal() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

func (w *watch) concerns(data []byte) bool {
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

func (w *watch) about(m syscall.NetlinkMessage) bool {
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		name := linkName(m)
		return slices.ContainsFunc(w.lanes[:], func(l *lane) bool { return l.name == name })
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		return len(m.Data) >= unix.SizeofIfAddrmsg && w.has(int32(binary.NativeEndian.Uint32(m.Data[4:])))
	case unix.RTM_DELROUTE:
		return ownRoute(m)
	case unix.RTM_NEWROUTE:
		// Somebody may have replaced a route of ours by one of theirs.
		return m.Header.Flags&unix.NLM_F_REPLACE != 0 && !ownRoute(m)
	case newNetconf:
		return w.configured(m.Data[min(netconfHeader, len(m.Data)):])
	}
	return false
}

// configured reports whether a message is about settings of a device, or of all devices, which count for each.
func (w *watch) configured(data []byte) bool {
	for len(data) >= unix.SizeofRtAttr {
		size, kind := int(binary.NativeEndian.Uint16(data)), binary.NativeEndian.Uint16(data[2:])
		if size < unix.SizeofRtAttr || size > len(data) {
			return true
		}
		if kind == netconfIndex && size == unix.SizeofRtAttr+4 {
			index := int32(binary.NativeEndian.Uint32(data[unix.SizeofRtAttr:]))
			return index == allDevices || w.has(index)
		}
		data = data[min((size+3)&^3, len(data)):]
	}
	return false
}

func (w *watch) has(index int32) bool {
	return slices.ContainsFunc(w.lanes[:], func(l *lane) bool { return l.index.Load() == index })
}

func ownRoute(m syscall.NetlinkMessage) bool {
	return len(m.Data) >= unix.SizeofRtMsg && m.Data[5] == byte(protocol)
}

func linkName(m syscall.NetlinkMessage) string {
	attrs, err := syscall.ParseNetlinkRouteAttr(&m)
	if err != nil {
		return ""
	}
	for _, a := range attrs {
		if a.Attr.Type == unix.IFLA_IFNAME {
			return unix.ByteSliceToString(a.Value)
		}
	}
	return ""
}
