package nft

import (
	"encoding/binary"
	"slices"

	"github.com/google/nftables"
	"github.com/kithnet/kith/policy/ruleset"
	"golang.org/x/sys/unix"
)

// What x/sys does not have of the kernel's header.
const (
	setConcat       = 0x80 // NFT_SET_CONCAT
	setDescConcat   = 2    // NFTA_SET_DESC_CONCAT
	setFieldLen     = 1    // NFTA_SET_FIELD_LEN
	setElemKeyEnd   = 10   // NFTA_SET_ELEM_KEY_END
	dataTypeVerdict = 0xffffff00
)

// User data of a set: in which byte order its keys and data are, for the nft tool.
const (
	udataKeyOrder  = 0
	udataDataOrder = 1
	orderMixed     = 0
	orderMachine   = 1
	orderNetwork   = 2
)

// datatype is the nft tool's number of a type.
func datatype(t ruleset.Type) uint32 {
	switch t {
	case ruleset.TypeIfName:
		return nftables.TypeIFName.GetNFTMagic()
	case ruleset.TypeEtherAddr:
		return nftables.TypeEtherAddr.GetNFTMagic()
	case ruleset.TypeIPv4Addr:
		return nftables.TypeIPAddr.GetNFTMagic()
	case ruleset.TypeIPv6Addr:
		return nftables.TypeIP6Addr.GetNFTMagic()
	case ruleset.TypeInetProto:
		return nftables.TypeInetProto.GetNFTMagic()
	case ruleset.TypeInetService:
		return nftables.TypeInetService.GetNFTMagic()
	case ruleset.TypeClassID:
		return nftables.TypeClassID.GetNFTMagic()
	case ruleset.TypeVerdict:
		return dataTypeVerdict
	}
	return 0
}

func typeOf(number uint32) ruleset.Type {
	for t := ruleset.TypeIfName; t <= ruleset.TypeVerdict; t++ {
		if datatype(t) == number {
			return t
		}
	}
	return ruleset.TypeNone
}

// keyType is the concatenation of the fields' datatypes, six bits each.
func keyType(key []ruleset.Type) (number uint32) {
	for _, t := range key {
		number = number<<nftables.SetConcatTypeBits | datatype(t)
	}
	return number
}

// keyLen is a key's length: fields of a concatenation fill whole words.
func keyLen(key []ruleset.Type) (n int) {
	if len(key) == 1 {
		return key[0].Size()
	}
	for _, t := range key {
		n += 4 * words(t)
	}
	return n
}

func setFlags(s ruleset.SetSpec) (flags uint32) {
	if s.Interval {
		flags |= unix.NFT_SET_INTERVAL
		if len(s.Key) > 1 {
			flags |= setConcat
		}
	}
	if s.Data != ruleset.TypeNone {
		flags |= unix.NFT_SET_MAP
	}
	return flags
}

func (m *batch) addSet(s ruleset.SetSpec) {
	at := m.begin(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, "create set", s.Name)
	m.str(unix.NFTA_SET_TABLE, ruleset.Table)
	m.str(unix.NFTA_SET_NAME, s.Name)
	m.u32(unix.NFTA_SET_FLAGS, setFlags(s))
	m.u32(unix.NFTA_SET_KEY_TYPE, keyType(s.Key))
	m.u32(unix.NFTA_SET_KEY_LEN, uint32(keyLen(s.Key)))
	m.u32(unix.NFTA_SET_ID, uint32(len(m.messages)))
	userdata := order(udataKeyOrder, s.Key...)
	if s.Data != ruleset.TypeNone {
		m.u32(unix.NFTA_SET_DATA_TYPE, datatype(s.Data))
		m.u32(unix.NFTA_SET_DATA_LEN, uint32(s.Data.Size()))
		userdata += order(udataDataOrder, s.Data)
	}
	if setFlags(s)&setConcat != 0 {
		m.describe(s.Key)
	}
	m.attr(unix.NFTA_SET_USERDATA, userdata)
	m.end(at)
}

// describe gives the lengths of a concatenation's fields, by which the kernel compares intervals field by field.
func (m *batch) describe(key []ruleset.Type) {
	desc := m.open(unix.NFTA_SET_DESC)
	concat := m.open(setDescConcat)
	for _, t := range key {
		elem := m.open(unix.NFTA_LIST_ELEM)
		m.u32(setFieldLen, uint32(t.Size()))
		m.shut(elem)
	}
	m.shut(concat)
	m.shut(desc)
}

func order(udata byte, types ...ruleset.Type) string {
	o := uint32(orderNetwork)
	switch {
	case len(types) > 1 || types[0] == ruleset.TypeVerdict:
		o = orderMixed
	case machineOrder(types[0]):
		o = orderMachine
	}
	return string(append([]byte{udata, 4}, native32(o)...))
}

func machineOrder(t ruleset.Type) bool { return t == ruleset.TypeClassID || t == ruleset.TypeIfName }

func (m *batch) deleteSet(name string) {
	at := m.begin(unix.NFT_MSG_DELSET, 0, "delete set", name)
	m.str(unix.NFTA_SET_TABLE, ruleset.Table)
	m.str(unix.NFTA_SET_NAME, name)
	m.end(at)
}

// kernelSet is a set as the kernel shows it. Anonymous sets belong to a rule and go with it.
type kernelSet struct {
	table     string
	spec      ruleset.SetSpec
	anonymous bool
}

// parseSet reads a set. One that the language cannot say has no key type.
func parseSet(b []byte) kernelSet {
	var s kernelSet
	var flags, key, data, length uint32
	for _, a := range attributes(b) {
		switch a.typ {
		case unix.NFTA_SET_TABLE:
			s.table = text(a.data)
		case unix.NFTA_SET_NAME:
			s.spec.Name = text(a.data)
		case unix.NFTA_SET_FLAGS:
			flags = number(a.data)
		case unix.NFTA_SET_KEY_TYPE:
			key = number(a.data)
		case unix.NFTA_SET_KEY_LEN:
			length = number(a.data)
		case unix.NFTA_SET_DATA_TYPE:
			data = number(a.data)
		}
	}
	s.anonymous = flags&unix.NFT_SET_ANONYMOUS != 0
	spec := ruleset.SetSpec{Name: s.spec.Name, Key: typesOf(key), Data: typeOf(data), Interval: flags&unix.NFT_SET_INTERVAL != 0}
	if setFlags(spec) == flags && !slices.Contains(spec.Key, ruleset.TypeNone) && keyLen(spec.Key) == int(length) {
		s.spec = spec
	}
	return s
}

func typesOf(number uint32) []ruleset.Type {
	var key []ruleset.Type
	for ; number != 0; number >>= nftables.SetConcatTypeBits {
		key = append(key, typeOf(number&nftables.SetConcatTypeMask))
	}
	slices.Reverse(key)
	return key
}

func native32(v uint32) string { return string(binary.NativeEndian.AppendUint32(nil, v)) }

func fromNative32(s string) uint32 { return binary.NativeEndian.Uint32([]byte(s)) }
