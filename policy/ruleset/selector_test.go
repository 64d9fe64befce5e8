package ruleset

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/kithnet/kith/identity"
)

// FuzzSelector: selectors that go by one name select the same, and interned labels are selected as a plain set is.
func FuzzSelector(f *testing.F) {
	f.Add("a=b", "a in (b)", "a=b,c=d")
	f.Add("", "!a", "")
	f.Add("a notin (b,c),d", "d,a notin (c,b)", "d=")
	f.Add("x.y/z>5", "x.y/z>05", "x.y/z=6")
	f.Fuzz(func(t *testing.T, one, other, set string) {
		a, err := labels.Parse(one)
		if err != nil {
			return
		}
		b, err := labels.Parse(other)
		if err != nil {
			return
		}
		m := map[string]string{}
		for _, pair := range strings.Split(set, ",") {
			k, v, _ := strings.Cut(pair, "=")
			m[k] = v
		}
		plain, interned := labels.Set(m), identity.MakeLabels(m)
		for _, s := range []labels.Selector{a, b} {
			if s.Matches(plain) != s.Matches(interned) {
				t.Errorf("%q matches %v: plain %t, interned %t", s, m, s.Matches(plain), s.Matches(interned))
			}
		}
		if selectorName(a) == selectorName(b) && a.Matches(plain) != b.Matches(plain) {
			t.Errorf("%q and %q go by the name %q and do not match %v alike", one, other, selectorName(a), m)
		}
	})
}

func TestSelectorNames(t *testing.T) {
	names := map[string]bool{}
	for _, s := range []labels.Selector{nil, labels.Nothing(), labels.Everything()} {
		names[selectorName(s)] = true
	}
	if len(names) != 3 {
		t.Errorf("no selector, nothing and everything share a name: %v", names)
	}
}
