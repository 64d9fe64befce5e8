package ruleset

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/kithnet/kith/policy"
)

const (
	maxClasses = 4    // how many classes a packet is asked for one after the other
	maxWays    = 4096 // how many rules the chains of a content's ports may have together
)

// ways send a packet by its port to the one chain that asks for the classes with this port, where there are too many to ask
// for all: what a packet costs must not grow with the number of policies.
type ways struct {
	ports  string // the map of ports to the chains
	chains []Chain
}

// portCut is ports that are of the same classes.
type portCut struct {
	portRange
	classes []int // sorted
}

// cutPorts cuts the ports of all classes where one of them begins or ends. It says no where that is too much.
func cutPorts(classes []class) ([]portCut, bool) {
	type bound struct {
		protocol uint8
		at       int // of the first port behind, where the class ends
		class    int
		ends     bool
	}
	var bounds []bound
	for i, c := range classes {
		for _, p := range c.open {
			bounds = append(bounds, bound{p.protocol, int(p.first), i, false}, bound{p.protocol, int(p.last) + 1, i, true})
		}
	}
	slices.SortFunc(bounds, func(a, b bound) int { return cmp.Or(cmp.Compare(a.protocol, b.protocol), cmp.Compare(a.at, b.at)) })
	var out []portCut
	var open []int
	work := 0
	for i, b := range bounds {
		place, _ := slices.BinarySearch(open, b.class)
		if b.ends {
			open = slices.Delete(open, place, place+1)
		} else {
			open = slices.Insert(open, place, b.class)
		}
		if i+1 == len(bounds) || len(open) == 0 || bounds[i+1].protocol == b.protocol && bounds[i+1].at == b.at {
			continue
		}
		if work += len(open); work > maxOverlap {
			return nil, false
		}
		out = append(out, portCut{portRange{b.protocol, uint16(b.at), uint16(bounds[i+1].at - 1)}, slices.Clone(open)})
	}
	return out, true
}

// finishClasses makes the ways to many classes, or else the list of each class's ports.
func (b *builder) finishClasses() {
	if len(b.classes) > maxClasses {
		b.ways = b.makeWays()
	}
	if b.ways == nil {
		for i, c := range b.classes {
			b.classes[i].ports = b.ports(c.open)
		}
	}
}

// makeWays makes the ways of a content, if they are not too many. One that passes to the next tier has none: from a chain
// that was jumped to, that would come back.
func (b *builder) makeWays() *ways {
	cuts, ok := cutPorts(b.classes)
	if !ok || b.action == policy.Pass {
		return nil
	}
	w := &ways{}
	names, rules := map[string]string{}, 0
	var keys []Key
	var values []Value
	for _, cut := range cuts {
		which := fmt.Sprint(cut.classes)
		if names[which] == "" {
			c := b.way(cut.classes, w.chains)
			if rules += len(c.Rules); rules > maxWays {
				return nil
			}
			w.chains, names[which] = append(w.chains, c), c.Name
		}
		keys = append(keys, intervalKey(portPart(cut.first, cut.last), protocolPart(cut.protocol)))
		values = append(values, Value{Verdict: Verdict{Kind: Jump, Chain: names[which]}})
	}
	w.ports = b.compiler.useList(listWays, keys, values)
	b.lists = append(b.lists, w.ports)
	return w
}

// way is the chain that asks for some classes. Its name, which none of the others has, says what is in it.
func (b *builder) way(classes []int, others []Chain) Chain {
	var c Chain
	var text strings.Builder
	other4, other6 := b.chain.others()
	for _, i := range classes {
		for _, peer := range b.classes[i].peers(b.prefix, other4, other6) {
			c.Rules = append(c.Rules, b.act(peer))
		}
	}
	for _, r := range c.Rules {
		fmt.Fprintln(&text, r)
	}
	for n := 0; c.Name == "" || slices.ContainsFunc(others, func(o Chain) bool { return o.Name == c.Name }); n++ {
		c.Name = b.prefix + "_to_" + b.compiler.hash(fmt.Sprintf("%d\n%s", n, text.String()))
	}
	return c
}

// rules sends on by the server's port, in each direction of the connection.
func (w *ways) rules() []Rule {
	return []Rule{
		rule(Direction{Original}, VerdictMap{[]Field{DestinationPort, L4Proto}, w.ports}),
		rule(Direction{Reply}, VerdictMap{[]Field{SourcePort, L4Proto}, w.ports}),
	}
}
