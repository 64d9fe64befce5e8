package identity

import (
	"encoding/binary"
	"maps"
	"slices"
	"strings"
	"unique"
)

// Labels is an interned, sorted label set. It implements labels.Labels of k8s.io/apimachinery, so that selectors
// match it. Ten thousand pods share their few hundred distinct words.
type Labels []label

type label struct{ key, value unique.Handle[string] }

// MakeLabels interns a label set.
func MakeLabels(m map[string]string) Labels {
	l := make(Labels, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		l = append(l, label{unique.Make(k), unique.Make(m[k])})
	}
	return l
}

// Has says whether the label exists.
func (l Labels) Has(key string) bool {
	_, ok := l.Lookup(key)
	return ok
}

// Get is the label's value, or nothing.
func (l Labels) Get(key string) string {
	v, _ := l.Lookup(key)
	return v
}

// Lookup is the label's value and whether the label exists.
func (l Labels) Lookup(key string) (string, bool) {
	n, ok := slices.BinarySearchFunc(l, key, func(l label, key string) int { return strings.Compare(l.key.Value(), key) })
	if !ok {
		return "", false
	}
	return l[n].value.Value(), true
}

// Map is the labels as a map of their own.
func (l Labels) Map() map[string]string {
	m := make(map[string]string, len(l))
	for _, x := range l {
		m[x.key.Value()] = x.value.Value()
	}
	return m
}

// String is key=value, separated by commas.
func (l Labels) String() string {
	s := make([]string, len(l))
	for i, x := range l {
		s[i] = x.key.Value() + "=" + x.value.Value()
	}
	return strings.Join(s, ",")
}

func (l Labels) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(l)))
	for _, x := range l {
		b = appendString(b, x.key.Value())
		b = appendString(b, x.value.Value())
	}
	return b
}
