// Package walk takes a packet through a ruleset as the kernel would, without a kernel.
//
// Input: a ruleset.Ruleset, a hook and a Packet with what connection tracking knows of it. Output: whether the packet
// goes on, and the rule that dropped it. Invariant: every expression of the rule language means here what it means in
// the kernel; an expression that looks at something the packet does not have does not match, nor does an Update that finds
// its set full. Walking changes no set. The packet is the first of its connection where that is new,
// and the only one for a long time: it is within every limit.
//
// Out of scope: making connections and routing; who walks says what state a packet's connection is in and by which
// interfaces it goes. Of address translation only masquerading is applied.
package walk

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy/ruleset"
)

// Packet is a packet at a hook.
type Packet struct {
	In, Out             string // interfaces; empty where there is none at this hook
	EtherSource         *ruleset.MAC
	Source, Destination netip.Addr
	Protocol            uint8
	Ports               *Ports // nil: a protocol without ports
	ICMPType, ICMPCode  uint8
	Quoted              netip.Addr // of an ICMP error: where the packet was for that it quotes
	Claimed             uint32     // of an ICMP error that a packet was too large: the size that fits
	TCPFlags            uint8      // the header's
	Arrived             bool       // at the output hook: the input hook saw it
	Conn                Conn
	Address             netip.Addr // of the node towards Out: what masquerading puts in for the source
}

const (
	tcp     = 6
	flagSYN = 2
	flagRST = 4
)

// Ports are a packet's own.
type Ports struct{ Source, Destination uint16 }

// Conn is what connection tracking knows. Original is who opened the connection, Reply who really answers.
type Conn struct {
	State           ruleset.CTState
	Direction       ruleset.CTDirection
	Original, Reply netip.Addr
	Translated      bool // its destination was rewritten
}

// Result is what became of a packet at a hook.
type Result struct {
	Dropped    bool
	By         string // the chain and rule that dropped it
	Masquerade bool
	Priority   uint32 // what is left in the scratch register
}

// Hook takes a packet through all base chains of a hook, in the order of their priorities.
func Hook(r ruleset.Ruleset, hook string, p Packet) (Result, error) {
	var bases []*ruleset.Chain
	for _, name := range slices.Sorted(maps.Keys(r.Chains)) {
		if c := r.Chains[name]; c.Hook != nil && c.Hook.Name == hook {
			bases = append(bases, c)
		}
	}
	slices.SortStableFunc(bases, func(a, b *ruleset.Chain) int { return int(a.Hook.Priority - b.Hook.Priority) })
	w := walker{ruleset: r, packet: p}
	for _, c := range bases {
		if c.Hook.Type == "nat" && (!w.tracked() || p.Conn.Direction == ruleset.Reply) {
			continue
		}
		v, err := w.chain(c, 0)
		if err != nil {
			return w.result, fmt.Errorf("walk %s: %w", c.Name, err)
		}
		if v == ruleset.Drop {
			w.result.Dropped = true
			break
		}
	}
	w.result.Priority = w.priority
	return w.result, nil
}

type walker struct {
	ruleset  ruleset.Ruleset
	packet   Packet
	priority uint32
	result   Result
}

// maxDepth is the kernel's limit of jumps (NFT_JUMP_STACK_SIZE).
const maxDepth = 16

// chain returns Accept, Drop, or VerdictNone when the chain ends and its caller goes on.
func (w *walker) chain(c *ruleset.Chain, depth int) (ruleset.VerdictKind, error) {
	if depth > maxDepth {
		return ruleset.Drop, fmt.Errorf("chain %s: too many jumps", c.Name)
	}
	for n, r := range c.Rules {
		v, err := w.rule(r)
		if err != nil {
			return ruleset.Drop, fmt.Errorf("chain %s rule %d: %w", c.Name, n, err)
		}
		switch v.Kind {
		case ruleset.VerdictNone:
			continue
		case ruleset.Drop:
			w.result.By = fmt.Sprintf("%s: %s", c.Name, r)
			return ruleset.Drop, nil
		case ruleset.Accept:
			return ruleset.Accept, nil
		case ruleset.Return:
			return ruleset.VerdictNone, nil
		}
		next := w.ruleset.Chains[v.Chain]
		if next == nil {
			return ruleset.Drop, fmt.Errorf("chain %s rule %d: no chain %s", c.Name, n, v.Chain)
		}
		kind, err := w.chain(next, depth+1)
		if err != nil || kind != ruleset.VerdictNone || v.Kind == ruleset.Goto {
			return kind, err
		}
	}
	return ruleset.VerdictNone, nil
}

// rule is the verdict of a rule, none when an expression does not match.
func (w *walker) rule(r ruleset.Rule) (ruleset.Verdict, error) {
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case ruleset.Verdict:
			return e, nil
		case ruleset.Reset:
			return ruleset.Verdict{Kind: ruleset.Drop}, nil
		case ruleset.VerdictMap:
			v, ok, err := w.find(e.Map, e.Fields)
			if err != nil {
				return ruleset.Verdict{}, err
			}
			if ok {
				return v.Verdict, nil
			}
			return ruleset.Verdict{}, nil
		}
		ok, err := w.match(e)
		if err != nil || !ok {
			return ruleset.Verdict{}, err
		}
	}
	return ruleset.Verdict{}, nil
}

// match says whether a rule goes on after an expression.
func (w *walker) match(e ruleset.Expr) (bool, error) {
	p := w.packet
	switch e := e.(type) {
	case ruleset.Interface:
		return w.matchInterface(e), nil
	case ruleset.State:
		return p.Conn.State&e.States != 0, nil
	case ruleset.Translated:
		return w.tracked() && p.Conn.Translated, nil
	case ruleset.Unconfirmed:
		return w.tracked() && p.Conn.State == ruleset.StateNew, nil
	case ruleset.Beyond:
		return false, nil
	case ruleset.Direction:
		return w.tracked() && p.Conn.Direction == e.Of, nil
	case ruleset.Arrived:
		return p.Arrived, nil
	case ruleset.Protocol:
		return p.Protocol == e.Number, nil
	case ruleset.NotSYN:
		const fin, ack = 1, 16
		return p.Protocol == tcp && p.TCPFlags&(fin|flagSYN|flagRST|ack) != flagSYN, nil
	case ruleset.ResetFlag:
		return p.Protocol == tcp && p.TCPFlags&flagRST != 0, nil
	case ruleset.ClampMSS:
		return p.Protocol == tcp && p.TCPFlags&flagSYN != 0, nil
	case ruleset.ICMPType:
		four := e.Protocol == 1
		return p.Protocol == e.Protocol && p.Source.Is4() == four && p.ICMPType == e.Type, nil
	case ruleset.FragmentationNeeded:
		return p.Protocol == 1 && p.Source.Is4() && p.ICMPType == 3 && p.ICMPCode == 4, nil
	case ruleset.Claims:
		return p.Protocol == e.Protocol && p.Claimed < uint32(e.Size), nil
	case ruleset.Lookup:
		if _, ok := w.key(e.Fields); !ok {
			return false, nil
		}
		_, found, err := w.find(e.Set, e.Fields)
		return found == (e.Op == ruleset.Equal), err
	case ruleset.Update:
		_, found, err := w.find(e.Set, e.Fields)
		_, ok := w.key(e.Fields)
		return err == nil && (found || ok && len(w.ruleset.Sets[e.Set].Elements) < ruleset.LearnedSize), err
	}
	return w.act(e)
}

// act does what changes the packet or the scratch register.
func (w *walker) act(e ruleset.Expr) (bool, error) {
	switch e := e.(type) {
	case ruleset.PriorityMap:
		v, ok, err := w.find(e.Map, []ruleset.Field{e.Field})
		if ok {
			w.priority = v.Priority
		}
		return ok, err
	case ruleset.PriorityNone:
		w.priority = 0
		return true, nil
	case ruleset.PriorityIsNone:
		return w.priority == 0, nil
	case ruleset.PriorityUnknown:
		w.priority = identity.Unknown
		return true, nil
	case ruleset.Counter, ruleset.SetArrived:
		return true, nil
	case ruleset.KeepWhole:
		return false, nil // it changes nothing that a rule looks at
	case ruleset.Masquerade:
		w.result.Masquerade = true
		w.packet.Source = w.packet.Address
		return true, nil
	case ruleset.KeepSource:
		return w.packet.Source.Is4() == (e.Field == ruleset.IPSource), nil
	case ruleset.SourceNAT:
		w.result.Masquerade = true
		w.packet.Source = e.To
		return true, nil
	}
	return false, fmt.Errorf("unknown expression %T", e)
}

func (w *walker) matchInterface(e ruleset.Interface) bool {
	name := w.packet.In
	if e.Field == ruleset.OutInterface {
		name = w.packet.Out
	}
	same := name == e.Name
	if prefix, wild := strings.CutSuffix(e.Name, "*"); wild {
		same = strings.HasPrefix(name, prefix)
	}
	return same == (e.Op == ruleset.Equal)
}

func (w *walker) tracked() bool {
	return w.packet.Conn.State&(ruleset.StateInvalid|ruleset.StateUntracked) == 0 && w.packet.Conn.State != 0
}

// find looks the fields up in a set.
func (w *walker) find(set string, fields []ruleset.Field) (ruleset.Value, bool, error) {
	s := w.ruleset.Sets[set]
	if s == nil {
		return ruleset.Value{}, false, fmt.Errorf("no set %s", set)
	}
	if len(s.Key) != len(fields) {
		return ruleset.Value{}, false, fmt.Errorf("set %s has %d fields, the rule %d", set, len(s.Key), len(fields))
	}
	for i, f := range fields {
		if f.Type() != s.Key[i] {
			return ruleset.Value{}, false, fmt.Errorf("set %s field %d is %s, the rule's %s", set, i, s.Key[i], f.Type())
		}
	}
	k, ok := w.key(fields)
	if !ok {
		return ruleset.Value{}, false, nil
	}
	if !s.Interval {
		v, ok := s.Elements[ruleset.Key{Low: k}]
		return v, ok, nil
	}
	for e, v := range s.Elements {
		if inside(s.SetSpec, e, k) {
			return v, true, nil
		}
	}
	return ruleset.Value{}, false, nil
}
