package manifest

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// decoder fills API types from YAML, as strictly as the API server does: no unknown field, no field twice, no value of
// another type. Unlike a decoder of JSON it knows the line and the whole path of what is wrong.
type decoder struct {
	fields map[reflect.Type]map[string][]int
	// open are the fields below which unknown ones may stand: newer API servers know more than this program.
	open    []string
	unknown func(line int, field string)
	fail    func(line int, field, problem string)
	// A small text can stand for a very large one: inside counts the aliases on the way here, aliased the values
	// behind any.
	inside, aliased int
}

// maxAliased bounds what the aliases of an object may stand for.
const maxAliased = 100_000

// decode fills to, a pointer, from node.
func (d *decoder) decode(node *yaml.Node, to any) {
	d.value("", node, reflect.ValueOf(to).Elem())
}

func (d *decoder) value(field string, node *yaml.Node, to reflect.Value) {
	if node.Kind == yaml.AliasNode {
		d.inside++
		defer func() { d.inside-- }()
		node = node.Alias
	}
	if d.inside > 0 {
		if d.aliased++; d.aliased == maxAliased {
			d.fail(node.Line, field, "the aliases stand for too much: write the values out")
		}
		if d.aliased >= maxAliased {
			return
		}
	}
	if node.Tag == "!!null" {
		return
	}
	if own, ok := to.Addr().Interface().(json.Unmarshaler); ok {
		d.byJSON(field, node, own)
		return
	}
	switch to.Kind() {
	case reflect.Pointer:
		to.Set(reflect.New(to.Type().Elem()))
		d.value(field, node, to.Elem())
	case reflect.Struct:
		d.object(field, node, to)
	case reflect.Map:
		d.mapping(field, node, to)
	case reflect.Slice:
		d.list(field, node, to)
	default:
		d.scalar(field, node, to)
	}
}

// byJSON leaves a value to the type's own reading of JSON.
func (d *decoder) byJSON(field string, node *yaml.Node, to json.Unmarshaler) {
	var v any
	err := node.Decode(&v)
	if err == nil {
		var text []byte
		if text, err = json.Marshal(v); err == nil {
			err = to.UnmarshalJSON(text)
		}
	}
	if err != nil {
		d.fail(node.Line, field, "is "+shown(node)+", want "+wanted(to))
	}
}

// wanted says what a type that reads JSON by itself takes.
func wanted(to json.Unmarshaler) string {
	switch to.(type) {
	case *intstr.IntOrString:
		return "a number, or a name in quotes"
	case *metav1.Time, *metav1.MicroTime:
		return "a time like 2026-01-31T12:00:00Z"
	case *resource.Quantity:
		return "a quantity like 100m or 1Gi"
	case *metav1.Duration:
		return "a duration like 1m30s"
	}
	return "another value"
}

func (d *decoder) object(field string, node *yaml.Node, to reflect.Value) {
	if node.Kind != yaml.MappingNode {
		d.fail(node.Line, field, "is "+shown(node)+", want fields")
		return
	}
	known := d.fieldsOf(to.Type())
	d.pairs(field, node, func(key, value *yaml.Node, full string) {
		index, ok := known[keyOf(key)]
		switch {
		case ok:
			d.value(full, value, to.FieldByIndex(index))
		case d.isOpen(field):
			d.unknown(key.Line, full)
		default:
			d.fail(key.Line, full, "there is no such field; "+suggestion(keyOf(key), known))
		}
	})
}

func (d *decoder) mapping(field string, node *yaml.Node, to reflect.Value) {
	if node.Kind != yaml.MappingNode {
		d.fail(node.Line, field, "is "+shown(node)+", want names with values")
		return
	}
	if to.Type().Key().Kind() != reflect.String {
		return
	}
	to.Set(reflect.MakeMapWithSize(to.Type(), len(node.Content)/2))
	d.pairs(field, node, func(key, value *yaml.Node, full string) {
		v := reflect.New(to.Type().Elem()).Elem()
		d.value(full, value, v)
		to.SetMapIndex(reflect.ValueOf(keyOf(key)).Convert(to.Type().Key()), v)
	})
}

// pairs calls each for every key of a mapping, but for those that come twice, which are refused already.
func (d *decoder) pairs(field string, node *yaml.Node, each func(key, value *yaml.Node, full string)) {
	given := make(map[string]bool, len(node.Content)/2)
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := follow(node.Content[i]), node.Content[i+1]
		name := keyOf(key)
		switch {
		case key.Kind != yaml.ScalarNode:
			d.fail(node.Content[i].Line, field, "a key is "+shown(key)+", want a name")
		case !given[name]:
			given[name] = true
			each(key, value, strings.TrimPrefix(field+"."+name, "."))
		}
	}
}

func (d *decoder) list(field string, node *yaml.Node, to reflect.Value) {
	if node.Kind != yaml.SequenceNode {
		d.fail(node.Line, field, "is "+shown(node)+", want a list")
		return
	}
	to.Set(reflect.MakeSlice(to.Type(), len(node.Content), len(node.Content)))
	for i, n := range node.Content {
		d.value(fmt.Sprintf("%s[%d]", field, i), n, to.Index(i))
	}
}

func (d *decoder) scalar(field string, node *yaml.Node, to reflect.Value) {
	tag := tagOf(node)
	switch to.Kind() {
	case reflect.String:
		if tag == "!!str" || tag == "!!timestamp" {
			to.SetString(node.Value)
			return
		}
		d.fail(node.Line, field, "is "+shown(node)+", want text: write it in quotes")
	case reflect.Bool:
		if tag == "!!bool" {
			to.SetBool(truth(node.Value))
			return
		}
		d.fail(node.Line, field, "is "+shown(node)+", want true or false")
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		var n int64
		if tag == "!!int" && node.Decode(&n) == nil && !to.OverflowInt(n) {
			to.SetInt(n)
			return
		}
		d.fail(node.Line, field, "is "+shown(node)+", want a whole number")
	case reflect.Float32, reflect.Float64:
		var n float64
		if node.Decode(&n) == nil {
			to.SetFloat(n)
			return
		}
		d.fail(node.Line, field, "is "+shown(node)+", want a number")
	}
}

// tagOf is the type of a scalar as Kubernetes' tools read it: by YAML 1.1, where an unquoted yes is true.
func tagOf(node *yaml.Node) string {
	if node.Kind == yaml.ScalarNode && node.Tag == "!!str" && node.Style == 0 && isOldBoolean(node.Value) {
		return "!!bool"
	}
	return node.Tag
}

func isOldBoolean(s string) bool {
	switch s {
	case "y", "Y", "n", "N", "yes", "Yes", "YES", "no", "No", "NO", "on", "On", "ON", "off", "Off", "OFF":
		return true
	}
	return false
}

func truth(s string) bool {
	return slices.Contains([]string{"true", "y", "yes", "on"}, strings.ToLower(s))
}

// shown is a value for messages.
func shown(node *yaml.Node) string {
	node = follow(node)
	switch {
	case node.Kind == yaml.MappingNode:
		return "a mapping"
	case node.Kind == yaml.SequenceNode:
		return "a list"
	case tagOf(node) == "!!bool":
		return node.Value + ", which YAML takes for true or false"
	case tagOf(node) == "!!int" || tagOf(node) == "!!float":
		return "the number " + node.Value
	}
	return strconv.Quote(node.Value)
}

func (d *decoder) isOpen(field string) bool {
	return slices.ContainsFunc(d.open, func(open string) bool {
		return field == open || strings.HasPrefix(field, open+".")
	})
}

// fieldsOf are a type's fields by their JSON names.
func (d *decoder) fieldsOf(t reflect.Type) map[string][]int {
	if known := d.fields[t]; known != nil {
		return known
	}
	known := map[string][]int{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case !f.IsExported() || name == "-":
		case name == "" && f.Anonymous && f.Type.Kind() == reflect.Struct:
			for inner, index := range d.fieldsOf(f.Type) {
				known[inner] = append([]int{i}, index...)
			}
		case name != "":
			known[name] = []int{i}
		}
	}
	d.fields[t] = known
	return known
}

// suggestion says what may have been meant.
func suggestion(key string, known map[string][]int) string {
	names := slices.Sorted(maps.Keys(known))
	for _, name := range names {
		if strings.EqualFold(name, key) {
			return "did you mean " + name + "?"
		}
	}
	return "here are " + strings.Join(names, ", ")
}
