package nft

import (
	"encoding/binary"
	"strings"

	"golang.org/x/sys/unix"
)

// instr is one instruction of the kernel's rule machine in normal form: comparable, and without what the kernel adds
// when it shows a rule (counts, zero flags).
type instr struct {
	op   opcode
	reg  uint32 // the register that it reads or writes
	key  uint32 // what it loads; how it compares; a look-up's flags; a verdict's code
	off  uint32 // payload: offset; connection: direction; map: destination register
	size uint32 // payload, mask, swap: how many bytes
	data string // value compared, loaded or masked with; name of a set or chain
}

type opcode uint8

const (
	opUnknown opcode = iota
	opMeta
	opMetaSet
	opConnection
	opPayload
	opCompare
	opMask
	opSwap
	opLookup
	opMap
	opImmediate
	opVerdict
	opCounter
	opMasquerade
)

// What x/sys does not have of the kernel's header: the connection keys that name an address of one family, and which
// bitwise operation it is.
const (
	ctSourceIP  = 19 // NFT_CT_SRC_IP
	ctSourceIP6 = 21 // NFT_CT_SRC_IP6
	bitwiseOp   = 6  // NFTA_BITWISE_OP
)

var opNames = [...]string{
	opMeta: "meta", opMetaSet: "meta", opConnection: "ct", opPayload: "payload", opCompare: "cmp", opMask: "bitwise",
	opSwap: "byteorder", opLookup: "lookup", opMap: "lookup", opImmediate: "immediate", opVerdict: "immediate",
	opCounter: "counter", opMasquerade: "masq",
}

func (m *batch) instr(in instr) {
	elem := m.open(unix.NFTA_LIST_ELEM)
	m.str(unix.NFTA_EXPR_NAME, opNames[in.op])
	data := m.open(unix.NFTA_EXPR_DATA)
	m.operands(in)
	m.shut(data)
	m.shut(elem)
}

func (m *batch) operands(in instr) {
	switch in.op {
	case opMeta:
		m.u32(unix.NFTA_META_KEY, in.key)
		m.u32(unix.NFTA_META_DREG, in.reg)
	case opMetaSet:
		m.u32(unix.NFTA_META_KEY, in.key)
		m.u32(unix.NFTA_META_SREG, in.reg)
	case opConnection:
		m.u32(unix.NFTA_CT_KEY, in.key)
		m.u32(unix.NFTA_CT_DREG, in.reg)
		if hasDirection(in.key) {
			m.attr(unix.NFTA_CT_DIRECTION, string([]byte{byte(in.off)}))
		}
	case opPayload:
		m.u32(unix.NFTA_PAYLOAD_DREG, in.reg)
		m.u32(unix.NFTA_PAYLOAD_BASE, in.key)
		m.u32(unix.NFTA_PAYLOAD_OFFSET, in.off)
		m.u32(unix.NFTA_PAYLOAD_LEN, in.size)
	case opCompare:
		m.u32(unix.NFTA_CMP_SREG, in.reg)
		m.u32(unix.NFTA_CMP_OP, in.key)
		m.value(unix.NFTA_CMP_DATA, in.data)
	case opMask:
		m.u32(unix.NFTA_BITWISE_SREG, in.reg)
		m.u32(unix.NFTA_BITWISE_DREG, in.reg)
		m.u32(unix.NFTA_BITWISE_LEN, in.size)
		m.value(unix.NFTA_BITWISE_MASK, in.data)
		m.value(unix.NFTA_BITWISE_XOR, strings.Repeat("\x00", len(in.data)))
	default:
		m.actions(in)
	}
}

func (m *batch) actions(in instr) {
	switch in.op {
	case opSwap:
		m.u32(unix.NFTA_BYTEORDER_SREG, in.reg)
		m.u32(unix.NFTA_BYTEORDER_DREG, in.reg)
		m.u32(unix.NFTA_BYTEORDER_OP, unix.NFT_BYTEORDER_HTON)
		m.u32(unix.NFTA_BYTEORDER_LEN, in.size)
		m.u32(unix.NFTA_BYTEORDER_SIZE, in.key)
	case opLookup, opMap:
		m.str(unix.NFTA_LOOKUP_SET, in.data)
		m.u32(unix.NFTA_LOOKUP_SREG, in.reg)
		if in.op == opMap {
			m.u32(unix.NFTA_LOOKUP_DREG, in.off)
		}
		if in.key != 0 {
			m.u32(unix.NFTA_LOOKUP_FLAGS, in.key)
		}
	case opImmediate:
		m.u32(unix.NFTA_IMMEDIATE_DREG, in.reg)
		m.value(unix.NFTA_IMMEDIATE_DATA, in.data)
	case opVerdict:
		m.u32(unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT)
		m.verdict(unix.NFTA_IMMEDIATE_DATA, in.key, in.data)
	}
}

func (m *batch) value(typ uint16, data string) {
	at := m.open(typ)
	m.attr(unix.NFTA_DATA_VALUE, data)
	m.shut(at)
}

func (m *batch) verdict(typ uint16, code uint32, chain string) {
	at := m.open(typ)
	v := m.open(unix.NFTA_DATA_VERDICT)
	m.u32(unix.NFTA_VERDICT_CODE, code)
	if chain != "" {
		m.str(unix.NFTA_VERDICT_CHAIN, chain)
	}
	m.shut(v)
	m.shut(at)
}

func hasDirection(key uint32) bool {
	switch key {
	case unix.NFT_CT_SRC, unix.NFT_CT_DST, unix.NFT_CT_PROTO_SRC, unix.NFT_CT_PROTO_DST:
		return true
	}
	return key >= ctSourceIP && key <= ctSourceIP6+1
}

// parseInstrs reads the instructions of a rule as the kernel shows them.
func parseInstrs(b []byte) []instr {
	var out []instr
	for _, elem := range attributes(b) {
		name, data := "", []byte(nil)
		for _, a := range attributes(elem.data) {
			switch a.typ {
			case unix.NFTA_EXPR_NAME:
				name = text(a.data)
			case unix.NFTA_EXPR_DATA:
				data = a.data
			}
		}
		out = append(out, parseInstr(name, data))
	}
	return out
}

func parseInstr(name string, b []byte) instr {
	v := operandsOf(b)
	switch name {
	case "meta":
		return v.meta()
	case "ct":
		if v.has[unix.NFTA_CT_SREG] {
			return instr{}
		}
		return instr{op: opConnection, key: v.u32(unix.NFTA_CT_KEY), reg: v.u32(unix.NFTA_CT_DREG), off: v.u32(unix.NFTA_CT_DIRECTION)}
	case "payload":
		if v.has[unix.NFTA_PAYLOAD_SREG] {
			return instr{}
		}
		return instr{op: opPayload, reg: v.u32(unix.NFTA_PAYLOAD_DREG), key: v.u32(unix.NFTA_PAYLOAD_BASE),
			off: v.u32(unix.NFTA_PAYLOAD_OFFSET), size: v.u32(unix.NFTA_PAYLOAD_LEN)}
	case "cmp":
		return instr{op: opCompare, reg: v.u32(unix.NFTA_CMP_SREG), key: v.u32(unix.NFTA_CMP_OP), data: v.nested(unix.NFTA_CMP_DATA)}
	case "bitwise":
		return v.mask()
	case "byteorder":
		return v.swap()
	case "lookup":
		return v.lookup()
	case "immediate":
		return v.immediate()
	case "counter":
		return instr{op: opCounter}
	case "masq":
		if len(b) == 0 {
			return instr{op: opMasquerade}
		}
	}
	return instr{}
}

// operands are an instruction's attributes by their type.
type operands struct {
	has  [16]bool
	data [16][]byte
}

func operandsOf(b []byte) *operands {
	var v operands
	for _, a := range attributes(b) {
		if int(a.typ) < len(v.has) {
			v.has[a.typ], v.data[a.typ] = true, a.data
		}
	}
	return &v
}

func (v *operands) u32(typ int) uint32 {
	switch d := v.data[typ]; len(d) {
	case 1:
		return uint32(d[0])
	case 4:
		return binary.BigEndian.Uint32(d)
	}
	return 0
}

func (v *operands) nested(typ int) string {
	for _, a := range attributes(v.data[typ]) {
		if a.typ == unix.NFTA_DATA_VALUE {
			return string(a.data)
		}
	}
	return ""
}

func (v *operands) meta() instr {
	if v.has[unix.NFTA_META_SREG] {
		return instr{op: opMetaSet, key: v.u32(unix.NFTA_META_KEY), reg: v.u32(unix.NFTA_META_SREG)}
	}
	return instr{op: opMeta, key: v.u32(unix.NFTA_META_KEY), reg: v.u32(unix.NFTA_META_DREG)}
}

func (v *operands) mask() instr {
	in := instr{op: opMask, reg: v.u32(unix.NFTA_BITWISE_SREG), size: v.u32(unix.NFTA_BITWISE_LEN), data: v.nested(unix.NFTA_BITWISE_MASK)}
	plain := v.u32(bitwiseOp) == 0 && v.u32(unix.NFTA_BITWISE_DREG) == in.reg
	if !plain || strings.Trim(v.nested(unix.NFTA_BITWISE_XOR), "\x00") != "" {
		return instr{}
	}
	return in
}

func (v *operands) swap() instr {
	if v.u32(unix.NFTA_BYTEORDER_OP) != unix.NFT_BYTEORDER_HTON || v.u32(unix.NFTA_BYTEORDER_SREG) != v.u32(unix.NFTA_BYTEORDER_DREG) {
		return instr{}
	}
	return instr{op: opSwap, reg: v.u32(unix.NFTA_BYTEORDER_SREG), size: v.u32(unix.NFTA_BYTEORDER_LEN), key: v.u32(unix.NFTA_BYTEORDER_SIZE)}
}

func (v *operands) lookup() instr {
	in := instr{op: opLookup, reg: v.u32(unix.NFTA_LOOKUP_SREG), key: v.u32(unix.NFTA_LOOKUP_FLAGS), data: text(v.data[unix.NFTA_LOOKUP_SET])}
	if v.has[unix.NFTA_LOOKUP_DREG] {
		in.op, in.off = opMap, v.u32(unix.NFTA_LOOKUP_DREG)
	}
	return in
}

func (v *operands) immediate() instr {
	if v.u32(unix.NFTA_IMMEDIATE_DREG) != unix.NFT_REG_VERDICT {
		return instr{op: opImmediate, reg: v.u32(unix.NFTA_IMMEDIATE_DREG), data: v.nested(unix.NFTA_IMMEDIATE_DATA)}
	}
	code, chain := parseVerdict(v.data[unix.NFTA_IMMEDIATE_DATA])
	return instr{op: opVerdict, key: code, data: chain}
}

func parseVerdict(b []byte) (code uint32, chain string) {
	for _, d := range attributes(b) {
		for _, a := range attributes(d.data) {
			switch {
			case d.typ != unix.NFTA_DATA_VERDICT:
			case a.typ == unix.NFTA_VERDICT_CODE && len(a.data) == 4:
				code = binary.BigEndian.Uint32(a.data)
			case a.typ == unix.NFTA_VERDICT_CHAIN:
				chain = text(a.data)
			}
		}
	}
	return code, chain
}
