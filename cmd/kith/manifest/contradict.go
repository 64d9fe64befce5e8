package manifest

import (
	"slices"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
)

// contradictions are the pairs of ClusterNetworkPolicies of one tier and priority that both hold for a pod here, in one
// direction, and do not act alike: "the implementation can apply any of the matching policies".
func (r *reader) contradictions() []string {
	var pairs []string
	spaces := map[string]identity.Namespace{}
	for _, ns := range r.cluster.Namespaces {
		spaces[ns.Name] = ns
	}
	all := slices.Clone(r.cluster.Policies)
	slices.SortFunc(all, policy.Policy.Compare)
	for i, p := range all {
		for _, q := range all[i+1:] {
			if p.Tier == policy.NetworkPolicy || q.Tier != p.Tier || q.Priority != p.Priority {
				break
			}
			if actsOtherwise(p, q) && slices.ContainsFunc(r.cluster.Pods, func(pod identity.Pod) bool {
				ns := spaces[pod.Namespace]
				return selectsPod(p, ns, pod) && selectsPod(q, ns, pod)
			}) {
				pairs = append(pairs, p.Name+" and "+q.Name)
			}
		}
	}
	return pairs
}

func selectsPod(p policy.Policy, ns identity.Namespace, pod identity.Pod) bool {
	return p.Selects(ns.Name, ns.LabelSet(), labels.Set(pod.Labels))
}

// actsOtherwise says whether in some direction two policies have rules of different actions.
func actsOtherwise(p, q policy.Policy) bool {
	for _, d := range []policy.Direction{policy.Ingress, policy.Egress} {
		a, b := p.In(d), q.In(d)
		if a == nil || b == nil {
			continue
		}
		for _, x := range *a {
			if slices.ContainsFunc(*b, func(y policy.Rule) bool { return x.Action != y.Action }) {
				return true
			}
		}
	}
	return false
}
