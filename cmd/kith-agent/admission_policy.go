package main

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"

	admission1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"
)

// admission is a policy with its binding, as shipped.
type admission struct {
	policy  admission1.ValidatingAdmissionPolicy
	binding admission1.ValidatingAdmissionPolicyBinding
}

// risk is what can be done without a policy.
func (a admission) risk() string {
	return map[string]string{
		"kith-node":        "an agent can speak for any other node",
		"kith-annotations": "who may patch Nodes can speak for any node",
		"kith-pod-cidrs":   "a kubelet can ask for any pod CIDR",
		"kith-secret":      "an agent can make Secrets of any name",
	}[a.policy.Name]
}

const admissionFix = "apply Kith's manifest (kith.yaml, or the chart) again; the policies need Kubernetes 1.30 or newer"

// shippedAdmissions reads policies and bindings of the same names from YAML documents.
func shippedAdmissions(text string) ([]admission, error) {
	var all []admission
	bindings := map[string]admission1.ValidatingAdmissionPolicyBinding{}
	for _, document := range strings.Split(text, "\n---\n") {
		var kind metav1.TypeMeta
		if err := yaml.Unmarshal([]byte(document), &kind); err != nil {
			return nil, fmt.Errorf("read shipped admission policy: %w", err)
		}
		var err error
		if kind.Kind == "ValidatingAdmissionPolicy" {
			var a admission
			err = yaml.UnmarshalStrict([]byte(document), &a.policy)
			all = append(all, a)
		} else {
			var b admission1.ValidatingAdmissionPolicyBinding
			err = yaml.UnmarshalStrict([]byte(document), &b)
			bindings[b.Name] = b
		}
		if err != nil {
			return nil, fmt.Errorf("read shipped %s: %w", kind.Kind, err)
		}
	}
	for i := range all {
		all[i].binding = bindings[all[i].policy.Name]
	}
	return all, nil
}

// problem says what is wrong with what the API server has of a policy; nothing: it holds what it should.
func (a admission) problem(ctx context.Context, client kubernetes.Interface) (string, error) {
	name, api := a.policy.Name, client.AdmissionregistrationV1()
	var weak []string
	policy, err := api.ValidatingAdmissionPolicies().Get(ctx, name, metav1.GetOptions{})
	if err == nil {
		weak = weakPolicy(a.policy.Spec, policy.Spec)
		var binding *admission1.ValidatingAdmissionPolicyBinding
		if binding, err = api.ValidatingAdmissionPolicyBindings().Get(ctx, name, metav1.GetOptions{}); err == nil {
			weak = append(weak, weakBinding(name, binding.Spec)...)
		}
	}
	switch {
	case apierrors.IsNotFound(err):
		return fmt.Sprintf("admission policy %s or its binding is missing: %s: %s", name, a.risk(), admissionFix), nil
	case apierrors.IsForbidden(err):
		return fmt.Sprintf("admission policy %s may not be looked at: without it, %s: %s", name, a.risk(), admissionFix), nil
	case err != nil:
		return "", fmt.Errorf("get admission policy %s: %w", name, err)
	case len(weak) > 0:
		return fmt.Sprintf("admission policy %s is not as this version of Kith ships it (%s): %s: %s",
			name, strings.Join(weak, ", "), a.risk(), admissionFix), nil
	}
	return "", nil
}

// weakPolicy names the parts of a policy by which it holds less than was wanted. That it refuses more is its owner's wish.
func weakPolicy(want, got admission1.ValidatingAdmissionPolicySpec) []string {
	var weak []string
	report := func(part string, differs bool) {
		if differs {
			weak = append(weak, part)
		}
	}
	report("failurePolicy", got.FailurePolicy != nil && *got.FailurePolicy != admission1.Fail)
	report("paramKind", got.ParamKind != nil)
	report("matchConstraints", !matchesAll(got.MatchConstraints) || got.MatchConstraints == nil ||
		!containsRules(got.MatchConstraints.ResourceRules, want.MatchConstraints.ResourceRules))
	report("matchConditions", !within(got.MatchConditions, want.MatchConditions))
	report("variables", !within(want.Variables, got.Variables))
	report("validations", !within(expressions(want.Validations), expressions(got.Validations)))
	return weak
}

func weakBinding(name string, got admission1.ValidatingAdmissionPolicyBindingSpec) []string {
	if got.PolicyName != name || got.ParamRef != nil || !matchesAll(got.MatchResources) ||
		got.MatchResources != nil && len(got.MatchResources.ResourceRules) > 0 ||
		!slices.Contains(got.ValidationActions, admission1.Deny) {
		return []string{"binding"}
	}
	return nil
}

// matchesAll reports whether nothing is left out of what the rules name, in any version that they have.
func matchesAll(m *admission1.MatchResources) bool {
	everything := func(s *metav1.LabelSelector) bool {
		return s == nil || len(s.MatchLabels)+len(s.MatchExpressions) == 0
	}
	return m == nil || len(m.ExcludeResourceRules) == 0 && everything(m.NamespaceSelector) && everything(m.ObjectSelector) &&
		(m.MatchPolicy == nil || *m.MatchPolicy == admission1.Equivalent)
}

// containsRules leaves out what the API server fills in: the scope of all.
func containsRules(got, want []admission1.NamedRuleWithOperations) bool {
	all := admission1.AllScopes
	scoped := func(rules []admission1.NamedRuleWithOperations) []admission1.NamedRuleWithOperations {
		rules = slices.Clone(rules)
		for i := range rules {
			if rules[i].Scope == nil {
				rules[i].Scope = &all
			}
		}
		return rules
	}
	return within(scoped(want), scoped(got))
}

func expressions(all []admission1.Validation) []string {
	var out []string
	for _, v := range all {
		out = append(out, v.Expression)
	}
	return out
}

// within reports whether all of some are among others.
func within[T any](some, others []T) bool {
	for i := range some {
		if !slices.ContainsFunc(others, func(o T) bool { return reflect.DeepEqual(o, some[i]) }) {
			return false
		}
	}
	return true
}
