package nft

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables/expr"
	"github.com/kithnet/kith/policy/ruleset"
	"golang.org/x/sys/unix"
)

// A rule's first field is loaded into register 1; that is also where a single value is compared.
const firstRegister = unix.NFT_REG_1

const (
	tcpFlags      = 13 // offset in the TCP header
	flagsOfSYN    = "\x02"
	flagOfReset   = "\x04"
	flagsCompared = "\x17" // fin, syn, rst, ack
	optionMSS     = 2      // TCP's option: kind, length, then the size in two bytes
	ethernet      = "\x01\x00"
)

// What neither x/sys nor google/nftables has of the kernel's header: the connection keys that name an address of one
// family.
const (
	ctSourceIP  expr.CtKey = 19 // NFT_CT_SRC_IP
	ctSourceIP6 expr.CtKey = 21 // NFT_CT_SRC_IP6
)

// The bits of a connection's status that rules ask for: IPS_CONFIRMED and IPS_DST_NAT.
const (
	statusConfirmed  = 1 << 3
	statusTranslated = 1 << 5
)

// loads tell how the kernel loads each field; the register is filled in. iifname and so on are of the packet's
// metadata, th is whatever transport header there is.
var loads = [...]any{
	ruleset.InInterface:        expr.Meta{Key: expr.MetaKeyIIFNAME},
	ruleset.OutInterface:       expr.Meta{Key: expr.MetaKeyOIFNAME},
	ruleset.EtherSource:        expr.Payload{Base: expr.PayloadBaseLLHeader, Offset: 6, Len: 6},
	ruleset.IPSource:           expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4},
	ruleset.IPDestination:      expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
	ruleset.IP6Source:          expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: 8, Len: 16},
	ruleset.IP6Destination:     expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: 24, Len: 16},
	ruleset.OriginalSource:     expr.Ct{Key: ctSourceIP, Direction: uint32(ruleset.Original)},
	ruleset.OriginalSource6:    expr.Ct{Key: ctSourceIP6, Direction: uint32(ruleset.Original)},
	ruleset.ReplySource:        expr.Ct{Key: ctSourceIP, Direction: uint32(ruleset.Reply)},
	ruleset.ReplySource6:       expr.Ct{Key: ctSourceIP6, Direction: uint32(ruleset.Reply)},
	ruleset.L4Proto:            expr.Meta{Key: expr.MetaKeyL4PROTO},
	ruleset.SourcePort:         expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 2},
	ruleset.DestinationPort:    expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
	ruleset.Priority:           expr.Meta{Key: expr.MetaKeyPRIORITY},
	ruleset.QuotedDestination:  expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 24, Len: 4},
	ruleset.QuotedDestination6: expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 32, Len: 16},
}

var verdicts = [...]expr.VerdictKind{
	ruleset.Accept: expr.VerdictAccept, ruleset.Drop: expr.VerdictDrop, ruleset.Return: expr.VerdictReturn,
	ruleset.Jump: expr.VerdictJump, ruleset.Goto: expr.VerdictGoto,
}

// ruleWriter turns a rule's expressions into the kernel's. It remembers what earlier ones have already made sure of:
// in a table of family inet, a field of one family must follow a check of the family, as the nft tool makes and
// expects it.
type ruleWriter struct {
	specs  map[string]ruleset.SetSpec
	out    []expr.Any
	family byte
	ether  bool
}

func exprsOf(rule ruleset.Rule, specs map[string]ruleset.SetSpec) ([]expr.Any, error) {
	w := ruleWriter{specs: specs}
	for _, e := range rule.Exprs {
		if err := w.expr(e); err != nil {
			return nil, fmt.Errorf("%s: %w", e, err)
		}
	}
	return w.out, nil
}

func (w *ruleWriter) add(e ...expr.Any) { w.out = append(w.out, e...) }

func (w *ruleWriter) expr(e ruleset.Expr) error {
	switch e := e.(type) {
	case ruleset.Interface:
		if len(e.Name) >= unix.IFNAMSIZ {
			return fmt.Errorf("the name is longer than %d bytes", unix.IFNAMSIZ-1)
		}
		w.add(load(e.Field, firstRegister), compare(e.Op, interfaceName(e.Name)))
	case ruleset.State:
		w.add(&expr.Ct{Key: expr.CtKeySTATE, Register: firstRegister}, mask(native32(uint32(e.States))), compare(ruleset.NotEqual, native32(0)))
	case ruleset.Translated:
		w.status(statusTranslated, ruleset.NotEqual)
	case ruleset.Unconfirmed:
		w.status(statusConfirmed, ruleset.Equal)
	case ruleset.Direction:
		w.add(&expr.Ct{Key: expr.CtKeyDIRECTION, Register: firstRegister}, compare(ruleset.Equal, string([]byte{byte(e.Of)})))
	case ruleset.Protocol:
		w.protocol(e.Number)
	case ruleset.NotSYN:
		w.protocol(unix.IPPROTO_TCP)
		w.add(transport(tcpFlags), mask(flagsCompared), compare(ruleset.NotEqual, flagsOfSYN))
	case ruleset.ResetFlag:
		w.protocol(unix.IPPROTO_TCP)
		w.add(transport(tcpFlags), mask(flagOfReset), compare(ruleset.NotEqual, "\x00"))
	case ruleset.ClampMSS:
		w.clamp()
	case ruleset.ICMPType:
		return w.icmp(e)
	case ruleset.Arrived:
		w.add(&expr.Meta{Key: expr.MetaKeyMARK, Register: firstRegister}, mask(native32(ruleset.ArrivedBit)), compare(ruleset.Equal, native32(ruleset.ArrivedBit)))
	case ruleset.FragmentationNeeded, ruleset.Claims, ruleset.KeepWhole:
		w.tooBig(e)
	case ruleset.PriorityIsNone:
		w.add(load(ruleset.Priority, firstRegister), compare(ruleset.Equal, native32(0)))
	case ruleset.Lookup:
		if err := w.key(e.Fields, e.Set); err != nil {
			return err
		}
		w.add(&expr.Lookup{SourceRegister: firstRegister, SetName: e.Set, Invert: e.Op == ruleset.NotEqual})
	case ruleset.VerdictMap:
		if err := w.key(e.Fields, e.Map); err != nil {
			return err
		}
		w.add(&expr.Lookup{SourceRegister: firstRegister, SetName: e.Map, IsDestRegSet: true, DestRegister: unix.NFT_REG_VERDICT})
	default:
		return w.action(e)
	}
	return nil
}

func (w *ruleWriter) action(e ruleset.Expr) error {
	setPriority := &expr.Meta{Key: expr.MetaKeyPRIORITY, SourceRegister: true, Register: firstRegister}
	switch e := e.(type) {
	case ruleset.PriorityMap:
		if err := w.key([]ruleset.Field{e.Field}, e.Map); err != nil {
			return err
		}
		w.add(&expr.Lookup{SourceRegister: firstRegister, SetName: e.Map, IsDestRegSet: true, DestRegister: firstRegister}, setPriority)
	case ruleset.PriorityNone:
		w.add(&expr.Immediate{Register: firstRegister, Data: []byte(native32(0))}, setPriority)
	case ruleset.PriorityUnknown:
		w.add(&expr.Immediate{Register: firstRegister, Data: []byte(native32(ruleset.Unknown))}, setPriority)
	case ruleset.SetArrived:
		keep := mask(native32(^uint32(ruleset.ArrivedBit)))
		keep.Xor = []byte(native32(ruleset.ArrivedBit))
		w.add(&expr.Meta{Key: expr.MetaKeyMARK, Register: firstRegister}, keep,
			&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: firstRegister})
	case ruleset.Update:
		if err := w.key(e.Fields, e.Set); err != nil {
			return err
		}
		w.add(&expr.Dynset{SrcRegKey: firstRegister, SetName: e.Set, Operation: unix.NFT_DYNSET_OP_UPDATE})
	case ruleset.Reset:
		w.add(&expr.Reject{Type: unix.NFT_REJECT_TCP_RST})
	case ruleset.Counter:
		w.add(&expr.Counter{})
	case ruleset.Beyond:
		w.add(&expr.Limit{Type: expr.LimitTypePkts, Rate: uint64(e.PerSecond), Unit: expr.LimitTimeSecond, Burst: e.Burst, Over: true})
	case ruleset.Masquerade:
		w.add(&expr.Masq{FullyRandom: true})
	case ruleset.SourceNAT:
		w.add(&expr.Immediate{Register: firstRegister, Data: e.To.AsSlice()}, sourceNAT(familyOfAddr(e.To)))
	case ruleset.KeepSource:
		family := familyOf(e.Field)
		w.needFamily(family)
		w.add(load(e.Field, firstRegister), sourceNAT(family))
	case ruleset.Verdict:
		w.add(kernelVerdict(e))
	default:
		return fmt.Errorf("the kernel edge does not know %T", e)
	}
	return nil
}

// status compares a bit of the connection's status with zero.
func (w *ruleWriter) status(bit uint32, op ruleset.Op) {
	w.add(&expr.Ct{Key: expr.CtKeySTATUS, Register: firstRegister}, mask(native32(bit)), compare(op, native32(0)))
}

func (w *ruleWriter) protocol(number uint8) {
	w.add(load(ruleset.L4Proto, firstRegister), compare(ruleset.Equal, string([]byte{number})))
}

// clamp looks at every packet with SYN, the answer too.
func (w *ruleWriter) clamp() {
	w.protocol(unix.IPPROTO_TCP)
	w.add(transport(tcpFlags), mask(flagsOfSYN), compare(ruleset.NotEqual, "\x00"))
	w.add(&expr.Rt{Key: expr.RtTCPMSS, Register: firstRegister})
	w.add(&expr.Byteorder{SourceRegister: firstRegister, DestRegister: firstRegister, Op: expr.ByteorderHton, Len: 2, Size: 2})
	w.add(&expr.Exthdr{SourceRegister: firstRegister, Op: expr.ExthdrOpTcpopt, Type: optionMSS, Offset: 2, Len: 2})
}

func (w *ruleWriter) icmp(e ruleset.ICMPType) error {
	switch e.Protocol {
	case unix.IPPROTO_ICMP:
		w.needFamily(unix.NFPROTO_IPV4)
	case unix.IPPROTO_ICMPV6:
		w.needFamily(unix.NFPROTO_IPV6)
	default:
		return fmt.Errorf("protocol %d has no ICMP types", e.Protocol)
	}
	w.protocol(e.Protocol)
	w.add(transport(0), compare(ruleset.Equal, string([]byte{e.Type})))
	return nil
}

// key loads a concatenation of fields for a look-up.
func (w *ruleWriter) key(fields []ruleset.Field, set string) error {
	spec, ok := w.specs[set]
	if !ok {
		return fmt.Errorf("there is no set %s", set)
	}
	if len(fields) != len(spec.Key) {
		return fmt.Errorf("set %s has %d fields in its key, not %d", set, len(spec.Key), len(fields))
	}
	if slices.Contains(fields, ruleset.EtherSource) && !w.ether {
		w.add(&expr.Meta{Key: expr.MetaKeyIIFTYPE, Register: firstRegister}, compare(ruleset.Equal, ethernet))
		w.ether = true
	}
	for _, f := range fields {
		if family := familyOf(f); family != 0 {
			w.needFamily(family)
		}
	}
	word := 0
	for i, f := range fields {
		if f.Type() != spec.Key[i] {
			return fmt.Errorf("field %d of set %s is of type %s, not %s", i+1, set, spec.Key[i], f.Type())
		}
		w.add(load(f, register(word)))
		if f.Type() == ruleset.TypeClassID && isConcatOfIntervals(spec) {
			w.add(swap(register(word)))
		}
		word += words(f.Type())
	}
	return nil
}

// needFamily makes sure that the packet is of a family. Behind a check of the link layer that is the Ethernet type's
// business, else the packet's own.
func (w *ruleWriter) needFamily(family byte) {
	if w.family == family {
		return
	}
	w.family = family
	if !w.ether {
		w.add(&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: firstRegister}, compare(ruleset.Equal, string([]byte{family})))
		return
	}
	ethertype := "\x08\x00"
	if family == unix.NFPROTO_IPV6 {
		ethertype = "\x86\xdd"
	}
	w.add(&expr.Payload{Base: expr.PayloadBaseLLHeader, Offset: 12, Len: 2, DestRegister: firstRegister}, compare(ruleset.Equal, ethertype))
}

func familyOf(f ruleset.Field) byte {
	switch f {
	case ruleset.IPSource, ruleset.IPDestination:
		return unix.NFPROTO_IPV4
	case ruleset.IP6Source, ruleset.IP6Destination:
		return unix.NFPROTO_IPV6
	}
	return 0
}

func load(f ruleset.Field, register uint32) expr.Any {
	switch l := loads[f].(type) {
	case expr.Payload:
		l.DestRegister = register
		return &l
	case expr.Ct:
		l.Register = register
		return &l
	default:
		m := l.(expr.Meta)
		m.Register = register
		return &m
	}
}

// swap is the change of byte order that a field of the machine's order needs before it can be compared by size in a
// concatenation with intervals. (For the single byte of l4proto some nft tools make one as well; some kernels refuse it.)
func swap(register uint32) expr.Any {
	return &expr.Byteorder{SourceRegister: register, DestRegister: register, Op: expr.ByteorderHton, Len: 4, Size: 4}
}

// sourceNAT rewrites the source to the address in the first register.
func sourceNAT(family byte) expr.Any {
	return &expr.NAT{Type: expr.NATTypeSourceNAT, Family: uint32(family), RegAddrMin: firstRegister, RegAddrMax: firstRegister}
}

func familyOfAddr(a netip.Addr) byte {
	if a.Is6() {
		return unix.NFPROTO_IPV6
	}
	return unix.NFPROTO_IPV4
}

func transport(offset uint32) expr.Any {
	return &expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 1, DestRegister: firstRegister}
}

func mask(bits string) *expr.Bitwise {
	return &expr.Bitwise{SourceRegister: firstRegister, DestRegister: firstRegister, Len: uint32(len(bits)), Mask: []byte(bits), Xor: make([]byte, len(bits))}
}

func compare(op ruleset.Op, data string) expr.Any {
	return &expr.Cmp{Op: expr.CmpOp(op), Register: firstRegister, Data: []byte(data)}
}

func kernelVerdict(v ruleset.Verdict) *expr.Verdict {
	return &expr.Verdict{Kind: verdicts[v.Kind], Chain: v.Chain}
}

// interfaceName is what the kernel compares: the whole name with its end, or only the part before the *.
func interfaceName(name string) string {
	if prefix, ok := strings.CutSuffix(name, "*"); ok {
		return prefix
	}
	return name + strings.Repeat("\x00", unix.IFNAMSIZ-len(name))
}

// register is the number of the register that starts at a 32-bit word of the register file, as the kernel shows it.
func register(word int) uint32 {
	if word%4 == 0 {
		return unix.NFT_REG_1 + uint32(word/4)
	}
	return unix.NFT_REG32_00 + uint32(word)
}

func words(t ruleset.Type) int { return (t.Size() + 3) / 4 }
