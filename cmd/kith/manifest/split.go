package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"regexp"
	"runtime"
	"strings"

	"go.yaml.in/yaml/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// chunk is a piece of a file that can be parsed alone: a document, or an object of a long list. A cluster's pods in
// one list would else be held in memory whole, as a tree many times their size.
type chunk struct {
	text   []byte
	line   int             // how many lines of the file are before it
	preset metav1.TypeMeta // what the list says of its objects
}

// parsed is what became of a chunk.
type parsed struct {
	chunk
	documents []*yaml.Node
	err       error
}

// parse parses the chunks of a file at once and gives them in order.
func parse(data []byte) iter.Seq[parsed] {
	return func(yield func(parsed) bool) {
		stop := make(chan struct{})
		defer close(stop)
		queue := make(chan chan parsed, 4*runtime.GOMAXPROCS(0))
		go func() {
			defer close(queue)
			for c := range chunks(data) {
				done := make(chan parsed, 1)
				select {
				case queue <- done:
				case <-stop:
					return
				}
				go func() { done <- c.parse() }()
			}
		}()
		for done := range queue {
			if !yield(<-done) {
				return
			}
		}
	}
}

func (c chunk) parse() parsed {
	p := parsed{chunk: c}
	dec := yaml.NewDecoder(bytes.NewReader(c.text))
	for {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return p
		}
		if err != nil {
			p.err = err
			return p
		}
		p.documents = append(p.documents, doc.Content[0])
	}
}

// chunks are the documents of a file, lists as their objects.
func chunks(data []byte) iter.Seq[chunk] {
	return func(yield func(chunk) bool) {
		for _, doc := range concatenated(documents(data)) {
			objects, ok := doc.objectsOfJSON()
			if !ok {
				objects, ok = doc.objectsOfYAML()
			}
			if !ok {
				objects = []chunk{doc}
			}
			for _, o := range objects {
				if !yield(o) {
					return
				}
			}
		}
	}
}

// documents cuts a file at the lines that begin with ---, which nothing inside of a document can. Directives belong to
// the document behind that line: a file with any stays whole.
func documents(data []byte) []chunk {
	if regexp.MustCompile(`(?m)^%`).Match(data) {
		return []chunk{{text: data}}
	}
	var out []chunk
	begin, line := 0, 0
	for _, at := range regexp.MustCompile(`(?m)^---(\s|$)`).FindAllIndex(data, -1) {
		text := data[begin:at[0]]
		out = append(out, chunk{text: text, line: line})
		begin, line = at[0], line+bytes.Count(text, []byte("\n"))
	}
	return append(out, chunk{text: data[begin:], line: line})
}

// concatenated cuts documents that are several objects in JSON, one after the other, as jq writes them.
func concatenated(docs []chunk) []chunk {
	var out []chunk
	for _, doc := range docs {
		out = append(out, doc.values()...)
	}
	return out
}

// values are the objects in JSON that a chunk is, or the chunk itself.
func (c chunk) values() []chunk {
	if text := bytes.TrimSpace(c.text); len(text) == 0 || text[0] != '{' || !bytes.Contains(text, []byte("}")) {
		return []chunk{c}
	}
	dec := json.NewDecoder(bytes.NewReader(c.text))
	var out []chunk
	line, counted := c.line, 0
	for {
		var raw json.RawMessage
		if err := dec.Decode(&raw); errors.Is(err, io.EOF) && len(out) > 1 {
			return out
		} else if err != nil {
			return []chunk{c}
		}
		begin := int(dec.InputOffset()) - len(raw)
		line, counted = line+bytes.Count(c.text[counted:begin], []byte("\n")), begin
		out = append(out, chunk{text: raw, line: line})
	}
}

// isList says whether a document's kind is that of a list, and what its objects are.
func isList(t metav1.TypeMeta) (preset metav1.TypeMeta, ok bool) {
	kind, ok := strings.CutSuffix(t.Kind, "List")
	return metav1.TypeMeta{APIVersion: t.APIVersion, Kind: kind}, ok && t.APIVersion != ""
}

// objectsOfJSON are the objects of a list in JSON. What is not plainly one is not cut.
func (c chunk) objectsOfJSON() (objects []chunk, ok bool) {
	dec := json.NewDecoder(bytes.NewReader(c.text))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, false
	}
	words := map[string]json.RawMessage{}
	for dec.More() {
		key, err := dec.Token()
		name, isText := key.(string)
		if _, twice := words[name]; err != nil || !isText || twice {
			return nil, false
		}
		if words[name] = nil; name == "items" {
			if objects, ok = c.items(dec); !ok {
				return nil, false
			}
			continue
		}
		var value json.RawMessage
		if dec.Decode(&value) != nil {
			return nil, false
		}
		words[name] = value
	}
	if _, err := dec.Token(); err != nil || len(bytes.TrimSpace(c.text[dec.InputOffset():])) > 0 {
		return nil, false
	}
	var t metav1.TypeMeta
	if json.Unmarshal(words["kind"], &t.Kind) != nil || json.Unmarshal(words["apiVersion"], &t.APIVersion) != nil {
		return nil, false
	}
	preset, ok := isList(t)
	for i := range objects {
		objects[i].preset = preset
	}
	return objects, ok && len(objects) > 0
}

// items are the elements of a list in JSON.
func (c chunk) items(dec *json.Decoder) (objects []chunk, ok bool) {
	if t, err := dec.Token(); err != nil || t != json.Delim('[') {
		return nil, false
	}
	line, counted := c.line, 0
	for dec.More() {
		var raw json.RawMessage
		if dec.Decode(&raw) != nil {
			return nil, false
		}
		begin := int(dec.InputOffset()) - len(raw)
		line, counted = line+bytes.Count(c.text[counted:begin], []byte("\n")), begin
		objects = append(objects, chunk{text: raw, line: line})
	}
	_, err := dec.Token()
	return objects, err == nil
}

// objectsOfYAML are the objects of a list as kubectl prints it: every line of theirs is indented but the first, which
// begins with a dash. Where anchors may be, or anything else stands in the way, the list is not cut.
func (c chunk) objectsOfYAML() (objects []chunk, ok bool) {
	begin := regexp.MustCompile(`(?m)^items:[ \t]*\n`).FindIndex(c.text)
	if begin == nil || regexp.MustCompile(`[:\-\[{,?]\s+&[^\s&]`).Match(c.text) {
		return nil, false
	}
	body := c.text[begin[1]:]
	if regexp.MustCompile(`(?m)^-[^ ]`).Match(body) || !regexp.MustCompile(`^(\s*#.*\n|\s*\n)*- `).Match(body) {
		return nil, false
	}
	end := len(body)
	if at := regexp.MustCompile(`(?m)^[^\s#-]`).FindIndex(body); at != nil {
		end = at[0]
	}
	preset, ok := listType(append(bytes.Clone(c.text[:begin[0]]), body[end:]...))
	line := c.line + bytes.Count(c.text[:begin[1]], []byte("\n"))
	starts := regexp.MustCompile(`(?m)^- `).FindAllIndex(body[:end], -1)
	for i, at := range starts {
		next := end
		if i+1 < len(starts) {
			next = starts[i+1][0]
		}
		text := bytes.Clone(body[at[0]:next])
		text[0] = ' '
		if i == 0 {
			line += bytes.Count(body[:at[0]], []byte("\n"))
		}
		objects = append(objects, chunk{text: text, line: line, preset: preset})
		line += bytes.Count(text, []byte("\n"))
	}
	return objects, ok && len(objects) > 0
}

// listType is what the rest of a list, without its objects, says of them. A list that gives a key twice is not cut: the
// reader refuses it.
func listType(rest []byte) (preset metav1.TypeMeta, ok bool) {
	var doc yaml.Node
	if yaml.Unmarshal(rest, &doc) != nil || len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		return metav1.TypeMeta{}, false
	}
	given := map[string]bool{"items": true}
	for i := 0; i+1 < len(doc.Content[0].Content); i += 2 {
		key := doc.Content[0].Content[i].Value
		if given[key] {
			return metav1.TypeMeta{}, false
		}
		given[key] = true
	}
	return isList(metav1.TypeMeta{Kind: text(doc.Content[0], "kind"), APIVersion: text(doc.Content[0], "apiVersion")})
}
