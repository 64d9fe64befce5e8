package nft

import (
	"encoding/binary"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/kithnet/kith/policy/ruleset"
	"golang.org/x/sys/unix"
)

// What rules need to judge errors that a packet was too large, and to keep packets whole.
const (
	fragmentationNeeded = "\x03\x04"     // type and code
	ecnBits, ect1       = "\x03", "\x01" // of the second byte of an IPv4 header
	dontFragment        = "\x40\x00"     // flags and offset of an IPv4 header
	offsetOfECN         = 1
	offsetOfFlags       = 6
	offsetOfChecksum    = 10
)

func (w *ruleWriter) tooBig(e ruleset.Expr) {
	switch e := e.(type) {
	case ruleset.FragmentationNeeded:
		w.needFamily(unix.NFPROTO_IPV4)
		w.protocol(unix.IPPROTO_ICMP)
		w.add(&expr.Payload{Base: expr.PayloadBaseTransportHeader, Len: 2, DestRegister: firstRegister}, compare(ruleset.Equal, fragmentationNeeded))
	case ruleset.Claims:
		load, size := claimed(e.Protocol), binary.BigEndian.AppendUint16(nil, e.Size)
		if load.Len == 4 {
			size = append([]byte{0, 0}, size...)
		}
		w.add(load, &expr.Cmp{Op: expr.CmpOpLt, Register: firstRegister, Data: size})
	case ruleset.KeepWhole:
		w.needFamily(unix.NFPROTO_IPV4)
		w.add(
			&expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: offsetOfECN, Len: 1, DestRegister: firstRegister},
			mask(ecnBits), compare(ruleset.Equal, ect1),
			&expr.Immediate{Register: firstRegister, Data: []byte(dontFragment)},
			&expr.Payload{
				OperationType: expr.PayloadWrite, SourceRegister: firstRegister, Base: expr.PayloadBaseNetworkHeader, Offset: offsetOfFlags,
				Len: 2, CsumType: expr.CsumTypeInet, CsumOffset: offsetOfChecksum,
			},
		)
	}
}

// claimed loads the size that an error says to fit.
func claimed(protocol uint8) *expr.Payload {
	p := &expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 6, Len: 2, DestRegister: firstRegister}
	if protocol == unix.IPPROTO_ICMPV6 {
		p.Offset, p.Len = 4, 4
	}
	return p
}

// tooBig reads back what the writer above makes, if that is what is there.
func (r *ruleReader) tooBig() (ruleset.Expr, bool) {
	load, ok := r.at(0).(*expr.Payload)
	if !ok {
		return nil, false
	}
	if cmp, ok := r.at(1).(*expr.Cmp); ok && cmp.Op == expr.CmpOpLt && len(cmp.Data) >= 2 {
		e := ruleset.Claims{Protocol: unix.IPPROTO_ICMP, Size: binary.BigEndian.Uint16(cmp.Data[len(cmp.Data)-2:])}
		if load.Len == 4 {
			e.Protocol = unix.IPPROTO_ICMPV6
		}
		r.take(2)
		return e, true
	}
	if load.Base == expr.PayloadBaseNetworkHeader && load.Offset == offsetOfECN {
		r.take(5)
		return ruleset.KeepWhole{}, true
	}
	return nil, false
}

// The nft tool shows a set of bytes only if it is said where in a packet they are: "typeof @th,192,32".
const (
	typeInteger    = 4 // in the nft tool's count of types
	sizeOfTypeOf   = 50
	payloadExpr    = 7 // in the nft tool's count of expressions
	verdictExpr    = 1
	transportLayer = 3
)

// typeOfKey is the user data that says so of a map of verdicts, by the length of its keys in bytes.
func typeOfKey(length uint32) []byte {
	offset := uint32(24 * 8)
	if length == 16 {
		offset = 32 * 8
	}
	var payload []byte
	for i, v := range []uint32{0, 0, transportLayer, offset, 8 * length} {
		payload = appendNumber(payload, userdata.Type(i), v)
	}
	key := userdata.Append(appendNumber(nil, 0, payloadExpr), 1, payload)
	data := userdata.Append(appendNumber(nil, 0, verdictExpr), 1, nil)
	out := userdata.Append(nil, userdata.NFTNL_UDATA_SET_KEY_TYPEOF, key)
	return userdata.Append(out, userdata.NFTNL_UDATA_SET_DATA_TYPEOF, data)
}

// appendNumber appends a number in the machine's order.
func appendNumber(b []byte, typ userdata.Type, v uint32) []byte {
	return userdata.Append(b, typ, []byte(native32(v)))
}
