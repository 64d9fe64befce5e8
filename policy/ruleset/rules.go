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
	other4, other6 := ch.others()
	var rs []Rule
	identities := slices.ContainsFunc(ch.contents, (*content).namesPods)
	if identities {
		rs = append(rs, rule(PriorityNone{}), rule(PriorityMap{other4, mapIdentity4}), rule(PriorityMap{other6, mapIdentity6}))
	}
	if slices.ContainsFunc(ch.contents, (*content).closes) {
		rs = append(rs, unknownRules(other4, other6)...)
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

// others are where the other end's address stands.
func (ch *chain) others() (four, six Field) {
	if ch.direction == policy.Egress {
		return ReplySource, ReplySource6
	}
	return OriginalSource, OriginalSource6
}

// rules is the look-ups of a content.
func (x *content) rules(other4, other6 Field) []Rule {
	if x.open {
		return []Rule{x.act()}
	}
	var rs []Rule
	in := func(set string, fs ...Field) {
		if set != "" {
			rs = append(rs, x.act(isIn(set, fs...)))
		}
	}
	both := func(set string, fs ...Field) { rs = append(rs, x.both(set, fs...)...) }
	in(x.set(setAny), Priority)
	both(x.set(setPort), Priority)
	in(x.nets.four, other4)
	in(x.nets.six, other6)
	both(x.blocks.four, other4)
	both(x.set(setName4), other4)
	both(x.blocks.six, other6)
	both(x.set(setName6), other6)
	if x.openings != "" {
		rs = append(rs, x.class(x.openings)...)
	}
	if x.ways != nil {
		rs = append(rs, x.ways.rules()...)
	} else {
		for _, c := range x.classes {
			for _, peer := range c.peers(x.prefix, other4, other6) {
				rs = append(rs, x.class(c.ports, peer)...)
			}
		}
	}
	for _, r := range x.byName {
		rs = append(rs, r.rules(x)...)
	}
	return rs
}

// set is the name of one of the content's sets, empty when it does not have it.
func (x *content) set(set string) string {
	if _, ok := x.sets[set]; !ok {
		return ""
	}
	return x.prefix + set
}

func (x *content) namesPods() bool {
	return x.set(setAny) != "" || x.set(setPort) != "" || slices.ContainsFunc(x.classes, func(c class) bool { return c.pods != "" })
}

// both is the rules for a set that names ports: the server's port, in each direction of the connection.
func (x *content) both(set string, fs ...Field) []Rule {
	if set == "" {
		return nil
	}
	key := func(port Field) []Field { return append(append([]Field{}, fs...), L4Proto, port) }
	return []Rule{
		x.act(Direction{Original}, isIn(set, key(DestinationPort)...)),
		x.act(Direction{Reply}, isIn(set, key(SourcePort)...)),
	}
}

// class is the rules for a list of ports and for what else must match. The port is asked for first: it is seldom one of
// another class.
func (x *content) class(ports string, peer ...Expr) []Rule {
	return []Rule{
		x.act(append([]Expr{Direction{Original}, isIn(ports, DestinationPort, L4Proto)}, peer...)...),
		x.act(append([]Expr{Direction{Reply}, isIn(ports, SourcePort, L4Proto)}, peer...)...),
	}
}

// peers are the look-ups of the class, of which one must match beside its ports.
func (c class) peers(prefix string, other4, other6 Field) []Expr {
	var out []Expr
	if c.pods != "" {
		out = append(out, isIn(prefix+c.pods, Priority))
	}
	if c.nets.four != "" {
		out = append(out, isIn(c.nets.four, other4))
	}
	if c.nets.six != "" {
		out = append(out, isIn(c.nets.six, other6))
	}
	return out
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
	var b strings.Builder
	for i, p := range policies {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(p.String())
		if b.Len() >= maxComment {
			break
		}
	}
	return b.String()[:min(b.Len(), maxComment)]
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
