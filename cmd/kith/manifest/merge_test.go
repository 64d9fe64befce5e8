package manifest

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// TestMerges: merge keys are read as kubectl does.
func TestMerges(t *testing.T) {
	for text, want := range map[string]string{
		"{<<: {a: x}}":                       "map[a:x]",
		"{<<: {a: x, b: x}, a: w}":           "map[a:w b:x]",
		"{a: w, <<: {a: x, b: x}}":           "map[a:w b:x]",
		"{<<: [{a: x, b: x}, {a: w, c: w}]}": "map[a:x b:x c:w]",
		"{<<: {<<: {a: x}, b: x}, c: z}":     "map[a:x b:x c:z]",
		"{<<: {}, '<<a': z}":                 "map[<<a:z]",
		"{<<: *outer}":                       "map[o:p]",
		"{<<: [*outer, {o: q, r: s}], t: u}": "map[o:p r:s t:u]",
		"{<<: {a: &v x}, b: *v}":             "map[a:x b:x]",
	} {
		var node yaml.Node
		if err := yaml.Unmarshal([]byte("outer: &outer {o: p}\nlabels: "+text), &node); err != nil {
			t.Fatal(err)
		}
		m := merger{state: map[*yaml.Node]mergeState{}, fail: func(line int, problem string) { t.Errorf("%s: line %d: %s", text, line, problem) }}
		m.merge(node.Content[0])
		var got struct{ Labels map[string]string }
		d := decoder{fields: map[reflect.Type]map[string][]int{}, unknown: func(int, string) {}, fail: func(int, string, string) {}}
		_, labels := child(node.Content[0], "labels")
		d.decode(labels, &got.Labels)
		if fmt.Sprint(got.Labels) != want {
			t.Errorf("%s: %v, want %s", text, got.Labels, want)
		}
	}
}

// TestMergesAreBounded: small texts that merge much end soon.
func TestMergesAreBounded(t *testing.T) {
	var text strings.Builder
	text.WriteString("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  k0: &k0 {a0: 1}\n")
	for i := range 2000 {
		fmt.Fprintf(&text, "  k%d: &k%d {<<: [*k%d, *k%d], a%d: 1}\n", i+1, i+1, i, i, i+1)
	}
	if _, err := read(text.String()); err == nil || !strings.Contains(err.Error(), "the merged mappings stand for too much") {
		t.Errorf("error %v", err)
	}
}
