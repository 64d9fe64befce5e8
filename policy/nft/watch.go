package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"time"

	"github.com/kithnet/kith/policy/ruleset"
	"github.com/mdlayher/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// portOffset is where a netlink message says on whose behalf the kernel sends it.
const portOffset = 12

// listen joins the group that is told of every transaction. What our own socket does, by its port, is filtered out in
// the kernel already: a large transaction of ours would overrun the buffer. One notice is about one sender only.
func listen(s *socket, own uint32) error {
	filter, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: portOffset, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: binary.BigEndian.Uint32([]byte(native32(own))), SkipFalse: 1},
		bpf.RetConstant{Val: 0},
		bpf.RetConstant{Val: ^uint32(0)},
	})
	if err != nil {
		return err
	}
	return errors.Join(s.conn.SetBPF(filter), s.conn.JoinGroup(unix.NFNLGRP_NFTABLES))
}

// Watch tells each time that somebody else has changed our table, or may have: after it, read and compare. Several
// changes may be told as one. The channel closes when ctx ends or the Table is closed. Call it once.
func (t *Table) Watch(ctx context.Context) <-chan struct{} {
	changed := make(chan struct{}, 1)
	stop := context.AfterFunc(ctx, func() { _ = t.events.conn.SetReadDeadline(time.Unix(0, 1)) })
	go func() {
		defer close(changed)
		defer stop()
		for ctx.Err() == nil {
			messages, err := t.events.conn.Receive()
			lost := errors.Is(err, unix.ENOBUFS)
			if err != nil && !lost {
				return
			}
			if !lost && !aboutUs(messages) {
				continue
			}
			select {
			case changed <- struct{}{}:
			default:
			}
		}
	}()
	return changed
}

// aboutUs says whether a notice is about our table. In every kind of notice the first attribute is the table's name;
// in that of a new generation, which every transaction ends with, it is a number.
func aboutUs(messages []netlink.Message) bool {
	for _, m := range messages {
		if m.Header.Type == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN || len(m.Data) < sizeofNfgenmsg || m.Data[0] != unix.NFPROTO_INET {
			continue
		}
		for _, a := range attributes(m.Data[sizeofNfgenmsg:]) {
			if a.typ == unix.NFTA_TABLE_NAME && text(a.data) == ruleset.Table {
				return true
			}
		}
	}
	return false
}
