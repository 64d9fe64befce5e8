package nft

import (
	"net/netip"
	"strings"

	"github.com/kithnet/kith/policy/ruleset"
)

// everything is a ruleset with every type, expression and verdict of the language.
func everything() ruleset.Ruleset {
	r := ruleset.Ruleset{Sets: map[string]*ruleset.Set{}, Chains: map[string]*ruleset.Chain{}}
	setsOfEverything(r)
	chainsOfEverything(r)
	return r
}

func setsOfEverything(r ruleset.Ruleset) {
	const (
		name, mac, ip4, ip6 = ruleset.TypeIfName, ruleset.TypeEtherAddr, ruleset.TypeIPv4Addr, ruleset.TypeIPv6Addr
		proto, port, class  = ruleset.TypeInetProto, ruleset.TypeInetService, ruleset.TypeClassID
	)
	jump := ruleset.Value{Verdict: ruleset.Verdict{Kind: ruleset.Jump, Chain: "in_1"}}
	veth := "kith-0123456789\x00"
	putSet(r, "identity4", set{key: types{ip4}, data: class}, exact(ip("10.1.0.5")), ruleset.Value{Priority: 0x89abcdef})
	putSet(r, "identity6", set{key: types{ip6}, data: class}, exact(ip("fd00::5")), ruleset.Value{Priority: 0x10002})
	putSet(r, "ingress4", set{key: types{ip4}, data: ruleset.TypeVerdict}, exact(ip("10.1.0.5")), jump)
	putSet(r, "ingress6", set{key: types{ip6}, data: ruleset.TypeVerdict}, exact(ip("fd00::5")), jump)
	putSet(r, "self4", set{key: types{ip4, ip4}}, exact(ip("10.1.0.5"), ip("10.1.0.5")), ruleset.Value{})
	putSet(r, "self6", set{key: types{ip6, ip6}}, exact(ip("fd00::5"), ip("fd00::5")), ruleset.Value{})
	putSet(r, "pods4", set{key: types{name, mac, ip4}}, exact(veth, "\x02\x00\x00\x00\x00\x01", ip("10.1.0.5")), ruleset.Value{})
	putSet(r, "pods6", set{key: types{name, mac, ip6}}, exact(veth, "\x02\x00\x00\x00\x00\x01", ip("fd00::5")), ruleset.Value{})
	putSet(r, "opened", set{key: types{name}}, exact(veth), ruleset.Value{})
	putSet(r, "names", set{key: types{proto}}, exact("\x06"), ruleset.Value{})
	putSet(r, "subjects4", set{key: types{ip4}}, exact(ip("10.1.0.5")), ruleset.Value{})
	putSet(r, "subjects6", set{key: types{ip6}}, exact(ip("fd00::5")), ruleset.Value{})
	putSet(r, "cluster4", set{key: types{ip4}, interval: true}, between(ip("10.0.0.0"), ip("10.255.255.255")), ruleset.Value{})
	r.Sets["cluster4"].Elements[between(ip("11.0.0.0"), ip("11.0.0.6"))] = ruleset.Value{}
	r.Sets["cluster4"].Elements[between(ip("250.0.0.0"), ip("255.255.255.255"))] = ruleset.Value{}
	putSet(r, "cluster6", set{key: types{ip6}, interval: true}, between(ip("fd00::"), ip("fd00::ffff")), ruleset.Value{})
	putSet(r, "in_1_any", set{key: types{class}}, exact("\x89\xab\xcd\xef"), ruleset.Value{})
	putSet(r, "in_1_port", set{key: types{class, proto, port}}, exact("\x89\xab\xcd\xef", "\x06", "\x00\x50"), ruleset.Value{})
	putSet(r, "in_1_range", set{key: types{class, proto, port}, interval: true},
		ruleset.Key{Low: exact("\x89\xab\xcd\xef", "\x06", "\x00\x50").Low, High: exact("\x89\xab\xcd\xef", "\x06", "\x00\x5a").Low}, ruleset.Value{})
	putSet(r, "in_1_block4", set{key: types{ip4, proto, port}, interval: true},
		ruleset.Key{Low: exact(ip("10.0.0.0"), "\x00", "\x00\x00").Low, High: exact(ip("10.255.255.255"), "\xff", "\xff\xff").Low}, ruleset.Value{})
	putSet(r, "in_1_block6", set{key: types{ip6, proto, port}, interval: true},
		ruleset.Key{Low: exact(ip("fd00::"), "\x06", "\x00\x01").Low, High: exact(ip("fd00::ffff"), "\x06", "\x00\x01").Low}, ruleset.Value{})
	putSet(r, "ports_1", set{key: types{port, proto}, interval: true},
		ruleset.Key{Low: exact("\x00\x00", "\x84").Low, High: exact("\xff\xff", "\x84").Low}, ruleset.Value{})
	putSet(r, "in_1_any.1", set{key: types{class}}, exact("\x89\xab\xcd\xef"), ruleset.Value{})
	putSet(r, "ways_1", set{key: types{port, proto}, data: ruleset.TypeVerdict, interval: true},
		ruleset.Key{Low: exact("\x00\x50", "\x06").Low, High: exact("\x00\x5a", "\x06").Low}, ruleset.Value{Verdict: ruleset.Verdict{Kind: ruleset.Jump, Chain: "empty"}})
	pairs4 := ruleset.SetSpec{Name: "told4_www.example.com", Key: types{ip4, ip4}, Learned: true}
	pairs6 := ruleset.SetSpec{Name: "held6_.a_b.example.com", Key: types{ip6, ip6}, Learned: true}
	for _, s := range []ruleset.SetSpec{pairs4, pairs6} {
		r.Sets[s.Name] = &ruleset.Set{SetSpec: s, Elements: map[ruleset.Key]ruleset.Value{}}
	}
	putSet(r, "proved4", set{key: types{ruleset.TypeQuoted4}, data: ruleset.TypeVerdict}, exact(ip("10.9.0.2")), ruleset.Value{Verdict: ruleset.Verdict{Kind: ruleset.Jump, Chain: "proved4_1500"}})
	putSet(r, "proved6", set{key: types{ruleset.TypeQuoted6}, data: ruleset.TypeVerdict}, exact(ip("fd00::2")), ruleset.Value{Verdict: ruleset.Verdict{Kind: ruleset.Jump, Chain: "proved6_1400"}})
	putSet(r, "tunnels", set{key: types{proto, port}}, exact("\x11", "\xca\x6c"), ruleset.Value{})
	putSet(r, "in_1_empty", set{key: types{class, proto, port}, interval: true}, ruleset.Key{}, ruleset.Value{})
	delete(r.Sets["in_1_empty"].Elements, ruleset.Key{})
}

func chainsOfEverything(r ruleset.Ruleset) {
	type f = []ruleset.Field
	accept, drop := ruleset.Verdict{Kind: ruleset.Accept}, ruleset.Verdict{Kind: ruleset.Drop}
	goTo := ruleset.Verdict{Kind: ruleset.Goto, Chain: "allowed"}
	subject := f{ruleset.Priority, ruleset.L4Proto, ruleset.DestinationPort}
	answer := f{ruleset.Priority, ruleset.L4Proto, ruleset.SourcePort}
	putChain(r, "allowed", nil, e{ruleset.PriorityNone{}})
	putChain(r, "empty", nil)
	putChain(r, "names", nil,
		e{ruleset.Lookup{Fields: f{ruleset.OriginalSource, ruleset.ReplySource}, Set: "told4_www.example.com"},
			ruleset.Update{Fields: f{ruleset.OriginalSource, ruleset.ReplySource}, Set: "told4_www.example.com"}, goTo},
		e{ruleset.State{States: ruleset.StateEstablished}, ruleset.Lookup{Fields: f{ruleset.OriginalSource6, ruleset.ReplySource6}, Set: "held6_.a_b.example.com"},
			ruleset.Update{Fields: f{ruleset.OriginalSource6, ruleset.ReplySource6}, Set: "held6_.a_b.example.com"}, accept},
	)
	putChain(r, "in_1", nil,
		e{ruleset.PriorityNone{}},
		e{ruleset.PriorityMap{Field: ruleset.OriginalSource, Map: "identity4"}},
		e{ruleset.PriorityMap{Field: ruleset.OriginalSource6, Map: "identity6"}},
		e{ruleset.Lookup{Fields: f{ruleset.Priority}, Set: "in_1_any"}, goTo},
		e{ruleset.Direction{Of: ruleset.Original}, ruleset.Lookup{Fields: subject, Set: "in_1_port"}, goTo},
		e{ruleset.Direction{Of: ruleset.Reply}, ruleset.Lookup{Fields: answer, Set: "in_1_port"}, goTo},
		e{ruleset.Direction{Of: ruleset.Original}, ruleset.Lookup{Fields: subject, Set: "in_1_range"}, goTo},
		e{ruleset.Direction{Of: ruleset.Reply}, ruleset.Lookup{Fields: answer, Set: "in_1_range"}, goTo},
		e{ruleset.Lookup{Fields: f{ruleset.OriginalSource, ruleset.L4Proto, ruleset.DestinationPort}, Set: "in_1_block4"}, goTo},
		e{ruleset.Lookup{Fields: f{ruleset.OriginalSource6, ruleset.L4Proto, ruleset.SourcePort}, Set: "in_1_block6"}, goTo},
		e{ruleset.Lookup{Fields: f{ruleset.DestinationPort, ruleset.L4Proto}, Set: "ports_1"}, ruleset.Lookup{Fields: f{ruleset.Priority}, Set: "in_1_any.1"}, goTo},
		e{ruleset.Direction{Of: ruleset.Reply}, ruleset.VerdictMap{Fields: f{ruleset.SourcePort, ruleset.L4Proto}, Map: "ways_1"}},
		e{ruleset.State{States: ruleset.StateRelated}, ruleset.Protocol{Number: 1}, goTo},
		e{ruleset.State{States: ruleset.StateRelated}, ruleset.ICMPType{Protocol: 1, Type: 3}, goTo},
		e{ruleset.State{States: ruleset.StateRelated}, ruleset.ICMPType{Protocol: 58, Type: 2}, goTo},
		e{ruleset.Translated{}, ruleset.Counter{}, drop},
		e{ruleset.PriorityIsNone{}, ruleset.Lookup{Fields: f{ruleset.Priority}, Set: "in_1_any"}, ruleset.PriorityUnknown{}},
		e{ruleset.ResetFlag{}, accept},
		e{ruleset.Protocol{Number: 6}, ruleset.Lookup{Fields: f{ruleset.IPSource}, Set: "subjects4"}, ruleset.Counter{}, ruleset.Reset{}},
		e{ruleset.SetArrived{}},
		e{ruleset.Arrived{}, accept},
		e{ruleset.Unconfirmed{}, ruleset.Beyond{PerSecond: 32, Burst: 64}, ruleset.Counter{}, drop},
		e{ruleset.Counter{}, drop},
	)
	r.Chains["in_1"].Rules[17].Comment = "ns/policy,ns/policy-2"
	r.Chains["in_1"].Rules[0].Comment = strings.Repeat("x", maxComment)
	putChain(r, "forward", &ruleset.Hook{Type: "filter", Name: "forward", Priority: 0},
		e{ruleset.ClampMSS{}},
		e{ruleset.Lookup{Fields: f{ruleset.OriginalSource, ruleset.ReplySource}, Set: "self4"}, accept},
		e{ruleset.Lookup{Fields: f{ruleset.OriginalSource6, ruleset.ReplySource6}, Set: "self6"}, accept},
		e{ruleset.State{States: ruleset.StateInvalid | ruleset.StateUntracked}, ruleset.Verdict{Kind: ruleset.Jump, Chain: "in_1"}},
		e{ruleset.State{States: ruleset.StateNew}, ruleset.NotSYN{}, drop},
		e{ruleset.State{States: ruleset.StateEstablished}, ruleset.Verdict{Kind: ruleset.Return}},
		e{ruleset.VerdictMap{Fields: f{ruleset.ReplySource}, Map: "ingress4"}},
		e{ruleset.VerdictMap{Fields: f{ruleset.ReplySource6}, Map: "ingress6"}},
	)
	putChain(r, "guard", &ruleset.Hook{Type: "filter", Name: "prerouting", Priority: -300},
		e{ruleset.Interface{Field: ruleset.InInterface, Name: "kith-*"}, ruleset.Lookup{Fields: f{ruleset.InInterface, ruleset.EtherSource, ruleset.IPSource}, Op: ruleset.NotEqual, Set: "pods4"}, drop},
		e{ruleset.Interface{Field: ruleset.InInterface, Name: "kith-*"}, ruleset.Lookup{Fields: f{ruleset.InInterface, ruleset.EtherSource, ruleset.IP6Source}, Op: ruleset.NotEqual, Set: "pods6"}, drop},
		e{ruleset.Interface{Field: ruleset.InInterface, Name: "kith-*"}, ruleset.ICMPType{Protocol: 58, Type: 134}, drop},
		e{ruleset.Interface{Field: ruleset.InInterface, Op: ruleset.NotEqual, Name: "kith0"}, ruleset.Lookup{Fields: f{ruleset.IPSource}, Set: "cluster4"}, ruleset.Counter{}, drop},
		e{ruleset.Interface{Field: ruleset.InInterface, Op: ruleset.NotEqual, Name: "kith0"}, ruleset.Lookup{Fields: f{ruleset.IP6Source}, Set: "cluster6"}, ruleset.Counter{}, drop},
		e{ruleset.Lookup{Fields: f{ruleset.IPSource}, Set: "subjects4"}, ruleset.Lookup{Fields: f{ruleset.IPDestination}, Op: ruleset.NotEqual, Set: "cluster4"}, drop},
		e{ruleset.Lookup{Fields: f{ruleset.L4Proto}, Set: "names"}, accept},
	)
	putChain(r, "after", &ruleset.Hook{Type: "filter", Name: "postrouting", Priority: 150},
		e{ruleset.Interface{Field: ruleset.OutInterface, Name: "kith-*"}, ruleset.Lookup{Fields: f{ruleset.OutInterface}, Op: ruleset.NotEqual, Set: "opened"}, drop},
		e{ruleset.Interface{Field: ruleset.OutInterface, Op: ruleset.NotEqual, Name: "kith-*"}, ruleset.Lookup{Fields: f{ruleset.IP6Destination}, Set: "cluster6"}, drop},
	)
	putChain(r, "proved4_1500", nil, e{ruleset.Claims{Protocol: 1, Size: 1500}, ruleset.Counter{}, drop})
	putChain(r, "proved6_1400", nil, e{ruleset.Claims{Protocol: 58, Size: 1400}, ruleset.Counter{}, drop})
	putChain(r, "output", &ruleset.Hook{Type: "filter", Name: "output", Priority: 10},
		e{ruleset.Lookup{Fields: f{ruleset.L4Proto, ruleset.SourcePort}, Set: "tunnels"}, ruleset.KeepWhole{}}, e{ruleset.Counter{}})
	putChain(r, "input", &ruleset.Hook{Type: "filter", Name: "input", Priority: -5},
		e{ruleset.FragmentationNeeded{}, ruleset.VerdictMap{Fields: f{ruleset.QuotedDestination}, Map: "proved4"}},
		e{ruleset.ICMPType{Protocol: 58, Type: 2}, ruleset.VerdictMap{Fields: f{ruleset.QuotedDestination6}, Map: "proved6"}},
		e{ruleset.Counter{}, accept})
	putChain(r, "nat", &ruleset.Hook{Type: "nat", Name: "postrouting", Priority: 100},
		e{ruleset.Lookup{Fields: f{ruleset.IPDestination}, Op: ruleset.NotEqual, Set: "cluster4"}, ruleset.Masquerade{}},
		e{ruleset.Lookup{Fields: f{ruleset.IPSource}, Op: ruleset.NotEqual, Set: "subjects4"}, ruleset.SourceNAT{To: netip.MustParseAddr("10.244.1.1")}},
		e{ruleset.Lookup{Fields: f{ruleset.IPSource}, Set: "subjects4"}, ruleset.KeepSource{Field: ruleset.IPSource}},
		e{ruleset.Interface{Field: ruleset.OutInterface, Name: "kith0"}, ruleset.KeepSource{Field: ruleset.IP6Source}},
		e{ruleset.Lookup{Fields: f{ruleset.IP6Source}, Set: "cluster6"}, ruleset.SourceNAT{To: netip.MustParseAddr("fd00:1::1")}})
}

type (
	e     = []ruleset.Expr
	types = []ruleset.Type
	set   struct {
		key      []ruleset.Type
		data     ruleset.Type
		interval bool
	}
)

func putSet(r ruleset.Ruleset, name string, s set, k ruleset.Key, v ruleset.Value) {
	r.Sets[name] = &ruleset.Set{
		SetSpec:  ruleset.SetSpec{Name: name, Key: s.key, Data: s.data, Interval: s.interval},
		Elements: map[ruleset.Key]ruleset.Value{k: v},
	}
}

func putChain(r ruleset.Ruleset, name string, hook *ruleset.Hook, rules ...[]ruleset.Expr) {
	c := &ruleset.Chain{ChainSpec: ruleset.ChainSpec{Name: name, Hook: hook}}
	for _, exprs := range rules {
		c.Rules = append(c.Rules, ruleset.Rule{Exprs: exprs})
	}
	r.Chains[name] = c
}

// exact is the key of an element without intervals; fields of a concatenation are padded.
func exact(fields ...string) ruleset.Key {
	if len(fields) == 1 {
		return ruleset.Key{Low: fields[0]}
	}
	var k strings.Builder
	for _, f := range fields {
		k.WriteString(f + strings.Repeat("\x00", (4-len(f)%4)%4))
	}
	return ruleset.Key{Low: k.String()}
}

func between(low, high string) ruleset.Key { return ruleset.Key{Low: low, High: high} }

func ip(s string) string { return string(netip.MustParseAddr(s).AsSlice()) }
