package manifest

import "go.yaml.in/yaml/v3"

// merger puts into mappings what their merge keys (<<) stand for, as kubectl's reading of YAML does: a key of the
// mapping itself goes before a merged one, and of merged ones the first.
type merger struct {
	fail  func(line int, problem string)
	state map[*yaml.Node]mergeState
	added int
}

type mergeState int

const (
	untouched mergeState = iota
	underWay
	merged
)

func (r *reader) merge(at place) {
	m := merger{state: map[*yaml.Node]mergeState{}, fail: func(line int, problem string) { r.failLine(at, line, "", problem) }}
	m.merge(at.node)
}

// merge goes through a document, anchored mappings before those that merge them.
func (m *merger) merge(node *yaml.Node) {
	if node.Kind == yaml.AliasNode || m.state[node] != untouched {
		return // what an alias stands for is in the document, too
	}
	m.state[node] = underWay
	defer func() { m.state[node] = merged }()
	for _, inside := range node.Content {
		m.merge(inside)
	}
	if node.Kind != yaml.MappingNode {
		return
	}
	var own, from []*yaml.Node
	given := map[string]bool{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		if key.Tag == "!!merge" {
			from = append(from, m.mappings(value)...)
			continue
		}
		own = append(own, key, value)
		given[follow(key).Value] = true
	}
	if len(own) == len(node.Content) {
		return
	}
	for _, other := range from {
		own = append(own, m.missing(given, other)...)
	}
	node.Content = own
}

// mappings are what a merge key names: one, or a list of them.
func (m *merger) mappings(value *yaml.Node) []*yaml.Node {
	target := follow(value)
	if target.Kind == yaml.SequenceNode {
		var all []*yaml.Node
		for _, each := range target.Content {
			if follow(each).Kind != yaml.MappingNode {
				m.fail(each.Line, "merges "+shown(each)+", want a mapping")
				continue
			}
			all = append(all, follow(each))
		}
		return all
	}
	if target.Kind != yaml.MappingNode {
		m.fail(value.Line, "merges "+shown(value)+", want a mapping")
		return nil
	}
	return []*yaml.Node{target}
}

// missing are another mapping's keys that are not given, with aliases for the values: so the decoder counts what a
// small text makes it read.
func (m *merger) missing(given map[string]bool, other *yaml.Node) []*yaml.Node {
	if m.state[other] == underWay {
		m.fail(other.Line, "is merged into itself")
		return nil
	}
	m.merge(other)
	var out []*yaml.Node
	for i := 0; i+1 < len(other.Content); i += 2 {
		key, value := other.Content[i], other.Content[i+1]
		name := follow(key).Value
		if given[name] {
			continue
		}
		given[name] = true
		if m.added++; m.added == maxAliased {
			m.fail(other.Line, "the merged mappings stand for too much: write them out")
		}
		if m.added >= maxAliased {
			return nil
		}
		if value.Kind != yaml.AliasNode {
			value = &yaml.Node{Kind: yaml.AliasNode, Alias: value, Line: value.Line, Column: value.Column}
		}
		out = append(out, key, value)
	}
	return out
}
