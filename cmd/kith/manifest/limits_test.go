package manifest

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/kithnet/kith/deploy"
	policykube "github.com/kithnet/kith/policy/kube"
)

func definition(t *testing.T) *limits {
	t.Helper()
	l, err := limitsOf(deploy.ClusterNetworkPolicies(), "v1beta1")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestVersionsHaveTheSameLimits: a policy is read the same, whichever version it names.
func TestVersionsHaveTheSameLimits(t *testing.T) {
	for _, version := range policykube.ClusterVersions() {
		l, err := limitsOf(deploy.ClusterNetworkPolicies(), version)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(l, definition(t)) {
			t.Errorf("%s has other limits than the newest", version)
		}
	}
}

// TestEveryLimitHolds: for every limit in the definition of ClusterNetworkPolicy a value that just keeps it is taken,
// and one that just breaks it is refused, at its field.
func TestEveryLimitHolds(t *testing.T) {
	spec := definition(t)
	tried := map[string]int{}
	each(spec, nil, func(way []string, l *limits) {
		for _, c := range l.cases() {
			tried[c.limit]++
			if found := mistakesOf(spec, sample(spec, way, c.keeps)); len(found) > 0 {
				t.Errorf("%s of %s: %v is refused: %v", c.limit, shownWay(way), c.keeps, found)
			}
			found := mistakesOf(spec, sample(spec, way, c.breaks))
			if want := shownWay(way) + c.below; len(found) != 1 || !strings.HasPrefix(found[0], want+": ") {
				t.Errorf("%s of %s: %v leads to %v", c.limit, want, c.breaks, found)
			}
		}
	})
	// The definition is searched once more, without our types.
	stated := map[string]int{}
	known := strings.Fields("additionalProperties default description format items properties type x-kubernetes-list-map-keys x-kubernetes-map-type " +
		"x-kubernetes-validations") // the last are for the translation
	keywords(t, func(keyword string, value any) {
		switch list, _ := value.([]any); {
		case slices.Contains(known, keyword) || keyword == "x-kubernetes-list-type" && value != "set":
		case keyword == "required":
			stated[keyword] += len(list)
		default:
			stated[keyword]++
		}
	})
	if !maps.Equal(tried, stated) || tried["maximum"] < 10 || tried["maxItems"] < 6 {
		t.Errorf("tried %v of %v", tried, stated)
	}
}

// keywords calls found for all in the definition's spec.
func keywords(t *testing.T, found func(keyword string, value any)) {
	var d map[string]any
	if err := yaml.Unmarshal([]byte(deploy.ClusterNetworkPolicies()), &d); err != nil {
		t.Fatal(err)
	}
	in := func(v any, way ...string) any {
		for _, name := range way {
			v = v.(map[string]any)[name]
		}
		return v
	}
	var search func(schema map[string]any)
	search = func(schema map[string]any) {
		for keyword, value := range schema {
			found(keyword, value)
			switch below, _ := value.(map[string]any); keyword {
			case "properties":
				for _, each := range below {
					search(each.(map[string]any))
				}
			case "items":
				search(below)
			}
		}
	}
	for _, version := range in(d, "spec", "versions").([]any) {
		if in(version, "name") == policykube.ClusterVersions()[0] {
			search(in(version, "schema", "openAPIV3Schema", "properties", "spec").(map[string]any))
		}
	}
}

// shownWay is a way to a value, of fields and, for the entries of a list, "".
func shownWay(way []string) string {
	text := "spec"
	for _, field := range way {
		if field == "" {
			text += "[0]"
		} else {
			text += "." + field
		}
	}
	return text
}

// each calls found for all limits with the way there.
func each(l *limits, way []string, found func(way []string, l *limits)) {
	found(way, l)
	if l.Items != nil {
		each(l.Items, append(slices.Clone(way), ""), found)
	}
	for _, name := range slices.Sorted(maps.Keys(l.Properties)) {
		each(l.Properties[name], append(slices.Clone(way), name), found)
	}
}

// limitCase is a value that keeps one limit and one that breaks it; below is where in it.
type limitCase struct {
	limit, below  string
	keeps, breaks any
}

func (l *limits) cases() []limitCase {
	var out []limitCase
	add := func(limit string, keeps, breaks any) { out = append(out, limitCase{limit, "", keeps, breaks}) }
	entries := func(n int) []any {
		list := make([]any, n)
		for i := range list {
			if list[i] = sample(l.Items, nil, nil); l.Items.Pattern != "" || l.Items.MaxLength != nil {
				list[i] = fmt.Sprintf("x%d.example.com", i)
			}
		}
		return list
	}
	fields := func(n int) map[string]any {
		object := map[string]any{}
		for _, name := range slices.Sorted(maps.Keys(l.Properties))[:n] {
			object[name] = sample(l.Properties[name], nil, nil)
		}
		return object
	}
	if l.MinItems != nil {
		add("minItems", entries(*l.MinItems), entries(*l.MinItems-1))
	}
	if l.MaxItems != nil {
		add("maxItems", entries(*l.MaxItems), entries(*l.MaxItems+1))
	}
	if l.ListType == "set" {
		out = append(out, limitCase{"x-kubernetes-list-type", "[1]", []any{"a.example", "b.example"}, []any{"a.example", "a.example"}})
	}
	if l.MinProperties != nil {
		add("minProperties", fields(*l.MinProperties), fields(*l.MinProperties-1))
	}
	if l.MaxProperties != nil {
		add("maxProperties", fields(*l.MaxProperties), fields(*l.MaxProperties+1))
	}
	if l.Minimum != nil {
		add("minimum", *l.Minimum, *l.Minimum-1)
	}
	if l.Maximum != nil {
		add("maximum", *l.Maximum, *l.Maximum+1)
	}
	if l.MaxLength != nil {
		add("maxLength", strings.Repeat("ü", *l.MaxLength), strings.Repeat("ü", *l.MaxLength+1))
	}
	if l.Pattern != "" {
		add("pattern", "a.example", "a..example")
	}
	if len(l.Enum) > 0 {
		add("enum", l.Enum[len(l.Enum)-1], "x"+l.Enum[0])
	}
	for _, name := range l.Required {
		without := sample(l, nil, nil).(map[string]any)
		delete(without, name)
		out = append(out, limitCase{"required", "." + name, sample(l, nil, nil), without})
	}
	return out
}

// sample is a small value that keeps all limits, with leaf at the end of the way.
func sample(l *limits, way []string, leaf any) any {
	switch {
	case len(way) == 0 && leaf != nil:
		return leaf
	case l.Items != nil:
		list := make([]any, 1)
		list[0] = sample(l.Items, below(way), leaf)
		return list
	case l.Minimum != nil:
		return *l.Minimum
	case len(l.Enum) > 0:
		return l.Enum[0]
	case l.Properties == nil:
		return "a.example"
	}
	object := map[string]any{}
	for _, name := range l.Required {
		object[name] = sample(l.Properties[name], nil, nil)
	}
	if len(way) > 0 {
		object[way[0]] = sample(l.Properties[way[0]], below(way), leaf)
	} else if l.MinProperties != nil && len(object) < *l.MinProperties {
		first := slices.Sorted(maps.Keys(l.Properties))[0]
		object[first] = sample(l.Properties[first], nil, nil)
	}
	return object
}

func below(way []string) []string { return way[min(1, len(way)):] }

func mistakesOf(l *limits, value any) []string {
	var node yaml.Node
	if err := node.Encode(value); err != nil {
		return []string{err.Error()}
	}
	var found []string
	l.check("spec", &node, func(field, problem string) { found = append(found, field+": "+problem) })
	return found
}
