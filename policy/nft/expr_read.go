package nft

import (
	"encoding/binary"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// parseExprs reads the expressions of a rule as the kernel shows them. One that is not known is nil; one that changes
// nothing is left out: the nft tool swaps the bytes of single bytes.
func parseExprs(b []byte) []expr.Any {
	var out []expr.Any
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
		e := parseExpr(name, data)
		if swap, ok := e.(*expr.Byteorder); ok && swap.Len == 1 {
			continue
		}
		out = append(out, e)
	}
	return out
}

func parseExpr(name string, b []byte) expr.Any {
	switch name {
	case "meta":
		return unmarshal(&expr.Meta{}, b)
	case "payload":
		return unmarshal(&expr.Payload{}, b)
	case "cmp":
		return unmarshal(&expr.Cmp{}, b)
	case "bitwise":
		return unmarshal(&expr.Bitwise{}, b)
	case "lookup":
		return unmarshal(&expr.Lookup{}, b)
	case "dynset":
		return unmarshal(&expr.Dynset{}, b)
	case "exthdr":
		return unmarshal(&expr.Exthdr{}, b)
	case "masq":
		return unmarshal(&expr.Masq{}, b)
	case "nat":
		return unmarshal(&expr.NAT{}, b)
	case "reject":
		return unmarshal(&expr.Reject{}, b)
	case "limit":
		return unmarshal(&expr.Limit{}, b)
	case "counter":
		return &expr.Counter{} // what it has counted is nobody's wish
	case "ct":
		return operandsOf(b).ct()
	case "byteorder":
		return operandsOf(b).byteorder()
	case "immediate":
		return operandsOf(b).immediate()
	case "rt":
		return operandsOf(b).rt()
	}
	return nil
}

func unmarshal(e expr.Any, b []byte) expr.Any {
	if err := expr.Unmarshal(unix.NFPROTO_INET, b, e); err != nil {
		return nil
	}
	return e
}

// operands are the attributes of an expression that google/nftables v0.3.0 cannot read, or of an element, by their
// type.
type operands [16][]byte

func operandsOf(b []byte) *operands {
	var v operands
	for _, a := range attributes(b) {
		if int(a.typ) < len(v) {
			v[a.typ] = a.data
		}
	}
	return &v
}

func (v *operands) nested(typ int) string {
	for _, a := range attributes(v[typ]) {
		if a.typ == unix.NFTA_DATA_VALUE {
			return string(a.data)
		}
	}
	return ""
}

// ct is here because the library wants four bytes for a direction that has one.
func (v *operands) ct() expr.Any {
	e := expr.Ct{Key: expr.CtKey(number(v[unix.NFTA_CT_KEY])), Register: number(v[unix.NFTA_CT_DREG])}
	if register := v[unix.NFTA_CT_SREG]; register != nil {
		e.SourceRegister, e.Register = true, number(register)
	}
	if direction := v[unix.NFTA_CT_DIRECTION]; len(direction) == 1 {
		e.Direction = uint32(direction[0])
	}
	return &e
}

// byteorder is here because the library does not read it.
func (v *operands) byteorder() expr.Any {
	return &expr.Byteorder{
		SourceRegister: number(v[unix.NFTA_BYTEORDER_SREG]), DestRegister: number(v[unix.NFTA_BYTEORDER_DREG]),
		Op:  expr.ByteorderOp(number(v[unix.NFTA_BYTEORDER_OP])),
		Len: number(v[unix.NFTA_BYTEORDER_LEN]), Size: number(v[unix.NFTA_BYTEORDER_SIZE]),
	}
}

// rt is here because the library does not read it.
func (v *operands) rt() expr.Any {
	return &expr.Rt{Register: number(v[unix.NFTA_RT_DREG]), Key: expr.RtKey(number(v[unix.NFTA_RT_KEY]))}
}

// immediate is here because a verdict is read as here in a map's elements too, which the library does not read.
func (v *operands) immediate() expr.Any {
	if register := number(v[unix.NFTA_IMMEDIATE_DREG]); register != unix.NFT_REG_VERDICT {
		return &expr.Immediate{Register: register, Data: []byte(v.nested(unix.NFTA_IMMEDIATE_DATA))}
	}
	return parseVerdict(v[unix.NFTA_IMMEDIATE_DATA])
}

func parseVerdict(b []byte) *expr.Verdict {
	v := expr.Verdict{Kind: expr.VerdictBreak}
	for _, d := range attributes(b) {
		for _, a := range attributes(d.data) {
			switch {
			case d.typ != unix.NFTA_DATA_VERDICT:
			case a.typ == unix.NFTA_VERDICT_CODE && len(a.data) == 4:
				v.Kind = expr.VerdictKind(int32(binary.BigEndian.Uint32(a.data)))
			case a.typ == unix.NFTA_VERDICT_CHAIN:
				v.Chain = text(a.data)
			}
		}
	}
	return &v
}
