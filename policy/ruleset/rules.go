package ruleset

import (
	"strings"

	"github.com/kithnet/kith/policy"
)

// maxComment is what the kernel keeps of a rule's comment.
const maxComment = 127

// rules is the chain in the rule language. It looks at the other end of the connection: for what comes in at who
// opened it, for what goes out at the real server.
func (ch *chain) rules() []Rule {
	if ch.content.open {
		return []Rule{to(allowed), ch.last()}
	}
	other4, other6 := OriginalSource, OriginalSource6
	if ch.direction == policy.Egress {
		other4, other6 = ReplySource, ReplySource6
	}
	var rs []Rule
	if ch.has(setAny) || ch.has(setPort) || ch.has(setRange) {
		rs = append(rs, rule(PriorityNone{}), rule(PriorityMap{other4, mapIdentity4}), rule(PriorityMap{other6, mapIdentity6}))
	}
	rs = append(rs, ch.without(setAny, Priority)...)
	rs = append(rs, ch.both(setPort, Priority)...)
	rs = append(rs, ch.both(setRange, Priority)...)
	rs = append(rs, ch.without(setNet4, other4)...)
	rs = append(rs, ch.without(setNet6, other6)...)
	for _, set := range []string{setBlock4, setName4} {
		rs = append(rs, ch.both(set, other4)...)
	}
	for _, set := range []string{setBlock6, setName6} {
		rs = append(rs, ch.both(set, other6)...)
	}
	rs = append(rs, ch.both(setOpen)...)
	// A pod may always reach itself: asked last, since it seldom does.
	rs = append(rs, to(allowed, isIn(setSelf4, OriginalSource, ReplySource)), to(allowed, isIn(setSelf6, OriginalSource6, ReplySource6)))
	return append(rs, ch.last())
}

func (ch *chain) has(set string) bool {
	_, ok := ch.content.sets[set]
	return ok
}

// without is the rule for a set that names no ports.
func (ch *chain) without(set string, f Field) []Rule {
	if !ch.has(set) {
		return nil
	}
	return []Rule{to(allowed, Lookup{Fields: []Field{f}, Set: ch.name + set})}
}

// both is the rules for a set that names ports: the server's port, in each direction of the connection.
func (ch *chain) both(set string, fs ...Field) []Rule {
	if !ch.has(set) {
		return nil
	}
	key := func(port Field) []Field { return append(append([]Field{}, fs...), L4Proto, port) }
	return []Rule{
		to(allowed, Direction{Original}, Lookup{Fields: key(DestinationPort), Set: ch.name + set}),
		to(allowed, Direction{Reply}, Lookup{Fields: key(SourcePort), Set: ch.name + set}),
	}
}

// last drops what no rule allowed, and says whose policies they were.
func (ch *chain) last() Rule {
	names := make([]string, len(ch.policies))
	for i, p := range ch.policies {
		names[i] = p.String()
	}
	comment := strings.Join(names, ",")
	return Rule{Exprs: []Expr{Counter{}, Verdict{Kind: Drop}}, Comment: comment[:min(len(comment), maxComment)]}
}

func rule(es ...Expr) Rule { return Rule{Exprs: es} }

func to(chain string, es ...Expr) Rule {
	return Rule{Exprs: append(es, Verdict{Kind: Goto, Chain: chain})}
}

func call(chain string, es ...Expr) Rule {
	return Rule{Exprs: append(es, Verdict{Kind: Jump, Chain: chain})}
}

func accept(es ...Expr) Rule { return Rule{Exprs: append(es, Verdict{Kind: Accept})} }

// drop counts too: what is dropped should be seen.
func drop(es ...Expr) Rule { return Rule{Exprs: append(es, Counter{}, Verdict{Kind: Drop})} }
