package nft

import (
	"encoding/binary"
	"fmt"

	"github.com/kithnet/kith/policy/ruleset"
	"golang.org/x/sys/unix"
)

const (
	headerLen      = unix.SizeofNlMsghdr + sizeofNfgenmsg
	sizeofNfgenmsg = 4
	// maxList keeps an element list below what the 16 bits of an attribute's length can say.
	maxList = 60000
)

// message is one netlink message of a batch: where it starts, and what it is about, for errors.
type message struct {
	start int
	verb  string
	name  string
	rule  fmt.Stringer // if it adds one
}

// batch is a buffer of netlink messages that the kernel takes as one transaction.
type batch struct {
	b        []byte
	messages []message
	list     int // where the open list of elements starts; 0: none is open
	listType uint16
}

func (m *batch) reset() {
	m.b, m.messages, m.list = m.b[:0], m.messages[:0], 0
	m.control(unix.NFNL_MSG_BATCH_BEGIN)
}

// finish closes the batch. Only its last message asks for an answer: the kernel reports errors unasked.
func (m *batch) finish() {
	m.closeList()
	last := m.messages[len(m.messages)-1].start
	flags := binary.NativeEndian.Uint16(m.b[last+6:])
	binary.NativeEndian.PutUint16(m.b[last+6:], flags|unix.NLM_F_ACK)
	m.control(unix.NFNL_MSG_BATCH_END)
}

func (m *batch) control(typ uint16) {
	at := m.header(typ, 0, unix.AF_UNSPEC)
	binary.BigEndian.PutUint16(m.b[at+headerLen-2:], unix.NFNL_SUBSYS_NFTABLES)
	m.end(at)
}

// begin starts a message of the nftables subsystem about one thing in our table.
func (m *batch) begin(typ, flags uint16, verb, name string) int {
	at := m.header(unix.NFNL_SUBSYS_NFTABLES<<8|typ, flags, unix.NFPROTO_INET)
	m.messages = append(m.messages, message{start: at, verb: verb, name: name})
	return at
}

func (m *batch) header(typ, flags uint16, family byte) int {
	at := len(m.b)
	m.b = append(m.b, make([]byte, headerLen)...)
	h := m.b[at:]
	binary.NativeEndian.PutUint16(h[4:], typ)
	binary.NativeEndian.PutUint16(h[6:], flags|unix.NLM_F_REQUEST)
	h[unix.SizeofNlMsghdr] = family
	return at
}

func (m *batch) end(at int) {
	binary.NativeEndian.PutUint32(m.b[at:], uint32(len(m.b)-at))
}

// number gives the messages their sequence numbers, which errors refer to, from first on.
func (m *batch) number(first uint32) {
	for at := 0; at < len(m.b); first++ {
		binary.NativeEndian.PutUint32(m.b[at+8:], first)
		at += int(binary.NativeEndian.Uint32(m.b[at:]))
	}
}

// size is the length that the batch will have when it is finished.
func (m *batch) size() int { return len(m.b) + headerLen }

func (m *batch) attr(typ uint16, data string) {
	m.b = binary.NativeEndian.AppendUint16(m.b, uint16(4+len(data)))
	m.b = binary.NativeEndian.AppendUint16(m.b, typ)
	m.b = append(m.b, data...)
	for len(m.b)%4 != 0 {
		m.b = append(m.b, 0)
	}
}

func (m *batch) str(typ uint16, s string) { m.attr(typ, s+"\x00") }

func (m *batch) u32(typ uint16, v uint32) {
	m.b = binary.NativeEndian.AppendUint16(m.b, 8)
	m.b = binary.NativeEndian.AppendUint16(m.b, typ)
	m.b = binary.BigEndian.AppendUint32(m.b, v)
}

// open starts a nested attribute; shut ends it.
func (m *batch) open(typ uint16) int {
	at := len(m.b)
	m.b = append(m.b, 0, 0, 0, 0)
	binary.NativeEndian.PutUint16(m.b[at+2:], typ|unix.NLA_F_NESTED)
	return at
}

func (m *batch) shut(at int) {
	binary.NativeEndian.PutUint16(m.b[at:], uint16(len(m.b)-at))
}

func (m *batch) table() {
	at := m.begin(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, "create table", ruleset.Table)
	m.str(unix.NFTA_TABLE_NAME, ruleset.Table)
	m.u32(unix.NFTA_TABLE_FLAGS, 0)
	m.end(at)
}

func (m *batch) deleteTable() {
	at := m.begin(unix.NFT_MSG_DELTABLE, 0, "delete table", ruleset.Table)
	m.str(unix.NFTA_TABLE_NAME, ruleset.Table)
	m.end(at)
}
