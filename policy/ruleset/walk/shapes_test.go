package walk

import (
	"regexp"
	"testing"

	"github.com/kithnet/kith/policy/random"
	"github.com/kithnet/kith/policy/ruleset"
)

// TestRandomClustersHaveAllShapes: what is compared with the specification is of every shape that rules can have.
func TestRandomClustersHaveAllShapes(t *testing.T) {
	shapes := map[string]*regexp.Regexp{
		"identities without ports": regexp.MustCompile(`^\S+ \S+ @\S+_any goto`),
		"an identity with a port":  regexp.MustCompile(`@\S+_port `),
		"identities of a class":    regexp.MustCompile(`@ports_\S+ \S+ \S+ @\S+_any\.`),
		"networks without ports":   regexp.MustCompile(`^ct \S+ \S+ \S+ @net[46]_\S+ goto`),
		"a network with a port":    regexp.MustCompile(`@block[46]_`),
		"networks of a class":      regexp.MustCompile(`@ports_\S+ ct \S+ \S+ \S+ @net[46]_`),
		"ports without peers":      regexp.MustCompile(`@ports_\S+ goto`),
		"a named port":             regexp.MustCompile(`@\S+_name[46] `),
		"ways to many classes":     regexp.MustCompile(`vmap @ways_`),
		"a denial by a class":      regexp.MustCompile(`@ports_\S+ .* counter drop`),
	}
	for seed := range uint64(150) {
		paths := Compile(random.Cluster(random.New(seed)))
		for name, shape := range shapes {
			if has(paths.Ruleset("node1"), shape) {
				delete(shapes, name)
			}
		}
	}
	for name := range shapes {
		t.Errorf("no random cluster has %s", name)
	}
}

func has(r ruleset.Ruleset, shape *regexp.Regexp) bool {
	for _, c := range r.Chains {
		for _, rule := range c.Rules {
			if shape.MatchString(rule.String()) {
				return true
			}
		}
	}
	return false
}
