package manifest

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kithnet/kith/policy"
	policykube "github.com/kithnet/kith/policy/kube"
)

// isPolicy: a kind that is a policy's but for capital letters is meant to be one.
func isPolicy(kind string) bool {
	return strings.EqualFold(kind, "NetworkPolicy") || strings.EqualFold(kind, "ClusterNetworkPolicy")
}

func (r *reader) networkPolicy(at place) {
	var o networkingv1.NetworkPolicy
	before := len(r.mistakes)
	if !r.take(&at, "NetworkPolicy", &o, "status") && len(r.mistakes) == before {
		return
	}
	p, problems := policykube.Translate(&o)
	r.policy(at, p, problems, before)
	r.strict(at, &o)
}

func (r *reader) clusterNetworkPolicy(at place) {
	var o policyv1alpha2.ClusterNetworkPolicy
	before := len(r.mistakes)
	if !r.take(&at, "ClusterNetworkPolicy", &o, "status") && len(r.mistakes) == before {
		return
	}
	_, spec := child(at.node, "spec")
	for _, field := range []string{"tier", "priority", "subject"} {
		if spec == nil || !has(spec, field) {
			r.fail(at, "spec."+field, "is missing")
		}
	}
	p, problems := policykube.TranslateCluster(&o)
	r.policy(at, p, problems, before)
	if spec != nil {
		r.hold(at, r.clusterLimits(), before)
	}
}

func has(node *yaml.Node, field string) bool {
	_, value := child(node, field)
	return value != nil && follow(value).Tag != "!!null"
}

// policy takes what a policy means. Of a field in which there is a mistake already, nothing more is said.
func (r *reader) policy(at place, p policy.Policy, problems []policykube.Problem, since int) {
	p, large := policykube.Bound(p, policy.MaxElements)
	var fresh []policykube.Problem
	for _, problem := range slices.Concat(problems, large) {
		if !r.isKnown(problem.Field, since) {
			fresh = append(fresh, problem)
		}
	}
	for _, problem := range fresh {
		r.fail(at, problem.Field, problem.Message+"; "+problem.Fix)
	}
	r.cluster.Policies = append(r.cluster.Policies, p)
}
