package ruleset

import (
	"slices"
	"strings"

	"github.com/kithnet/kith/policy"
)

// maxComment is what the kernel keeps of a rule's comment.
const maxComment = 127

// rules is the chain in the rule language. It looks at the other end of the connection: for what comes in at who
// opened it, for what goes out at the real server. A NetworkPolicy's chain ends with a drop; what the others do not
// decide returns.
func (ch *chain) rules() []Rule {
	other4, other6 := OriginalSource, OriginalSource6
	if ch.direction == policy.Egress {
		other4, other6 = ReplySource, ReplySource6
	}
	var rs []Rule
	identities := slices.ContainsFunc(ch.contents, (*content).namesPods)
	if identities {
		rs = append(rs, rule(PriorityNone{}), rule(PriorityMap{other4, mapIdentity4}), rule(PriorityMap{other6, mapIdentity6}))
	}
	for _, x := range ch.contents {
		rs = append(rs, x.rules(other4, other6)...)
	}
	switch {
	case ch.tier == policy.NetworkPolicy:
		// A pod may always reach itself: asked last, since it seldom does.
		rs = append(rs,
			to(allowed, isIn(setSelf4, OriginalSource, ReplySource)), to(allowed, isIn(setSelf6, OriginalSource6, ReplySource6)),
			Rule{[]Expr{Counter{}, Verdict{Kind: Drop}}, comment(ch.policies)})
	case identities:
		rs = append(rs, rule(PriorityNone{}))
	}
	return rs
}

// rules is the look-ups of a content.
func (x *content) rules(other4, other6 Field) []Rule {
	if x.open {
		return []Rule{x.act()}
	}
	rs := x.without(setAny, Priority)
	rs = append(rs, x.both(setPort, Priority)...)
	rs = append(rs, x.both(setRange, Priority)...)
	rs = append(rs, x.without(setNet4, other4)...)
	rs = append(rs, x.without(setNet6, other6)...)
	for _, set := range []string{setBlock4, setName4} {
		rs = append(rs, x.both(set, other4)...)
	}
	for _, set := range []string{setBlock6, setName6} {
		rs = append(rs, x.both(set, other6)...)
	}
	rs = append(rs, x.both(setOpen)...)
	for _, r := range x.byName {
		rs = append(rs, r.rules(x)...)
	}
	return rs
}

func (x *content) has(set string) bool {
	_, ok := x.sets[set]
	return ok
}

func (x *content) namesPods() bool { return x.has(setAny) || x.has(setPort) || x.has(setRange) }

// without is the rule for a set that names no ports.
func (x *content) without(set string, f Field) []Rule {
	if !x.has(set) {
		return nil
	}
	return []Rule{x.act(Lookup{Fields: []Field{f}, Set: x.prefix + set})}
}

// both is the rules for a set that names ports: the server's port, in each direction of the connection.
func (x *content) both(set string, fs ...Field) []Rule {
	if !x.has(set) {
		return nil
	}
	key := func(port Field) []Field { return append(append([]Field{}, fs...), L4Proto, port) }
	return []Rule{
		x.act(Direction{Original}, Lookup{Fields: key(DestinationPort), Set: x.prefix + set}),
		x.act(Direction{Reply}, Lookup{Fields: key(SourcePort), Set: x.prefix + set}),
	}
}

// act does with what the expressions match what the content is for. What is denied is counted, under the names of the
// policies.
func (x *content) act(es ...Expr) Rule {
	switch x.action {
	case policy.Deny:
		return Rule{append(es, Counter{}, Verdict{Kind: Drop}), comment(x.policies)}
	case policy.Pass:
		return to(passed, es...)
	}
	return to(allowed, es...)
}

func comment(policies []policy.Name) string {
	names := make([]string, len(policies))
	for i, p := range policies {
		names[i] = p.String()
	}
	comment := strings.Join(names, ",")
	return comment[:min(len(comment), maxComment)]
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
