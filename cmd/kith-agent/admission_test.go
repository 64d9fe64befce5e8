package main

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"

	admission1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"

	"github.com/kithnet/kith/deploy"
)

// TestMissingAdmissionPolicyIsTold holds that an API server which lets an agent annotate another Node is told loudly, one
// that does not is no problem, and one that does not answer changes nothing.
func TestMissingAdmissionPolicyIsTold(t *testing.T) {
	client := fake.NewClientset(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n2"}})
	var answer error
	client.PrependReactor("patch", "nodes", func(action ktesting.Action) (bool, runtime.Object, error) {
		patch, ok := action.(ktesting.PatchActionImpl)
		if !ok || patch.Name != "n2" || len(patch.PatchOptions.DryRun) != 1 {
			t.Errorf("not a dry run on the other node: %+v", action)
		}
		return true, &corev1.Node{}, answer
	})
	var log bytes.Buffer
	c := &admissionCheck{log: slog.New(slog.NewTextHandler(&log, nil)), client: client}
	forbidden := apierrors.NewForbidden(corev1.Resource("nodes"), "n2", errors.New("only its own"))
	for _, step := range []struct {
		answer error
		told   bool
	}{{forbidden, false}, {nil, true}, {errors.New("away"), true}, {forbidden, false}, {errors.New("away"), false}} {
		answer = step.answer
		err := c.try(t.Context(), "n2")
		if told := strings.Contains(strings.Join(c.Problems(), ""), "any node can speak for any other"); told != step.told {
			t.Errorf("answer %v: told %t, want %t (%v)", step.answer, told, step.told, err)
		}
	}
	if !strings.Contains(log.String(), "level=ERROR") {
		t.Errorf("log: %s", &log)
	}
}

// shippedObjects are the policies as an API server shows them, with what it fills in.
func shippedObjects(t *testing.T) (policies map[string]*admission1.ValidatingAdmissionPolicy, bindings map[string]*admission1.ValidatingAdmissionPolicyBinding, shipped []admission) {
	t.Helper()
	shipped, err := shippedAdmissions(deploy.AdmissionPolicies("kith-system"))
	if err != nil {
		t.Fatal(err)
	}
	policies, bindings = map[string]*admission1.ValidatingAdmissionPolicy{}, map[string]*admission1.ValidatingAdmissionPolicyBinding{}
	scope, equivalent := admission1.AllScopes, admission1.Equivalent
	for _, a := range shipped {
		p := a.policy.DeepCopy()
		for i := range p.Spec.MatchConstraints.ResourceRules {
			p.Spec.MatchConstraints.ResourceRules[i].Scope = &scope
		}
		p.Spec.MatchConstraints.MatchPolicy = &equivalent
		p.Spec.MatchConstraints.NamespaceSelector, p.Spec.MatchConstraints.ObjectSelector = &metav1.LabelSelector{}, &metav1.LabelSelector{}
		policies[p.Name], bindings[p.Name] = p, a.binding.DeepCopy()
	}
	return policies, bindings, shipped
}

// TestWeakAdmissionPolicyIsNamed holds that a policy about others than agents that is missing, or holds less than the one
// that is shipped, is a problem that names it with the fix, and that one which refuses more is none.
func TestWeakAdmissionPolicyIsNamed(t *testing.T) {
	type (
		policy  = admission1.ValidatingAdmissionPolicy
		binding = admission1.ValidatingAdmissionPolicyBinding
	)
	ignore, exact := admission1.Ignore, admission1.Exact
	some := &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}
	for name, test := range map[string]struct {
		change func(*policy, *binding)
		part   string
	}{
		"as shipped": {func(*policy, *binding) {}, ""},
		"one check more": {func(p *policy, _ *binding) {
			p.Spec.Validations = append(p.Spec.Validations, admission1.Validation{Expression: "false"})
		}, ""},
		"condition away":  {func(p *policy, _ *binding) { p.Spec.MatchConditions = p.Spec.MatchConditions[1:] }, ""},
		"no policy":       {func(p *policy, _ *binding) { p.Name = "" }, "missing"},
		"no binding":      {func(_ *policy, b *binding) { b.Name = "" }, "missing"},
		"fails open":      {func(p *policy, _ *binding) { p.Spec.FailurePolicy = &ignore }, "(failurePolicy)"},
		"by parameters":   {func(p *policy, _ *binding) { p.Spec.ParamKind = &admission1.ParamKind{} }, "(paramKind)"},
		"no match":        {func(p *policy, _ *binding) { p.Spec.MatchConstraints = nil }, "(matchConstraints)"},
		"other resources": {func(p *policy, _ *binding) { p.Spec.MatchConstraints.ResourceRules[0].Resources = []string{"pods"} }, "(matchConstraints)"},
		"not on create": {func(p *policy, _ *binding) {
			p.Spec.MatchConstraints.ResourceRules[0].Operations = []admission1.OperationType{"UPDATE"}
		}, "(matchConstraints)"},
		"exact versions": {func(p *policy, _ *binding) { p.Spec.MatchConstraints.MatchPolicy = &exact }, "(matchConstraints)"},
		"some objects":   {func(p *policy, _ *binding) { p.Spec.MatchConstraints.ObjectSelector = some }, "(matchConstraints)"},
		"some left out": {func(p *policy, _ *binding) {
			p.Spec.MatchConstraints.ExcludeResourceRules = p.Spec.MatchConstraints.ResourceRules
		}, "(matchConstraints)"},
		"one more condition": {func(p *policy, _ *binding) {
			p.Spec.MatchConditions = append(p.Spec.MatchConditions, admission1.MatchCondition{Name: "x", Expression: "false"})
		}, "(matchConditions)"},
		"another condition": {func(p *policy, _ *binding) { p.Spec.MatchConditions[0].Expression = "false" }, "(matchConditions)"},
		"another variable":  {func(p *policy, _ *binding) { p.Spec.Variables[0].Expression = "{}" }, "(variables)"},
		"another check":     {func(p *policy, _ *binding) { p.Spec.Validations[0].Expression = "true" }, "(validations)"},
		"only warns":        {func(_ *policy, b *binding) { b.Spec.ValidationActions = []admission1.ValidationAction{admission1.Warn} }, "(binding)"},
		"binds another":     {func(_ *policy, b *binding) { b.Spec.PolicyName = "kith-node" }, "(binding)"},
		"binds some": {func(_ *policy, b *binding) {
			b.Spec.MatchResources = &admission1.MatchResources{NamespaceSelector: some}
		}, "(binding)"},
		"binds parameters": {func(_ *policy, b *binding) { b.Spec.ParamRef = &admission1.ParamRef{} }, "(binding)"},
	} {
		for _, about := range []string{"kith-annotations", "kith-pod-cidrs"} {
			policies, bindings, shipped := shippedObjects(t)
			test.change(policies[about], bindings[about])
			client := fake.NewClientset()
			for of, p := range policies {
				if p.Name == of {
					_ = client.Tracker().Add(p)
				}
				if bindings[of].Name == of {
					_ = client.Tracker().Add(bindings[of])
				}
			}
			c := &admissionCheck{log: slog.New(slog.DiscardHandler), client: client, shipped: shipped}
			if err := c.compare(t.Context()); err != nil {
				t.Fatal(err)
			}
			got := c.Problems()
			switch {
			case test.part == "" && len(got) != 0:
				t.Errorf("%s: %q", name, got)
			case test.part != "" && (len(got) != 1 || !strings.Contains(got[0], about) || !strings.Contains(got[0], test.part) || !strings.Contains(got[0], "apply Kith's manifest")):
				t.Errorf("%s of %s: %q", name, about, got)
			}
		}
	}
}

// TestAdmissionPoliciesAreAskedFor holds that an API server which does not answer changes nothing, that one which does not
// show its policies is named, and that the agents' role lets them look at every policy that is shipped.
func TestAdmissionPoliciesAreAskedFor(t *testing.T) {
	_, _, shipped := shippedObjects(t)
	client := fake.NewClientset()
	var answer error
	client.PrependReactor("get", "validatingadmissionpolicies", func(ktesting.Action) (bool, runtime.Object, error) {
		return true, &admission1.ValidatingAdmissionPolicy{}, answer
	})
	c := &admissionCheck{log: slog.New(slog.DiscardHandler), client: client, shipped: shipped}
	answer = apierrors.NewForbidden(admission1.Resource("validatingadmissionpolicies"), "x", nil)
	if err := c.compare(t.Context()); err != nil || len(c.Problems()) != 4 {
		t.Errorf("%q (%v)", c.Problems(), err)
	}
	answer = errors.New("away")
	if err := c.compare(t.Context()); err == nil || len(c.Problems()) != 4 {
		t.Errorf("%q (%v)", c.Problems(), err)
	}
	role, err := os.ReadFile("../../deploy/helm/kith/templates/rbac.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range shipped {
		if a.risk() == "" || a.binding.Name != a.policy.Name || !strings.Contains(string(role), a.policy.Name) {
			t.Errorf("%s: risk %q, binding %q", a.policy.Name, a.risk(), a.binding.Name)
		}
	}
}

// TestPoliciesNameTheAgentsNamespace: what agents in another namespace look for is what the chart installs there, and what was
// installed for another namespace is a problem: it would not know the agents.
func TestPoliciesNameTheAgentsNamespace(t *testing.T) {
	text := deploy.AdmissionPolicies("network")
	if strings.Contains(text, "{{") || strings.Contains(text, "kith-system") || !strings.Contains(text, "system:serviceaccount:network:kith") {
		t.Errorf("policies for another namespace:\n%s", text)
	}
	here, err := shippedAdmissions(text)
	if err != nil {
		t.Fatal(err)
	}
	_, _, usual := shippedObjects(t)
	for i := range here {
		weak := weakPolicy(here[i].policy.Spec, usual[i].policy.Spec)
		if about := here[i].policy.Name != "kith-pod-cidrs"; (len(weak) > 0) != about {
			t.Errorf("%s of another namespace: %v", here[i].policy.Name, weak)
		}
	}
}
