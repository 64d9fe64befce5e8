package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxSize bounds the file: what is larger was not written for Kith.
const maxSize = 64 << 10

// Error is one mistake in the file.
type Error struct {
	File string
	Line int
	// Key is the dotted name of the key; empty where the text is not YAML at all.
	Key     string
	Problem string
	Fix     string
}

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d: ", e.File, e.Line)
	if e.Key != "" {
		fmt.Fprintf(&b, "%s: ", e.Key)
	}
	b.WriteString(e.Problem)
	if e.Fix != "" {
		fmt.Fprintf(&b, ": %s", e.Fix)
	}
	return b.String()
}

// Load reads and parses the file at path.
func Load(path string) (Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	return Parse(filepath.Base(path), data)
}

// Parse reads a configuration. The error joins an *Error for every mistake; file is the name they bear.
func Parse(file string, data []byte) (Config, error) {
	if len(data) > maxSize {
		return Config{}, &Error{File: file, Line: 1, Problem: fmt.Sprintf("the file has %d bytes", len(data)),
			Fix: fmt.Sprintf("it may have at most %d", maxSize)}
	}
	root, err := document(file, data)
	if err != nil {
		return Config{}, err
	}
	p := &parser{file: file, config: Default(), lines: map[string]int{}}
	p.values = p.config.values()
	if root != nil {
		p.mapping("", root)
	}
	p.checkTogether()
	if err := errors.Join(p.errs...); err != nil {
		return Config{}, err
	}
	return p.config, nil
}

// document is the root of the only document in data; nil if there is nothing but comments.
func document(file string, data []byte) (*yaml.Node, error) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, syntaxError(file, err)
	}
	if err := dec.Decode(&second); err == nil {
		return nil, &Error{File: file, Line: max(second.Line, 1), Problem: "a second document begins here",
			Fix: "the file holds one; remove the line ---"}
	} else if !errors.Is(err, io.EOF) {
		return nil, syntaxError(file, err)
	}
	root := doc.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return nil, nil
	}
	return root, nil
}

// syntaxError brings the YAML library's error ("yaml: line 3: …") into our form.
func syntaxError(file string, err error) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	e := &Error{File: file, Line: 1, Problem: text, Fix: "this is not YAML; check indentation, colons and quotes"}
	m := regexp.MustCompile(`^line (\d+): (.*)`).FindStringSubmatch(text)
	if m == nil {
		return e
	}
	e.Problem = m[2]
	if line, err := strconv.Atoi(m[1]); err == nil {
		e.Line = line
	}
	return e
}

// parser walks the document's tree and fills the config.
type parser struct {
	file   string
	config Config
	// values has the reader of every key, by dotted name.
	values map[string]reader
	// lines has the line of every key that was given.
	lines map[string]int
	errs  []error
}

func (p *parser) fail(line int, key, problem, fix string) {
	p.errs = append(p.errs, &Error{File: p.file, Line: line, Key: key, Problem: problem, Fix: fix})
}

// mapping reads the keys of one section; name is its dotted name, empty for the root.
func (p *parser) mapping(name string, node *yaml.Node) {
	if node.Kind != yaml.MappingNode {
		p.fail(node.Line, name, "is "+kind(node), "write keys here: "+strings.Join(p.keysOf(name), ", "))
		return
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		full := strings.TrimPrefix(name+"."+key.Value, ".")
		if key.Kind != yaml.ScalarNode || !slices.Contains(p.keysOf(name), key.Value) {
			p.fail(key.Line, full, "is not a key that Kith knows", "here it knows "+strings.Join(p.keysOf(name), ", "))
			continue
		}
		if first, ok := p.lines[full]; ok {
			p.fail(key.Line, full, fmt.Sprintf("is given already in line %d", first), "keep one of the two")
			continue
		}
		p.lines[full] = key.Line
		p.value(full, value)
	}
}

// value reads what stands behind a known key.
func (p *parser) value(name string, node *yaml.Node) {
	read, isValue := p.values[name]
	switch {
	case node.Kind == yaml.AliasNode || node.Anchor != "":
		p.fail(node.Line, name, "uses an anchor or alias", "write the value out")
	case node.Kind == yaml.ScalarNode && node.Tag == "!!null" && node.Value == "" && !isValue:
		// A section with all its keys commented out.
	case !isValue:
		p.mapping(name, node)
	case node.Kind == yaml.ScalarNode && node.Tag == "!!null":
		p.fail(node.Line, name, "has no value", "write one, or remove the line for the default")
	default:
		if problem := read(node); problem != nil {
			p.fail(problem.line, name, problem.text, problem.fix)
		}
	}
}

// keysOf are the keys a section may have, sorted.
func (p *parser) keysOf(section string) []string {
	var keys []string
	for name := range p.values {
		rest := name
		if section != "" {
			var ok bool
			if rest, ok = strings.CutPrefix(name, section+"."); !ok {
				continue
			}
		}
		first, _, _ := strings.Cut(rest, ".")
		keys = append(keys, first)
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// checkTogether refuses values that are right alone and wrong with each other.
func (p *parser) checkTogether() {
	c := p.config
	p.checkPorts()
	if c.StateDir == c.RunDir {
		p.failPair("runDir", "stateDir", "one is lost at reboot, the other must not be: give them different folders")
	}
	if c.CNI.BinDir == c.CNI.ConfDir {
		p.failPair("cni.confDir", "cni.binDir", "give them different folders")
	}
}

func (p *parser) checkPorts() {
	c := p.config
	ports := []struct {
		key  string
		port uint16
	}{{"wireguard.port", c.WireGuard.Port}, {"gossip.port", c.Gossip.Port}, {"probe.port", c.Probe.Port}, {"announce.port", c.Announce.Port}}
	for i, before := range ports {
		for _, other := range ports[i+1:] {
			if before.port == other.port {
				p.failPair(other.key, before.key, "both use UDP: give them different ports")
			}
		}
	}
}

func (p *parser) failPair(key, other, fix string) {
	if _, ok := p.lines[key]; !ok {
		key, other = other, key
	}
	p.fail(max(p.lines[key], 1), key, "is the same as "+other, fix)
}

func kind(node *yaml.Node) string {
	switch node.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	default:
		return fmt.Sprintf("the single value %q", node.Value)
	}
}
