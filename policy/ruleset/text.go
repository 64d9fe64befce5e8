package ruleset

import (
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/kithnet/kith/identity"
)

// String is the ruleset as text that the nft tool loads, in a fixed order.
func (r Ruleset) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "table inet %s {\n", Table)
	for _, name := range slices.Sorted(maps.Keys(r.Sets)) {
		s := r.Sets[name]
		fmt.Fprintf(&b, "\t%s %s {\n\t\t%s\n", s.kind(), name, strings.Join(s.properties(), "\n\t\t"))
		if len(s.Elements) > 0 {
			b.WriteString("\t\telements = {\n")
			for _, k := range slices.SortedFunc(maps.Keys(s.Elements), Key.Compare) {
				fmt.Fprintf(&b, "\t\t\t%s,\n", s.element(k, s.Elements[k]))
			}
			b.WriteString("\t\t}\n")
		}
		b.WriteString("\t}\n")
	}
	for _, name := range slices.Sorted(maps.Keys(r.Chains)) {
		c := r.Chains[name]
		fmt.Fprintf(&b, "\tchain %s {\n", name)
		if c.Hook != nil {
			fmt.Fprintf(&b, "\t\t%s\n", c.Hook)
		}
		for _, rule := range c.Rules {
			fmt.Fprintf(&b, "\t\t%s\n", rule)
		}
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
	return b.String()
}

// String is the hook's declaration in a chain.
func (h Hook) String() string {
	return fmt.Sprintf("type %s hook %s priority %d; policy accept;", h.Type, h.Name, h.Priority)
}

// String is the rule in nft's words.
func (r Rule) String() string {
	s := make([]string, len(r.Exprs))
	for i, e := range r.Exprs {
		s[i] = e.String()
	}
	if r.Comment != "" {
		s = append(s, fmt.Sprintf("comment %q", r.Comment))
	}
	return strings.Join(s, " ")
}

// String is the transaction as commands for nft -f, for a table that is there.
func (t Transaction) String() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	if t.Replace {
		line("delete table inet %s", Table)
	}
	for _, s := range t.AddSets {
		line("add %s inet %s %s { %s; }", s.kind(), Table, s.Name, strings.Join(s.properties(), "; "))
	}
	for _, c := range t.AddChains {
		if c.Hook != nil {
			line("add chain inet %s %s { %s }", Table, c.Name, c.Hook)
			continue
		}
		line("add chain inet %s %s", Table, c.Name)
	}
	for _, e := range t.DeleteElements {
		line("delete element inet %s %s { %s }", Table, e.Set, specFor(e.Set).element(e.Key, e.Value))
	}
	for _, e := range t.AddElements {
		line("add element inet %s %s { %s }", Table, e.Set, specFor(e.Set).element(e.Key, e.Value))
	}
	for _, c := range t.SetRules {
		line("flush chain inet %s %s", Table, c.Name)
		for _, r := range c.Rules {
			line("add rule inet %s %s %s", Table, c.Name, r)
		}
	}
	for _, c := range t.DeleteChains {
		line("delete chain inet %s %s", Table, c)
	}
	for _, s := range t.DeleteSets {
		line("delete set inet %s %s", Table, s)
	}
	return b.String()
}

// specFor is the specification of one of our sets by its name.
func specFor(name string) SetSpec {
	for _, s := range frameSets() {
		if s.Name == name {
			return s
		}
	}
	if spec, ok := learnedSpec(name); ok {
		return spec
	}
	if spec, ok := listSpec(name); ok {
		return spec
	}
	if n := strings.LastIndexByte(name, '_'); n > 0 {
		return specOf(name[:n], name[n:])
	}
	return SetSpec{Name: name}
}

func (s SetSpec) kind() string {
	if s.Data == TypeNone {
		return "set"
	}
	return "map"
}

func (s SetSpec) properties() []string {
	key := make([]string, len(s.Key))
	for i, t := range s.Key {
		key[i] = t.String()
	}
	word := "type "
	if s.Key[0] == TypeQuoted4 || s.Key[0] == TypeQuoted6 {
		word = "typeof "
	}
	typ := word + strings.Join(key, " . ")
	if s.Data != TypeNone {
		typ += " : " + s.Data.String()
	}
	if s.Learned {
		return []string{typ, fmt.Sprintf("size %d", LearnedSize), "flags dynamic,timeout", "timeout " + HeldFor}
	}
	if s.Interval {
		return []string{typ, "flags interval"}
	}
	return []string{typ}
}

func (s SetSpec) element(k Key, v Value) string {
	switch s.Data {
	case TypeVerdict:
		return s.key(k) + " : " + v.Verdict.String()
	case TypeClassID:
		return s.key(k) + " : " + classID(v.Priority)
	}
	return s.key(k)
}

func (s SetSpec) key(k Key) string {
	low := s.split(k.Low)
	high := low
	if k.High != "" {
		high = s.split(k.High)
	}
	out := make([]string, len(low))
	for i, l := range low {
		out[i] = s.Key[i].text(l)
		if high[i] != l {
			out[i] += "-" + s.Key[i].text(high[i])
		}
	}
	return strings.Join(out, " . ")
}

// text is a value as nft writes it.
func (t Type) text(v string) string {
	switch t {
	case TypeIfName:
		return fmt.Sprintf("%q", strings.TrimRight(v, "\x00"))
	case TypeEtherAddr:
		return strings.ReplaceAll(fmt.Sprintf("% x", v), " ", ":")
	case TypeIPv4Addr, TypeIPv6Addr:
		a, _ := netip.AddrFromSlice([]byte(v))
		return a.String()
	case TypeQuoted4, TypeQuoted6:
		return fmt.Sprintf("0x%x", v)
	case TypeInetProto:
		return strings.ToLower(identity.Protocol(v[0]).String())
	case TypeInetService:
		return fmt.Sprint(binary.BigEndian.Uint16([]byte(v)))
	case TypeClassID:
		return classID(binary.BigEndian.Uint32([]byte(v)))
	}
	return fmt.Sprintf("%x", v)
}

func classID(n uint32) string { return fmt.Sprintf("%x:%x", n>>16, n&0xffff) }
