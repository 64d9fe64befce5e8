package kube

import (
	"fmt"
	"slices"

	"github.com/kithnet/kith/policy"
)

// Bound closes the rules with which a policy would come to more elements than the limit, and says which is the first.
func Bound(p policy.Policy, limit int) (policy.Policy, []Problem) {
	bounded, closed := p.Bounded(limit)
	if len(closed) == 0 {
		return p, nil
	}
	first := closed[0]
	r := (*p.In(first.Direction))[first.Rule]
	message := fmt.Sprintf("this rule counts %d elements, with which the policy has more than the %d that one may have: it %s", first.Elements, limit, closes(r))
	if more := len(closed) - 1; more > 0 {
		message += fmt.Sprintf(", and so do %d rules behind it", more)
	}
	return bounded, []Problem{{
		p.Key(), fmt.Sprintf("spec.%s[%d]", first.Direction, first.Rule), message,
		"make several policies of it, or raise policy.maxElements in Kith's configuration",
	}}
}

func closes(r policy.Rule) string {
	if r.Action == policy.Accept {
		return "allows nothing"
	}
	return "denies all"
}

// Bounded is the change with what Bound makes of the policy.
func (c Change) Bounded(limit int) Change {
	if c.Put == nil {
		return c
	}
	p, problems := Bound(*c.Put, limit)
	if len(problems) == 0 {
		return c
	}
	c.Put, c.Problems = &p, slices.Concat(c.Problems, problems)
	if c.Object != nil {
		o := *c.Object
		o.Problems, c.Object = c.Problems, &o
	}
	return c
}
