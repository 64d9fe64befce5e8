package nft

import (
	"encoding/binary"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/kithnet/kith/policy/ruleset"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Three things google/nftables v0.3.0 cannot write, so something that it can stands in, and the message is put right
// before it goes to the kernel. What follows goes when the library can.
//
// `ct original ip saddr`: the library leaves out the direction of the keys that name an address of one family, without
// which the kernel refuses them, and gives other keys' direction four bytes instead of one.
//
// The byte order of a map's data, without which the nft tool prints it the wrong way round: the order of its keys
// stands in, which for addresses says nothing.
//
// Where in a packet the bytes of a map's keys are, without which the nft tool does not load what it has printed: a comment
// stands in.

const (
	standInIP  = expr.CtKeySRC
	standInIP6 = expr.CtKeyDST
)

func standIns(exprs []expr.Any) []expr.Any {
	out := make([]expr.Any, len(exprs))
	for i, e := range exprs {
		out[i] = e
		if ct, ok := e.(*expr.Ct); ok && (ct.Key == ctSourceIP || ct.Key == ctSourceIP6) {
			standIn := *ct
			standIn.Key = standInIP
			if ct.Key == ctSourceIP6 {
				standIn.Key = standInIP6
			}
			out[i] = &standIn
		}
	}
	return out
}

// putRight replaces the stand-ins in a message that the library made.
func putRight(m netlink.Message) {
	switch m.Header.Type {
	case unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWRULE:
		putRuleRight(m.Data[sizeofNfgenmsg:])
	case unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWSET:
		putMapRight(m.Data[sizeofNfgenmsg:])
	}
}

func putMapRight(b []byte) {
	classID := false
	var key, length uint32
	for _, a := range attributes(b) {
		switch a.typ {
		case unix.NFTA_SET_KEY_TYPE:
			key = number(a.data)
		case unix.NFTA_SET_KEY_LEN:
			length = number(a.data)
		case unix.NFTA_SET_DATA_TYPE:
			classID = typeOf(number(a.data)) == ruleset.TypeClassID
		case unix.NFTA_SET_USERDATA:
			if at := len(a.data) - sizeOfTypeOf; key == typeInteger && at >= 0 {
				copy(a.data[at:], typeOfKey(length))
			}
			if classID && len(a.data) > 0 && a.data[0] == byte(userdata.NFTNL_UDATA_SET_KEYBYTEORDER) {
				a.data[0] = byte(userdata.NFTNL_UDATA_SET_DATABYTEORDER)
			}
		}
	}
}

func putRuleRight(b []byte) {
	for _, a := range attributes(b) {
		if a.typ != unix.NFTA_RULE_EXPRESSIONS {
			continue
		}
		for _, elem := range attributes(a.data) {
			e := attributes(elem.data)
			if len(e) == 2 && text(e[0].data) == "ct" {
				putDirectionRight(e[1].data)
			}
		}
	}
}

// putDirectionRight changes an expression in its place. It has three attributes of eight bytes, the key, the register
// and the direction, if it is one that has a direction.
func putDirectionRight(b []byte) {
	const key, direction, length = 4, 16, 24
	if len(b) != length {
		return
	}
	family := ctSourceIP
	if expr.CtKey(binary.BigEndian.Uint32(b[key:])) == standInIP6 {
		family = ctSourceIP6
	}
	binary.BigEndian.PutUint32(b[key:], uint32(family))
	binary.NativeEndian.PutUint16(b[direction:], unix.SizeofNlAttr+1)
	b[direction+4], b[length-1] = b[length-1], 0
}
