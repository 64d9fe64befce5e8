package nft

import (
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/kithnet/kith/policy/ruleset"
	"golang.org/x/sys/unix"
)

// appendElement appends one element as the library writes it: a plain interval is two elements, where it begins and
// the first key behind it.
func appendElement(list []nftables.SetElement, spec ruleset.SetSpec, c change) []nftables.SetElement {
	e := nftables.SetElement{Key: []byte(kernelKey(spec, c.Key.Low))}
	switch {
	case c.delete:
	case spec.Data == ruleset.TypeVerdict:
		e.VerdictData = kernelVerdict(c.Value.Verdict)
	case spec.Data == ruleset.TypeClassID:
		e.Val = []byte(native32(c.Value.Priority))
	}
	if isConcatOfIntervals(spec) {
		e.KeyEnd = []byte(kernelKey(spec, c.Key.High))
	}
	list = append(list, e)
	if end, ok := next(c.Key.High); ok && isPlainInterval(spec) {
		list = append(list, nftables.SetElement{Key: []byte(end), IntervalEnd: true})
	}
	return list
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

// shownElement is an element as the kernel shows it; end marks the first key behind an interval, all the element for
// every key, which has none itself.
type shownElement struct {
	key      ruleset.Key
	value    ruleset.Value
	end, all bool
}

func parseElements(spec ruleset.SetSpec, b []byte) []shownElement {
	var out []shownElement
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

func parseElement(spec ruleset.SetSpec, b []byte) shownElement {
	var e shownElement
	v := operandsOf(b)
	e.key.Low = kernelKey(spec, padded(spec, v.nested(unix.NFTA_SET_ELEM_KEY)))
	if isConcatOfIntervals(spec) {
		e.key.High = e.key.Low
		if high := v.nested(setElemKeyEnd); high != "" {
			e.key.High = high
		}
	}
	flags := number(v[unix.NFTA_SET_ELEM_FLAGS])
	e.end, e.all = flags&unix.NFT_SET_ELEM_INTERVAL_END != 0, flags&setElemAll != 0
	switch spec.Data {
	case ruleset.TypeVerdict:
		e.value.Verdict = verdictOf(parseVerdict(v[unix.NFTA_SET_ELEM_DATA]))
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
func elementsOf(spec ruleset.SetSpec, in []shownElement) map[ruleset.Key]ruleset.Value {
	out := make(map[ruleset.Key]ruleset.Value, len(in))
	if !isPlainInterval(spec) {
		for _, e := range in {
			out[e.key] = e.value
		}
		return out
	}
	slices.SortFunc(in, func(a, b shownElement) int {
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
