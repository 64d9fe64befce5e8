package nft

import (
	"fmt"
	"slices"
	"strings"

	"github.com/kithnet/kith/policy/ruleset"
	"golang.org/x/sys/unix"
)

// A rule's first field is loaded into register 1; that is also where a single value is compared.
const firstRegister = unix.NFT_REG_1

const (
	nfDrop        = 0  // NF_DROP
	nfAccept      = 1  // NF_ACCEPT
	tcpFlags      = 13 // offset in the TCP header
	flagsOfSYN    = "\x02"
	flagsCompared = "\x17" // fin, syn, rst, ack
	ethernet      = "\x01\x00"
)

// loads tell how the kernel loads each field; the register is filled in. iifname and so on are of the packet's
// metadata, th is whatever transport header there is.
var loads = [...]instr{
	ruleset.InInterface:     {op: opMeta, key: unix.NFT_META_IIFNAME},
	ruleset.OutInterface:    {op: opMeta, key: unix.NFT_META_OIFNAME},
	ruleset.EtherSource:     {op: opPayload, key: unix.NFT_PAYLOAD_LL_HEADER, off: 6, size: 6},
	ruleset.IPSource:        {op: opPayload, key: unix.NFT_PAYLOAD_NETWORK_HEADER, off: 12, size: 4},
	ruleset.IPDestination:   {op: opPayload, key: unix.NFT_PAYLOAD_NETWORK_HEADER, off: 16, size: 4},
	ruleset.IP6Source:       {op: opPayload, key: unix.NFT_PAYLOAD_NETWORK_HEADER, off: 8, size: 16},
	ruleset.IP6Destination:  {op: opPayload, key: unix.NFT_PAYLOAD_NETWORK_HEADER, off: 24, size: 16},
	ruleset.OriginalSource:  {op: opConnection, key: ctSourceIP, off: uint32(ruleset.Original)},
	ruleset.OriginalSource6: {op: opConnection, key: ctSourceIP6, off: uint32(ruleset.Original)},
	ruleset.ReplySource:     {op: opConnection, key: ctSourceIP, off: uint32(ruleset.Reply)},
	ruleset.ReplySource6:    {op: opConnection, key: ctSourceIP6, off: uint32(ruleset.Reply)},
	ruleset.L4Proto:         {op: opMeta, key: unix.NFT_META_L4PROTO},
	ruleset.SourcePort:      {op: opPayload, key: unix.NFT_PAYLOAD_TRANSPORT_HEADER, off: 0, size: 2},
	ruleset.DestinationPort: {op: opPayload, key: unix.NFT_PAYLOAD_TRANSPORT_HEADER, off: 2, size: 2},
	ruleset.Priority:        {op: opMeta, key: unix.NFT_META_PRIORITY},
}

var verdicts = [...]int{
	ruleset.Accept: nfAccept, ruleset.Drop: nfDrop, ruleset.Return: unix.NFT_RETURN,
	ruleset.Jump: unix.NFT_JUMP, ruleset.Goto: unix.NFT_GOTO,
}

// ruleWriter turns a rule's expressions into instructions. It remembers what earlier instructions have already made
// sure of: in a table of family inet, a field of one family must follow a check of the family, as the nft tool makes
// and expects it.
type ruleWriter struct {
	specs  map[string]ruleset.SetSpec
	out    []instr
	family byte
	ether  bool
}

func instrsOf(rule ruleset.Rule, specs map[string]ruleset.SetSpec) ([]instr, error) {
	w := ruleWriter{specs: specs}
	for _, e := range rule.Exprs {
		if err := w.expr(e); err != nil {
			return nil, fmt.Errorf("%s: %w", e, err)
		}
	}
	return w.out, nil
}

func (w *ruleWriter) add(in ...instr) { w.out = append(w.out, in...) }

func (w *ruleWriter) expr(e ruleset.Expr) error {
	switch e := e.(type) {
	case ruleset.Interface:
		if len(e.Name) >= unix.IFNAMSIZ {
			return fmt.Errorf("the name is longer than %d bytes", unix.IFNAMSIZ-1)
		}
		w.add(load(e.Field, firstRegister), compare(e.Op, interfaceName(e.Name)))
	case ruleset.State:
		w.add(instr{op: opConnection, key: unix.NFT_CT_STATE, reg: firstRegister},
			instr{op: opMask, reg: firstRegister, size: 4, data: native32(uint32(e.States))},
			compare(ruleset.NotEqual, native32(0)))
	case ruleset.Direction:
		w.add(instr{op: opConnection, key: unix.NFT_CT_DIRECTION, reg: firstRegister}, compare(ruleset.Equal, string([]byte{byte(e.Of)})))
	case ruleset.Protocol:
		w.protocol(e.Number)
	case ruleset.NotSYN:
		w.protocol(unix.IPPROTO_TCP)
		w.add(transport(tcpFlags), instr{op: opMask, reg: firstRegister, size: 1, data: flagsCompared}, compare(ruleset.NotEqual, flagsOfSYN))
	case ruleset.ICMPType:
		return w.icmp(e)
	case ruleset.Lookup:
		if err := w.key(e.Fields, e.Set); err != nil {
			return err
		}
		w.add(instr{op: opLookup, reg: firstRegister, key: uint32(e.Op), data: e.Set})
	case ruleset.VerdictMap:
		if err := w.key(e.Fields, e.Map); err != nil {
			return err
		}
		w.add(instr{op: opMap, reg: firstRegister, off: unix.NFT_REG_VERDICT, data: e.Map})
	default:
		return w.action(e)
	}
	return nil
}

func (w *ruleWriter) action(e ruleset.Expr) error {
	setPriority := instr{op: opMetaSet, key: unix.NFT_META_PRIORITY, reg: firstRegister}
	switch e := e.(type) {
	case ruleset.PriorityMap:
		if err := w.key([]ruleset.Field{e.Field}, e.Map); err != nil {
			return err
		}
		w.add(instr{op: opMap, reg: firstRegister, off: firstRegister, data: e.Map}, setPriority)
	case ruleset.PriorityNone:
		w.add(instr{op: opImmediate, reg: firstRegister, data: native32(0)}, setPriority)
	case ruleset.Counter:
		w.add(instr{op: opCounter})
	case ruleset.Masquerade:
		w.add(instr{op: opMasquerade})
	case ruleset.Verdict:
		w.add(instr{op: opVerdict, key: verdictCode(e.Kind), data: e.Chain})
	default:
		return fmt.Errorf("the kernel edge does not know %T", e)
	}
	return nil
}

func (w *ruleWriter) protocol(number uint8) {
	w.add(load(ruleset.L4Proto, firstRegister), compare(ruleset.Equal, string([]byte{number})))
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
		w.add(instr{op: opMeta, key: unix.NFT_META_IIFTYPE, reg: firstRegister}, compare(ruleset.Equal, ethernet))
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
		w.add(swap(f.Type(), spec, register(word))...)
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
		w.add(instr{op: opMeta, key: unix.NFT_META_NFPROTO, reg: firstRegister}, compare(ruleset.Equal, string([]byte{family})))
		return
	}
	ethertype := "\x08\x00"
	if family == unix.NFPROTO_IPV6 {
		ethertype = "\x86\xdd"
	}
	w.add(instr{op: opPayload, key: unix.NFT_PAYLOAD_LL_HEADER, off: 12, size: 2, reg: firstRegister}, compare(ruleset.Equal, ethertype))
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

func load(f ruleset.Field, reg uint32) instr {
	in := loads[f]
	in.reg = reg
	return in
}

// swap is the change of byte order that a field of the machine's order needs before it can be compared by size in a
// concatenation with intervals.
func swap(t ruleset.Type, spec ruleset.SetSpec, reg uint32) []instr {
	if spec.Interval && len(spec.Key) > 1 && t == ruleset.TypeClassID {
		return []instr{{op: opSwap, reg: reg, key: 4, size: 4}}
	}
	return nil
}

// isIdleSwap tells the swap of a single byte that the nft tool makes in the same place. It does nothing, and recent
// kernels refuse it.
func isIdleSwap(in instr) bool { return in.op == opSwap && in.size == 1 }

func transport(offset uint32) instr {
	return instr{op: opPayload, key: unix.NFT_PAYLOAD_TRANSPORT_HEADER, off: offset, size: 1, reg: firstRegister}
}

func compare(op ruleset.Op, data string) instr {
	return instr{op: opCompare, key: uint32(op), reg: firstRegister, data: data}
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

func verdictCode(k ruleset.VerdictKind) uint32 { return uint32(int32(verdicts[k])) }
