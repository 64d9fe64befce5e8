package manifest

import (
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// unique refuses keys that a mapping gives twice, of whatever kind the object is: behind a forgotten --- the keys of the
// next object follow, and YAML's readers keep the last of each in silence. The objects of a list are looked at alone.
func (r *reader) unique(at place, list *yaml.Node) {
	r.uniqueBelow(at, nil, at.node, list)
}

// way is the way to a field, from its end; it is written out only where there is a mistake.
type way struct {
	up    *way
	key   string // of a mapping
	index int    // in a list, if there is no key
}

func (w *way) String() string {
	switch {
	case w == nil:
		return ""
	case w.key == "":
		return fmt.Sprintf("%s[%d]", w.up, w.index)
	}
	return strings.TrimPrefix(w.up.String()+"."+w.key, ".")
}

func (r *reader) uniqueBelow(at place, up *way, node, except *yaml.Node) {
	if node == except {
		return
	}
	if node.Kind == yaml.SequenceNode {
		for i, n := range node.Content {
			r.uniqueBelow(at, &way{up: up, index: i}, n, except)
		}
	}
	if node.Kind != yaml.MappingNode {
		return // what an alias stands for is in the document, too
	}
	lines := make(map[string]int, len(node.Content)/2)
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := follow(node.Content[i]), node.Content[i+1]
		name := keyOf(key)
		if first, twice := lines[name]; twice && key.Kind == yaml.ScalarNode {
			full := &way{up: up, key: name}
			r.failLine(at, key.Line, full.String(), fmt.Sprintf("is given already in line %d%s", at.before+first, forgotten(up.String(), name)))
			continue
		}
		lines[name] = key.Line
		if value.Kind == yaml.MappingNode || value.Kind == yaml.SequenceNode {
			r.uniqueBelow(at, &way{up: up, key: name}, value, except)
		}
	}
}

// forgotten says what an object's own keys given twice most often mean.
func forgotten(field, key string) string {
	if field == "" && (key == "apiVersion" || key == "kind" || key == "metadata") {
		return ": is a --- missing between two objects?"
	}
	return ""
}

// keyOf is a mapping's key as kubectl reads it: by YAML 1.1, and then as text, so that on is "true" and 010 is "8".
func keyOf(key *yaml.Node) string {
	switch tagOf(key) {
	case "!!bool":
		return strconv.FormatBool(truth(key.Value))
	case "!!int":
		if n, err := strconv.ParseInt(strings.ReplaceAll(key.Value, "_", ""), 0, 64); err == nil {
			return strconv.FormatInt(n, 10)
		}
	case "!!float":
		var f float64
		if key.Decode(&f) == nil {
			return strconv.FormatFloat(f, 'g', -1, 32)
		}
	}
	return key.Value
}
