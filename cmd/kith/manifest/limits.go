package manifest

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/kithnet/kith/deploy"
	policykube "github.com/kithnet/kith/policy/kube"
)

// limits are what a definition (CRD) allows of a value, besides its type, which the decoder holds.
type limits struct {
	Properties    map[string]*limits `yaml:"properties"`
	Required      []string           `yaml:"required"`
	MinProperties *int               `yaml:"minProperties"`
	MaxProperties *int               `yaml:"maxProperties"`
	Items         *limits            `yaml:"items"`
	MinItems      *int               `yaml:"minItems"`
	MaxItems      *int               `yaml:"maxItems"`
	ListType      string             `yaml:"x-kubernetes-list-type"`
	Minimum       *int               `yaml:"minimum"`
	Maximum       *int               `yaml:"maximum"`
	MinLength     *int               `yaml:"minLength"`
	MaxLength     *int               `yaml:"maxLength"`
	Pattern       string             `yaml:"pattern"`
	Enum          []string           `yaml:"enum"`
}

// limitsOf reads the limits of a version's spec from a definition.
func limitsOf(definition, version string) (*limits, error) {
	var d struct {
		Spec struct {
			Versions []struct {
				Name   string `yaml:"name"`
				Schema struct {
					Object limits `yaml:"openAPIV3Schema"`
				} `yaml:"schema"`
			} `yaml:"versions"`
		} `yaml:"spec"`
	}
	if err := yaml.Unmarshal([]byte(definition), &d); err != nil {
		return nil, fmt.Errorf("read definition: %w", err)
	}
	for _, v := range d.Spec.Versions {
		if spec := v.Schema.Object.Properties["spec"]; v.Name == version && spec != nil {
			return spec, nil
		}
	}
	return nil, fmt.Errorf("read definition: it has no %s with a spec", version)
}

// clusterLimits are those of a ClusterNetworkPolicy's spec, read when the first is met.
func (r *reader) clusterLimits() *limits {
	if r.limits == nil {
		found, err := limitsOf(deploy.ClusterNetworkPolicies(), policykube.ClusterVersions()[0])
		if err != nil {
			r.mistakes = append(r.mistakes, err)
			found = &limits{}
		}
		r.limits = found
	}
	return r.limits
}

// hold refuses what is beyond the limits, but for fields of which a mistake since is known already.
func (r *reader) hold(at place, l *limits, since int) {
	var beyond []Mistake
	_, spec := child(at.node, "spec")
	l.check("spec", spec, func(field, problem string) {
		if !r.isKnown(field, since) {
			beyond = append(beyond, Mistake{Field: field, Problem: problem})
		}
	})
	for _, m := range beyond {
		r.fail(at, m.Field, m.Problem)
	}
}

// isBelow: a field is another or within it.
func isBelow(field, other string) bool {
	rest, ok := strings.CutPrefix(field, other)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

// check tells of all in a value that is beyond its limits.
func (l *limits) check(field string, node *yaml.Node, fail func(field, problem string)) {
	node = follow(node)
	say := func(format string, args ...any) { fail(field, fmt.Sprintf(format, args...)) }
	switch node.Kind {
	case yaml.MappingNode:
		l.checkObject(field, node, fail)
	case yaml.SequenceNode:
		n := len(node.Content)
		switch {
		case l.MinItems != nil && n < *l.MinItems:
			say("has %d entries, at least %d", n, *l.MinItems)
		case l.MaxItems != nil && n > *l.MaxItems:
			say("has %d entries, at most %d", n, *l.MaxItems)
		}
		seen := map[string]bool{}
		for i, entry := range node.Content {
			at := fmt.Sprintf("%s[%d]", field, i)
			if value := follow(entry).Value; l.ListType == "set" && seen[value] {
				fail(at, fmt.Sprintf("%q is in the list already", value))
			} else {
				seen[value] = true
			}
			if l.Items != nil {
				l.Items.check(at, entry, fail)
			}
		}
	case yaml.ScalarNode:
		l.checkScalar(node, say)
	}
}

func (l *limits) checkObject(field string, node *yaml.Node, fail func(field, problem string)) {
	given := map[string]*yaml.Node{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		name, value := keyOf(follow(node.Content[i])), follow(node.Content[i+1])
		if given[name] = value; value.Tag == "!!null" && l.Properties[name] != nil {
			fail(field+"."+name, "is null, which the API refuses: leave the field out, or give it a value")
		}
	}
	switch n := len(given); {
	case l.MinProperties != nil && n < *l.MinProperties:
		fail(field, fmt.Sprintf("has %d fields, at least %d of %s", n, *l.MinProperties, l.names()))
	case l.MaxProperties != nil && n > *l.MaxProperties:
		fail(field, fmt.Sprintf("has %d fields, at most %d of %s", n, *l.MaxProperties, l.names()))
	}
	for _, name := range l.Required {
		if given[name] == nil {
			fail(field+"."+name, "is missing")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if below := l.Properties[name]; below != nil && given[name].Tag != "!!null" {
			below.check(field+"."+name, given[name], fail)
		}
	}
}

func (l *limits) names() string { return strings.Join(slices.Sorted(maps.Keys(l.Properties)), ", ") }

func (l *limits) checkScalar(node *yaml.Node, say func(format string, args ...any)) {
	number, err := strconv.Atoi(node.Value)
	isNumber, length := err == nil && node.Tag == "!!int", utf8.RuneCountInString(node.Value)
	switch {
	case isNumber && l.Minimum != nil && number < *l.Minimum:
		say("is %d, at least %d", number, *l.Minimum)
	case isNumber && l.Maximum != nil && number > *l.Maximum:
		say("is %d, at most %d", number, *l.Maximum)
	case isNumber:
	case l.MinLength != nil && length < *l.MinLength:
		say("has %d characters, at least %d", length, *l.MinLength)
	case l.MaxLength != nil && length > *l.MaxLength:
		say("has %d characters, at most %d", length, *l.MaxLength)
	case len(l.Enum) > 0 && !slices.Contains(l.Enum, node.Value):
		say("is %q: write %s", node.Value, strings.Join(l.Enum, " or "))
	case l.Pattern != "" && !matches(l.Pattern, node.Value):
		say("is %q, which does not match %s", node.Value, l.Pattern)
	}
}

// matches: what Go cannot compile the API server, which is written in Go, does not hold either.
func matches(pattern, text string) bool {
	compiled, err := regexp.Compile(pattern)
	return err != nil || compiled.MatchString(text)
}
