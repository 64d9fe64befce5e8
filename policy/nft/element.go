package nft

import (
	"slices"
	"strings"

	"github.com/kithnet/kith/policy/ruleset"
	"golang.org/x/sys/unix"
)

const (
	verbAddElement    = "add to set"
	verbDeleteElement = "delete from set"
)

// element puts one element into the open list of its set, or starts a list. The elements of a list are added or
// deleted in one message, which the kernel finds the set for only once.
func (m *batch) element(typ uint16, spec ruleset.SetSpec, c ruleset.ElementChange) {
	if m.list != 0 && (m.listType != typ || m.messages[len(m.messages)-1].name != c.Set || len(m.b)-m.list > maxList) {
		m.closeList()
	}
	if m.list == 0 {
		m.openList(typ, c.Set)
	}
	if !spec.Interval || len(spec.Key) > 1 {
		m.point(typ, spec, c)
		return
	}
	m.point(typ, spec, ruleset.ElementChange{Key: ruleset.Key{Low: c.Key.Low}, Value: c.Value})
	if end, ok := next(c.Key.High); ok {
		m.endOfInterval(end)
	}
}

func (m *batch) openList(typ uint16, set string) {
	verb, flags := verbAddElement, uint16(unix.NLM_F_CREATE)
	if typ == unix.NFT_MSG_DELSETELEM {
		verb, flags = verbDeleteElement, 0
	}
	m.begin(typ, flags, verb, set)
	m.str(unix.NFTA_SET_ELEM_LIST_TABLE, ruleset.Table)
	m.str(unix.NFTA_SET_ELEM_LIST_SET, set)
	m.list, m.listType = m.open(unix.NFTA_SET_ELEM_LIST_ELEMENTS), typ
}

// closeList ends the message that elements were put into. Every other message must wait for it.
func (m *batch) closeList() {
	if m.list == 0 {
		return
	}
	m.shut(m.list)
	m.end(m.messages[len(m.messages)-1].start)
	m.list = 0
}

func (m *batch) point(typ uint16, spec ruleset.SetSpec, c ruleset.ElementChange) {
	elem := m.open(unix.NFTA_LIST_ELEM)
	m.value(unix.NFTA_SET_ELEM_KEY, kernelKey(spec, c.Key.Low))
	if spec.Interval && len(spec.Key) > 1 {
		m.value(setElemKeyEnd, kernelKey(spec, c.Key.High))
	}
	if typ == unix.NFT_MSG_NEWSETELEM {
		switch spec.Data {
		case ruleset.TypeVerdict:
			m.verdict(unix.NFTA_SET_ELEM_DATA, verdictCode(c.Value.Verdict.Kind), c.Value.Verdict.Chain)
		case ruleset.TypeClassID:
			m.value(unix.NFTA_SET_ELEM_DATA, native32(c.Value.Priority))
		}
	}
	m.shut(elem)
}

func (m *batch) endOfInterval(end string) {
	elem := m.open(unix.NFTA_LIST_ELEM)
	m.value(unix.NFTA_SET_ELEM_KEY, end)
	m.u32(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
	m.shut(elem)
}

// kernelKey changes a key between network byte order and what the kernel holds. It is its own inverse. Sets without
// intervals hold a classid in the machine's order; with intervals a rule swaps it first, so that sizes compare.
func kernelKey(spec ruleset.SetSpec, key string) string {
	if spec.Interval || !slices.Contains(spec.Key, ruleset.TypeClassID) || native32(1)[0] == 0 {
		return key
	}
	b, at := []byte(key), 0
	for _, t := range spec.Key {
		if t == ruleset.TypeClassID {
			slices.Reverse(b[at : at+4])
		}
		at += 4 * words(t)
	}
	return string(b)
}

// next is the key after a key, if there is one.
func next(key string) (string, bool) {
	b := []byte(key)
	for i := len(b) - 1; i >= 0; i-- {
		b[i]++
		if b[i] != 0 {
			return string(b), true
		}
	}
	return "", false
}

// previous is the key before one that is not zero.
func previous(key string) string {
	b := []byte(key)
	for i := len(b) - 1; i >= 0; i-- {
		b[i]--
		if b[i] != 0xff {
			break
		}
	}
	return string(b)
}

// kernelElement is an element as the kernel shows it; end marks the first key behind an interval.
type kernelElement struct {
	key   ruleset.Key
	value ruleset.Value
	end   bool
}

func parseElements(spec ruleset.SetSpec, b []byte) []kernelElement {
	var out []kernelElement
	for _, list := range attributes(b) {
		if list.typ != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			continue
		}
		for _, elem := range attributes(list.data) {
			out = append(out, parseElement(spec, elem.data))
		}
	}
	return out
}

func parseElement(spec ruleset.SetSpec, b []byte) kernelElement {
	var e kernelElement
	v := operandsOf(b)
	e.key.Low = kernelKey(spec, padded(spec, v.nested(unix.NFTA_SET_ELEM_KEY)))
	if spec.Interval && len(spec.Key) > 1 {
		e.key.High = e.key.Low
		if high := v.nested(setElemKeyEnd); high != "" {
			e.key.High = high
		}
	}
	e.end = v.u32(unix.NFTA_SET_ELEM_FLAGS)&unix.NFT_SET_ELEM_INTERVAL_END != 0
	switch data := v.data[unix.NFTA_SET_ELEM_DATA]; spec.Data {
	case ruleset.TypeVerdict:
		e.value.Verdict, _ = verdictOf(parseVerdict(data))
	case ruleset.TypeClassID:
		if p := v.nested(unix.NFTA_SET_ELEM_DATA); len(p) == 4 {
			e.value.Priority = fromNative32(p)
		}
	}
	return e
}

// padded guards the code above against a key that is shorter than its set says.
func padded(spec ruleset.SetSpec, key string) string {
	if n := keyLen(spec.Key); len(key) < n {
		return key + strings.Repeat("\x00", n-len(key))
	}
	return key
}

// elementsOf joins what the kernel shows into elements: a plain interval is two entries there.
func elementsOf(spec ruleset.SetSpec, in []kernelElement) map[ruleset.Key]ruleset.Value {
	out := make(map[ruleset.Key]ruleset.Value, len(in))
	if !spec.Interval || len(spec.Key) > 1 {
		for _, e := range in {
			out[e.key] = e.value
		}
		return out
	}
	slices.SortFunc(in, func(a, b kernelElement) int {
		if c := strings.Compare(a.key.Low, b.key.Low); c != 0 || a.end == b.end {
			return c
		}
		if a.end {
			return -1
		}
		return 1
	})
	for i, e := range in {
		if e.end {
			continue
		}
		e.key.High = strings.Repeat("\xff", len(e.key.Low))
		if i+1 < len(in) {
			e.key.High = previous(in[i+1].key.Low)
		}
		out[e.key] = e.value
	}
	return out
}
