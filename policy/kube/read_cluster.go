package kube

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	policyv1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kithnet/kith/policy"
)

// readObject is TranslateCluster for an object of any form, as one of another release of the definition may have it. A
// part of another form counts as one with a mistake in it: a rule closes; a policy whose tier, priority or subject is not
// read is asked first of those that it may stand among, there accepts nothing, and denies what it passes; a direction
// whose rules are no list denies all. unread are the problems of such parts alone, problems those and all others.
func readObject(u *unstructured.Unstructured) (p policy.Policy, unread, problems []Problem) {
	r := reading{translation{policy: policy.Name{Name: u.GetName()}}}
	cnp := policyv1alpha2.ClusterNetworkPolicy{Spec: r.spec(u.Object["spec"])}
	cnp.Name = u.GetName()
	p, problems = TranslateCluster(&cnp)
	if slices.ContainsFunc(r.problems, func(q Problem) bool { return q.Field == "spec.priority" }) {
		harden(p.Ingress)
		harden(p.Egress)
	}
	problems = slices.DeleteFunc(problems, func(q Problem) bool {
		return slices.ContainsFunc(r.problems, func(part Problem) bool { return strings.HasPrefix(q.Field, part.Field) })
	})
	return p, r.problems, append(slices.Clone(r.problems), problems...)
}

// reading gathers the parts that are of another form. They stay empty.
type reading struct{ translation }

func (r *reading) unread(field string, err error) {
	r.problem(field, "write it as the definition has it that is installed with Kith", "it has not the form that is known here: %v", err)
}

func (r *reading) spec(v any) policyv1alpha2.ClusterNetworkPolicySpec {
	fields, err := decode[map[string]any](v)
	if err != nil {
		r.unread("spec", err)
		return policyv1alpha2.ClusterNetworkPolicySpec{
			Ingress: make([]policyv1alpha2.ClusterNetworkPolicyIngressRule, 1),
			Egress:  make([]policyv1alpha2.ClusterNetworkPolicyEgressRule, 1),
		}
	}
	return policyv1alpha2.ClusterNetworkPolicySpec{
		Tier:     part[policyv1alpha2.Tier](r, fields, "tier"),
		Priority: part[int32](r, fields, "priority"),
		Subject:  part[policyv1alpha2.ClusterNetworkPolicySubject](r, fields, "subject"),
		Ingress:  parts[policyv1alpha2.ClusterNetworkPolicyIngressRule](r, fields, "ingress"),
		Egress:   parts[policyv1alpha2.ClusterNetworkPolicyEgressRule](r, fields, "egress"),
	}
}

func part[T any](r *reading, fields map[string]any, name string) T {
	out, err := decode[T](fields[name])
	if err != nil {
		r.unread("spec."+name, err)
	}
	return out
}

// parts keeps of a rule that is not read its place and its action: without peers it closes. One without an action denies.
func parts[T any](r *reading, fields map[string]any, name string) []T {
	list, err := decode[[]any](fields[name])
	if err != nil {
		r.unread("spec."+name, err)
		return make([]T, 1)
	}
	rules := make([]T, len(list))
	for i, v := range list {
		if rules[i], err = decode[T](v); err != nil {
			r.unread(fmt.Sprintf("spec.%s[%d]", name, i), err)
			rule, _ := v.(map[string]any)
			rules[i], _ = decode[T](map[string]any{"action": rule["action"]})
		}
	}
	return rules
}

// decode is all of a value or, with an error, nothing of it.
func decode[T any](v any) (T, error) {
	var box struct {
		Value T `json:"value"`
	}
	err := runtime.DefaultUnstructuredConverter.FromUnstructured(map[string]any{"value": v}, &box)
	if err != nil {
		var nothing T
		return nothing, err
	}
	return box.Value, nil
}

// readConditions leaves out those of another form: they are of others.
func readConditions(u *unstructured.Unstructured) []metav1.Condition {
	status, _ := u.Object["status"].(map[string]any)
	list, _ := status["conditions"].([]any)
	var out []metav1.Condition
	for _, v := range list {
		if c, err := decode[metav1.Condition](v); err == nil {
			out = append(out, c)
		}
	}
	return out
}
