package nft

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/kithnet/kith/policy/ruleset"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// The flags of a table that belongs to a socket: nobody else changes it, and `nft flush ruleset` passes it by. When its owner
// ends it stays, and the next one may take it over, or anybody change it (NFT_TABLE_F_OWNER, Linux 5.12; NFT_TABLE_F_PERSIST,
// Linux 6.9: without it, the kernel would delete the table with its owner).
const (
	flagDormant = 1
	flagsOfOwn  = 2 | 4
	flagPersist = 4

	attrOwner  = 7 // NFTA_TABLE_OWNER
	newTable   = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWTABLE
	delTable   = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_DELTABLE
	sizeOfFlag = 4
)

// ErrOwned is that the table belongs to another process.
var ErrOwned = errors.New("the table belongs to another process, perhaps an agent of this node that has not ended")

// ownership is which flags a socket gives its table.
type ownership struct {
	fresh uint32 // a table that it makes: those of an owner, or none where the kernel has no such tables
	found uint32 // the one that is there; as fresh if there is none
}

// flags puts the flags into the messages of a batch that make the table. The library writes none, and writes them last.
func (o *ownership) flags(batch []netlink.Message) {
	flags := o.found
	for _, m := range batch {
		switch m.Header.Type {
		case newTable:
			binary.BigEndian.PutUint32(m.Data[len(m.Data)-sizeOfFlag:], flags)
		case delTable:
			flags = o.fresh
		}
	}
}

// written notes what a batch that the kernel took has made of the table.
func (o *ownership) written(batch []netlink.Message) {
	for _, m := range batch {
		if m.Header.Type == delTable {
			o.found = o.fresh
		}
	}
}

// canOwn finds out whether the kernel has tables with these flags.
func (s *socket) canOwn() error {
	s.own = ownership{flagsOfOwn, flagsOfOwn}
	err := s.judge(func(conn *nftables.Conn) {
		conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "kith_probe"})
	})
	var no unix.Errno
	if errors.As(err, &no) {
		s.own = ownership{}
		return nil
	}
	return err
}

// absent notes that there is no table.
func (s *socket) absent() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.own.found = s.own.fresh
}

// found notes the flags of the table that is there. It says whether that has lost its owner, and is to be made again as ours.
func (s *socket) found(flags uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	orphan := s.own.fresh != 0 && flags == flagPersist
	if s.own.found = flags; orphan {
		s.own.found = s.own.fresh
	}
	return orphan
}

func (s *socket) owns() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.own.fresh != 0 && s.own.found == s.own.fresh
}

// take finds out whose the table is, which is there, and takes it over if its owner has ended.
func (t *Table) take(shown []byte) error {
	var flags, owner uint32
	for _, a := range attributes(shown) {
		switch a.typ {
		case unix.NFTA_TABLE_FLAGS:
			flags = number(a.data)
		case attrOwner:
			owner = number(a.data)
		}
	}
	t.replace = flags&flagDormant != 0
	if owner != 0 && owner != t.socket.port {
		return fmt.Errorf("%w: netlink port %d", ErrOwned, owner)
	}
	if !t.socket.found(flags & flagsOfOwn) {
		return nil
	}
	t.conn.AddTable(t.kernel)
	if err := t.conn.Flush(); err != nil {
		return fmt.Errorf("take table %s over: %w", ruleset.Table, errors.Join(t.explain(err), t.encode()))
	}
	return nil
}
