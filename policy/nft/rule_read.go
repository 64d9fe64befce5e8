package nft

import (
	"slices"
	"strings"

	"github.com/kithnet/kith/policy/ruleset"
	"golang.org/x/sys/unix"
)

// commentOfRule is the type of a rule's comment in its user data.
const commentOfRule = 0

// foreign is the comment of a rule that the language cannot say. No rule of the compiler bears it.
const foreign = "not ours"

// ruleOf reads a rule back. The check at the end makes it exact: a rule that the writer would not have written
// just so is foreign.
func ruleOf(in []instr, userdata []byte, specs map[string]ruleset.SetSpec) ruleset.Rule {
	in = slices.DeleteFunc(slices.Clone(in), isIdleSwap)
	r := ruleReader{in: in}
	rule := ruleset.Rule{Exprs: r.exprs(), Comment: parseComment(userdata)}
	again, err := instrsOf(rule, specs)
	if r.failed || err != nil || !slices.Equal(again, in) {
		return ruleset.Rule{Comment: foreign}
	}
	return rule
}

// ruleReader reads expressions from instructions, left to right.
type ruleReader struct {
	in     []instr
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

// at is the i-th instruction from here, or none.
func (r *ruleReader) at(i int) instr {
	if i < len(r.in) {
		return r.in[i]
	}
	return instr{}
}

// take moves on by n instructions.
func (r *ruleReader) take(n int) { r.in = r.in[min(n, len(r.in)):] }

// dependency skips a check that the writer puts before fields of one family.
func (r *ruleReader) dependency() bool {
	in := r.at(0)
	family := in.op == opMeta && (in.key == unix.NFT_META_NFPROTO || in.key == unix.NFT_META_IIFTYPE)
	ethertype := in.op == opPayload && in.key == unix.NFT_PAYLOAD_LL_HEADER && in.off == 12
	if !family && !ethertype {
		return false
	}
	r.take(2)
	return true
}

func (r *ruleReader) expr() ruleset.Expr {
	in, compared := r.at(0), r.at(1).op == opCompare
	switch {
	case in.op == opVerdict:
		return r.verdict()
	case in.op == opCounter:
		r.take(1)
		return ruleset.Counter{}
	case in.op == opMasquerade:
		r.take(1)
		return ruleset.Masquerade{}
	case in.op == opImmediate:
		r.take(2)
		return ruleset.PriorityNone{}
	case in.op == opConnection && in.key == unix.NFT_CT_STATE:
		return r.state()
	case !compared:
		return r.lookup()
	}
	return r.comparison()
}

func (r *ruleReader) comparison() ruleset.Expr {
	in, cmp := r.at(0), r.at(1)
	switch {
	case in == load(ruleset.InInterface, firstRegister):
		r.take(2)
		return ruleset.Interface{Field: ruleset.InInterface, Op: ruleset.Op(cmp.key), Name: nameOf(cmp.data)}
	case in == load(ruleset.OutInterface, firstRegister):
		r.take(2)
		return ruleset.Interface{Field: ruleset.OutInterface, Op: ruleset.Op(cmp.key), Name: nameOf(cmp.data)}
	case in.op == opConnection && in.key == unix.NFT_CT_DIRECTION:
		r.take(2)
		return ruleset.Direction{Of: ruleset.CTDirection(firstByte(cmp.data))}
	case in == load(ruleset.L4Proto, firstRegister):
		return r.protocol()
	}
	return r.fail()
}

// protocol reads a protocol match, or what the writer puts behind one.
func (r *ruleReader) protocol() ruleset.Expr {
	number := firstByte(r.at(1).data)
	switch {
	case r.at(2) == transport(tcpFlags):
		r.take(5)
		return ruleset.NotSYN{}
	case r.at(2) == transport(0):
		e := ruleset.ICMPType{Protocol: number, Type: firstByte(r.at(3).data)}
		r.take(4)
		return e
	}
	r.take(2)
	return ruleset.Protocol{Number: number}
}

func (r *ruleReader) state() ruleset.Expr {
	mask := r.at(1).data
	if len(mask) != 4 {
		return r.fail()
	}
	r.take(3)
	return ruleset.State{States: ruleset.CTState(fromNative32(mask))}
}

func (r *ruleReader) verdict() ruleset.Expr {
	in := r.at(0)
	r.take(1)
	v, ok := verdictOf(in.key, in.data)
	if !ok {
		return r.fail()
	}
	return v
}

// lookup reads the loads of a key and what is done with it.
func (r *ruleReader) lookup() ruleset.Expr {
	fields := r.fields()
	in := r.at(0)
	r.take(1)
	switch {
	case len(fields) == 0:
		return r.fail()
	case in.op == opLookup:
		return ruleset.Lookup{Fields: fields, Op: ruleset.Op(in.key), Set: in.data}
	case in.op == opMap && in.off == unix.NFT_REG_VERDICT:
		return ruleset.VerdictMap{Fields: fields, Map: in.data}
	case in.op == opMap:
		r.take(1)
		return ruleset.PriorityMap{Field: fields[0], Map: in.data}
	}
	return r.fail()
}

func (r *ruleReader) fields() []ruleset.Field {
	var out []ruleset.Field
	for word := 0; word < 16; {
		f := slices.IndexFunc(loads[:], func(l instr) bool { l.reg = register(word); return l == r.at(0) })
		if f < 0 {
			break
		}
		out = append(out, ruleset.Field(f))
		word += words(ruleset.Field(f).Type())
		r.take(1)
		if r.at(0).op == opSwap {
			r.take(1)
		}
	}
	return out
}

func (r *ruleReader) fail() ruleset.Expr {
	r.failed = true
	return nil
}

func verdictOf(code uint32, chain string) (ruleset.Verdict, bool) {
	for kind, c := range verdicts {
		if kind != int(ruleset.VerdictNone) && uint32(int32(c)) == code {
			return ruleset.Verdict{Kind: ruleset.VerdictKind(kind), Chain: chain}, true
		}
	}
	return ruleset.Verdict{}, false
}

func nameOf(compared string) string {
	if len(compared) < unix.IFNAMSIZ {
		return compared + "*"
	}
	return strings.TrimRight(compared, "\x00")
}

func firstByte(s string) byte {
	if s == "" {
		return 0
	}
	return s[0]
}

// parseComment reads the comment from a rule's user data: a sequence of type, length, value.
func parseComment(userdata []byte) string {
	for len(userdata) >= 2 {
		typ, n := userdata[0], int(userdata[1])
		userdata = userdata[2:]
		if n > len(userdata) {
			return foreign
		}
		if typ == commentOfRule {
			return text(userdata[:n])
		}
		userdata = userdata[n:]
	}
	return ""
}

func userData(comment string) string {
	return string([]byte{commentOfRule, byte(len(comment) + 1)}) + comment + "\x00"
}
