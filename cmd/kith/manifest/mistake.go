package manifest

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Mistake is one thing that is wrong in a manifest.
type Mistake struct {
	File string
	Line int
	// Object is the kind and the name of the object, Field the way to the field in it; empty where the text is not
	// understood as far as that.
	Object, Field string
	Problem       string
}

func (m *Mistake) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d: ", m.File, m.Line)
	for _, part := range []string{m.Object, m.Field} {
		if part != "" {
			b.WriteString(part + ": ")
		}
	}
	return b.String() + m.Problem
}

// syntaxMistake brings the YAML library's error ("yaml: line 3: …") into our form.
func syntaxMistake(file string, err error) *Mistake {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	m := &Mistake{File: file, Line: 1, Problem: "not YAML: " + text}
	if part := regexp.MustCompile(`^line (\d+): (.*)`).FindStringSubmatch(text); part != nil {
		m.Problem = "not YAML: " + part[2]
		if line, err := strconv.Atoi(part[1]); err == nil {
			m.Line = line
		}
	}
	return m
}

// step is a part of a field's path: a key, or an index in brackets.
var step = regexp.MustCompile(`[^.\[\]]+|\[\d+\]`)

// lineOf is the line of a field, or of what comes nearest to it on the way there.
func lineOf(node *yaml.Node, field string) int {
	line := node.Line
	for _, at := range step.FindAllStringIndex(field, -1) {
		key, value := child(node, field[at[0]:]) // a label's key has dots
		if value != nil {
			return key.Line
		}
		if key, value = child(node, field[at[0]:at[1]]); value == nil {
			break
		}
		node, line = value, key.Line
	}
	return line
}

// child is where a step leads to, and the node that names it; nil if there is none.
func child(node *yaml.Node, s string) (key, value *yaml.Node) {
	node = follow(node)
	if index, ok := strings.CutPrefix(s, "["); ok {
		n, err := strconv.Atoi(strings.TrimSuffix(index, "]"))
		if err != nil || node.Kind != yaml.SequenceNode || n >= len(node.Content) {
			return nil, nil
		}
		return node.Content[n], node.Content[n]
	}
	if node.Kind != yaml.MappingNode {
		return nil, nil
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		if keyOf(follow(node.Content[i])) == s {
			return node.Content[i], node.Content[i+1]
		}
	}
	return nil, nil
}

// follow is what an alias stands for.
func follow(node *yaml.Node) *yaml.Node {
	if node.Kind == yaml.AliasNode {
		return node.Alias
	}
	return node
}
