// Package kernel reads the kernel's table of connections, counts what is in it, and deletes from it: the edge of package
// conntrack.
//
// Input: the network namespace of the calling thread. Output: how full the table is; its connections, one after the other;
// connections that are gone from it.
//
// Invariants: a dump is never held in memory whole, as the functions of the netlink library do that parse it (some hundred
// bytes for each of a quarter of a million connections, or of many more): each message is handed on and dropped. What is
// deleted is the connection that was seen, by the kernel's identifier, and not a later one with the same addresses and ports
// (unless it came to lie in the same place of the kernel's memory). A message that cannot be read is skipped.
//
// Out of scope: who holds too much, and what follows.
package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/kithnet/kith/policy/conntrack"
)

// ErrAbsent says that this kernel tracks no connections (yet), or does not show them.
var ErrAbsent = errors.New("this kernel does not show tracked connections")

// Table is the table of the network namespace of the thread that calls its methods.
type Table struct{ procSys string }

// New reads what the table can hold below this folder, usually /proc/sys.
func New(procSys string) Table { return Table{procSys} }

// Fill returns how many connections the table holds and can hold. There is no event for the number: the kernel could only
// send one for each connection.
func (t Table) Fill() (count, capacity int, err error) {
	for _, f := range []struct {
		name string
		to   *int
	}{{"nf_conntrack_count", &count}, {"nf_conntrack_max", &capacity}} {
		text, err := os.ReadFile(filepath.Join(t.procSys, "net/netfilter", f.name))
		if errors.Is(err, os.ErrNotExist) {
			return 0, 0, ErrAbsent
		}
		if err != nil {
			return 0, 0, fmt.Errorf("read fill of connection table: %w", err)
		}
		if *f.to, err = strconv.Atoi(strings.TrimSpace(string(text))); err != nil {
			return 0, 0, fmt.Errorf("read fill of connection table: %w", err)
		}
	}
	return count, capacity, nil
}

// Name names a connection for its deletion.
type Name struct {
	family uint8
	attrs  string // its original direction, zone and identifier, as the kernel wrote them
}

// Each hands on all connections. The name is made when it is asked for, during the call only.
func (Table) Each(do func(conntrack.Connection, func() Name)) error { return dump(everything(), do) }

// Delete deletes connections, and returns how many were still there.
func (Table) Delete(names []Name) (int, error) {
	if len(names) == 0 {
		return 0, nil
	}
	socket, err := nl.Subscribe(unix.NETLINK_NETFILTER)
	if err != nil {
		return 0, fmt.Errorf("open socket for connections: %w", err)
	}
	defer socket.Close()
	shared := map[int]*nl.SocketHandle{unix.NETLINK_NETFILTER: {Socket: socket}}
	deleted, failed := 0, 0
	var last error
	for _, n := range names {
		req := request(nl.IPCTNL_MSG_CT_DELETE, unix.NLM_F_ACK, n.family)
		req.Sockets = shared
		req.AddRawData([]byte(n.attrs))
		switch _, err := req.Execute(unix.NETLINK_NETFILTER, 0); {
		case err == nil:
			deleted++
		case !errors.Is(err, unix.ENOENT):
			failed, last = failed+1, err
		}
	}
	if failed > 0 {
		return deleted, fmt.Errorf("delete %d of %d connections: %w", failed, len(names), last)
	}
	return deleted, nil
}

// mostOfAddress bounds how many connections of an address are deleted between two dumps.
const mostOfAddress = 1 << 14

// DeleteOf deletes all connections that one of the addresses opened or answers. They are gone when it returns without an
// error, as long as no packet makes new ones.
func (t Table) DeleteOf(addresses []netip.Addr) error {
	for _, a := range addresses {
		for _, side := range []conntrack.Side{conntrack.Opens, conntrack.Answers} {
			if err := t.deleteOf(conntrack.Holder{Address: a.Unmap(), Side: side}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t Table) deleteOf(h conntrack.Holder) error {
	for {
		var names []Name
		err := dump(of(h), func(c conntrack.Connection, name func() Name) {
			is := c.Opener
			if h.Side == conntrack.Answers {
				is = c.Answerer
			}
			if is == h.Address && len(names) < mostOfAddress {
				names = append(names, name())
			}
		})
		if err != nil {
			return err
		}
		deleted, err := t.Delete(names)
		if err != nil {
			return err
		}
		if len(names) < mostOfAddress || deleted == 0 {
			return nil
		}
	}
}

// dump hands on what the kernel answers to a request.
func dump(req *nl.NetlinkRequest, do func(conntrack.Connection, func() Name)) error {
	err := req.ExecuteIter(unix.NETLINK_NETFILTER, 0, func(msg []byte) bool {
		if c, name, ok := parse(msg); ok {
			do(c, name)
		}
		return true
	})
	switch {
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("list connections: %w (%w)", ErrAbsent, err)
	case err != nil && !errors.Is(err, netlink.ErrDumpInterrupted):
		return fmt.Errorf("list connections: %w", err)
	}
	return nil
}

// Own are the addresses of this network namespace's interfaces: what they open, the node itself opens.
func (Table) Own() ([]netip.Addr, error) {
	all, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list own addresses: %w", err)
	}
	var out []netip.Addr
	for _, a := range all {
		if addr, ok := netip.AddrFromSlice(a.IP); ok {
			out = append(out, addr.Unmap())
		}
	}
	return out, nil
}

func request(operation, flags int, family uint8) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_CTNETLINK<<8|operation, flags)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: family, Version: nl.NFNETLINK_V0})
	return req
}

func everything() *nl.NetlinkRequest {
	return request(nl.IPCTNL_MSG_CT_GET, unix.NLM_F_DUMP, unix.AF_UNSPEC)
}

// What the netlink library does not have of the kernel's header.
const (
	attrFilter      = 25 // CTA_FILTER
	attrFilterOrig  = 1  // CTA_FILTER_ORIG_FLAGS
	attrFilterReply = 2  // CTA_FILTER_REPLY_FLAGS
	filterSource    = 1  // CTA_FILTER_F_CTA_IP_SRC
)

// of asks for the connections of which an address is the source, in the original direction or the reply's. The kernel may
// answer with more: before 5.8 it does not know the filter; and for IPv6 it takes the filter for its opposite (Linux 6.18,
// ctnetlink_filter_match_tuple), so that is not used there.
func of(h conntrack.Holder) *nl.NetlinkRequest {
	if h.Address.Is6() {
		return request(nl.IPCTNL_MSG_CT_GET, unix.NLM_F_DUMP, unix.AF_INET6)
	}
	tuple, flags := nl.CTA_TUPLE_ORIG, attrFilterOrig
	if h.Side == conntrack.Answers {
		tuple, flags = nl.CTA_TUPLE_REPLY, attrFilterReply
	}
	req := request(nl.IPCTNL_MSG_CT_GET, unix.NLM_F_DUMP, unix.AF_INET)
	at := nl.NewRtAttr(unix.NLA_F_NESTED|tuple, nil)
	at.AddRtAttr(unix.NLA_F_NESTED|nl.CTA_TUPLE_IP, nil).AddRtAttr(nl.CTA_IP_V4_SRC, h.Address.AsSlice())
	req.AddData(at)
	filter := nl.NewRtAttr(unix.NLA_F_NESTED|attrFilter, nil)
	filter.AddRtAttr(flags, nl.Uint32Attr(filterSource))
	req.AddData(filter)
	return req
}
