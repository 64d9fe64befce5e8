package nft

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/kithnet/kith/policy/ruleset"
	"golang.org/x/sys/unix"
)

// foreign is the comment of a rule that the language cannot say. No rule of the compiler bears it.
const foreign = "not ours"

// ruleOf reads a rule back. The check at the end makes it exact: a rule that the writer would not have written
// just so is foreign.
func ruleOf(in []expr.Any, comment string, specs map[string]ruleset.SetSpec) ruleset.Rule {
	r := ruleReader{in: in}
	rule := ruleset.Rule{Exprs: r.exprs(), Comment: comment}
	again, err := exprsOf(rule, specs)
	if r.failed || err != nil || !reflect.DeepEqual(again, in) {
		return ruleset.Rule{Comment: foreign}
	}
	return rule
}

// ruleReader reads the language's expressions from the kernel's, left to right.
type ruleReader struct {
	in     []expr.Any
	failed bool
}

func (r *ruleReader) exprs() []ruleset.Expr {
	var out []ruleset.Expr
	for len(r.in) > 0 && !r.failed {
		if r.dependency() {
			continue
		}
		out = append(out, r.expr())
	}
	return out
}

// at is the i-th expression from here, or none.
func (r *ruleReader) at(i int) expr.Any {
	if i < len(r.in) {
		return r.in[i]
	}
	return nil
}

// take moves on by n expressions.
func (r *ruleReader) take(n int) { r.in = r.in[min(n, len(r.in)):] }

// dependency skips a check that the writer puts before fields of one family.
func (r *ruleReader) dependency() bool {
	switch e := r.at(0).(type) {
	case *expr.Meta:
		if e.Key != expr.MetaKeyNFPROTO && e.Key != expr.MetaKeyIIFTYPE {
			return false
		}
	case *expr.Payload:
		if e.Base != expr.PayloadBaseLLHeader || e.Offset != 12 {
			return false
		}
	default:
		return false
	}
	r.take(2)
	return true
}

func (r *ruleReader) expr() ruleset.Expr {
	switch e := r.at(0).(type) {
	case *expr.Verdict:
		r.take(1)
		return verdictOf(e)
	case *expr.Counter:
		r.take(1)
		return ruleset.Counter{}
	case *expr.Limit:
		r.take(1)
		return ruleset.Beyond{PerSecond: uint32(e.Rate), Burst: e.Burst}
	case *expr.Reject:
		r.take(1)
		return ruleset.Reset{}
	case *expr.Masq:
		r.take(1)
		return ruleset.Masquerade{}
	case *expr.Immediate:
		return r.immediate(e)
	case *expr.Meta:
		if e.Key == expr.MetaKeyMARK {
			return r.mark()
		}
	case *expr.Ct:
		switch e.Key {
		case expr.CtKeySTATE:
			return r.state()
		case expr.CtKeySTATUS:
			return r.status()
		}
	}
	if e, ok := r.tooBig(); ok {
		return e
	}
	if cmp, ok := r.at(1).(*expr.Cmp); ok {
		return r.comparison(cmp)
	}
	return r.lookup()
}

// immediate reads a constant and what is done with it.
func (r *ruleReader) immediate(e *expr.Immediate) ruleset.Expr {
	_, nat := r.at(1).(*expr.NAT)
	r.take(2)
	if to, ok := netip.AddrFromSlice(e.Data); nat && ok {
		return ruleset.SourceNAT{To: to}
	}
	if string(e.Data) == native32(ruleset.Unknown) {
		return ruleset.PriorityUnknown{}
	}
	return ruleset.PriorityNone{}
}

func (r *ruleReader) comparison(cmp *expr.Cmp) ruleset.Expr {
	if ct, ok := r.at(0).(*expr.Ct); ok && ct.Key == expr.CtKeyDIRECTION {
		r.take(2)
		return ruleset.Direction{Of: ruleset.CTDirection(firstByte(cmp))}
	}
	switch f, _ := fieldOf(r.at(0)); f {
	case ruleset.InInterface, ruleset.OutInterface:
		r.take(2)
		return ruleset.Interface{Field: f, Op: ruleset.Op(cmp.Op), Name: nameOf(cmp.Data)}
	case ruleset.L4Proto:
		return r.protocol(firstByte(cmp))
	case ruleset.Priority:
		r.take(2)
		return ruleset.PriorityIsNone{}
	}
	return r.fail()
}

// protocol reads a protocol match, or what the writer puts behind one.
func (r *ruleReader) protocol(number byte) ruleset.Expr {
	behind, ok := r.at(2).(*expr.Payload)
	code, compared := r.at(3).(*expr.Cmp)
	switch {
	case ok && behind.Offset == tcpFlags && r.clamps():
		r.take(8)
		return ruleset.ClampMSS{}
	case ok && behind.Offset == tcpFlags:
		bits, _ := r.at(3).(*expr.Bitwise)
		r.take(5)
		if bits != nil && string(bits.Mask) == flagOfReset {
			return ruleset.ResetFlag{}
		}
		return ruleset.NotSYN{}
	case ok && compared && string(code.Data) == fragmentationNeeded:
		r.take(4)
		return ruleset.FragmentationNeeded{}
	case ok && behind.Len == 1:
		e := ruleset.ICMPType{Protocol: number, Type: firstByte(r.at(3))}
		r.take(4)
		return e
	}
	r.take(2)
	return ruleset.Protocol{Number: number}
}

func (r *ruleReader) clamps() bool {
	_, ok := r.at(5).(*expr.Rt)
	return ok
}

// mark reads what is done with the packet's mark.
func (r *ruleReader) mark() ruleset.Expr {
	_, sets := r.at(2).(*expr.Meta)
	r.take(3)
	if sets {
		return ruleset.SetArrived{}
	}
	return ruleset.Arrived{}
}

// status reads which bit of a connection's status is asked for.
func (r *ruleReader) status() ruleset.Expr {
	bit, ok := r.at(1).(*expr.Bitwise)
	r.take(3)
	if ok && string(bit.Mask) == native32(statusConfirmed) {
		return ruleset.Unconfirmed{}
	}
	return ruleset.Translated{}
}

func (r *ruleReader) state() ruleset.Expr {
	mask, ok := r.at(1).(*expr.Bitwise)
	if !ok || len(mask.Mask) != 4 {
		return r.fail()
	}
	r.take(3)
	return ruleset.State{States: ruleset.CTState(fromNative32(string(mask.Mask)))}
}

// lookup reads the loads of a key and what is done with it.
func (r *ruleReader) lookup() ruleset.Expr {
	fields := r.fields()
	in, ok := r.at(0).(*expr.Lookup)
	update, updates := r.at(0).(*expr.Dynset)
	_, nat := r.at(0).(*expr.NAT)
	r.take(1)
	switch {
	case nat && len(fields) == 1:
		return ruleset.KeepSource{Field: fields[0]}
	case updates && len(fields) > 0:
		return ruleset.Update{Fields: fields, Set: update.SetName}
	case !ok || len(fields) == 0:
		return r.fail()
	case !in.IsDestRegSet && in.Invert:
		return ruleset.Lookup{Fields: fields, Op: ruleset.NotEqual, Set: in.SetName}
	case !in.IsDestRegSet:
		return ruleset.Lookup{Fields: fields, Set: in.SetName}
	case in.DestRegister == unix.NFT_REG_VERDICT:
		return ruleset.VerdictMap{Fields: fields, Map: in.SetName}
	}
	r.take(1)
	return ruleset.PriorityMap{Field: fields[0], Map: in.SetName}
}

func (r *ruleReader) fields() []ruleset.Field {
	var out []ruleset.Field
	for f, ok := fieldOf(r.at(0)); ok; f, ok = fieldOf(r.at(0)) {
		out = append(out, f)
		r.take(1)
		if _, swapped := r.at(0).(*expr.Byteorder); swapped {
			r.take(1)
		}
	}
	return out
}

// fieldOf tells which field an expression loads, into whatever register.
func fieldOf(e expr.Any) (ruleset.Field, bool) {
	var load any
	switch e := e.(type) {
	case *expr.Meta:
		load = expr.Meta{Key: e.Key, SourceRegister: e.SourceRegister}
	case *expr.Ct:
		load = expr.Ct{Key: e.Key, SourceRegister: e.SourceRegister, Direction: e.Direction}
	case *expr.Payload:
		p := *e
		p.DestRegister = 0
		load = p
	}
	f := slices.Index(loads[:], load)
	return ruleset.Field(f), f >= 0
}

func (r *ruleReader) fail() ruleset.Expr {
	r.failed = true
	return ruleset.Verdict{}
}

// verdictOf is no verdict if it is none of the language's.
func verdictOf(v *expr.Verdict) ruleset.Verdict {
	for kind := ruleset.Accept; int(kind) < len(verdicts); kind++ {
		if verdicts[kind] == v.Kind {
			return ruleset.Verdict{Kind: kind, Chain: v.Chain}
		}
	}
	return ruleset.Verdict{}
}

func nameOf(compared []byte) string {
	if len(compared) < unix.IFNAMSIZ {
		return string(compared) + "*"
	}
	return strings.TrimRight(string(compared), "\x00")
}

// firstByte is what a comparison of one byte compares with.
func firstByte(e expr.Any) byte {
	if cmp, ok := e.(*expr.Cmp); ok && len(cmp.Data) > 0 {
		return cmp.Data[0]
	}
	return 0
}

// parseComment reads the comment from a rule's user data: a sequence of type, length, value. (The reader in package
// userdata would fall over data that is cut short.)
func parseComment(data []byte) string {
	for len(data) >= 2 {
		typ, n := userdata.Type(data[0]), int(data[1])
		data = data[2:]
		if n > len(data) {
			return foreign
		}
		if typ == userdata.TypeComment {
			return text(data[:n])
		}
		data = data[n:]
	}
	return ""
}
