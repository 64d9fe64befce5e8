package kube

import (
	"fmt"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kithnet/kith/policy"
)

// TestRulesAreBounded: of a policy with very many rules, each of which takes three bytes to write, a bounded number is kept,
// those behind allow nothing, and that is told.
func TestRulesAreBounded(t *testing.T) {
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "many"}}
	np.Spec.Ingress = make([]networkingv1.NetworkPolicyIngressRule, 10*policy.MaxRules)
	np.Spec.Egress = make([]networkingv1.NetworkPolicyEgressRule, policy.MaxRules)
	kept, err := slim(np)
	if err != nil {
		t.Fatal(err)
	}
	if n := cap(kept.(*networkingv1.NetworkPolicy).Spec.Ingress); n > 2*policy.MaxRules {
		t.Errorf("%d rules are kept", n)
	}
	p, problems := Translate(kept.(*networkingv1.NetworkPolicy))
	if len(*p.Ingress) != policy.MaxRules || len(*p.Egress) != policy.MaxRules {
		t.Errorf("the policy has %d and %d rules, want %d", len(*p.Ingress), len(*p.Egress), policy.MaxRules)
	}
	if want := fmt.Sprintf("spec.ingress[%d]", policy.MaxRules); len(problems) != 1 || problems[0].Field != want {
		t.Errorf("problems %v, want one of %s", problems, want)
	}
	if (*p.Ingress)[0].AllPeers != true {
		t.Error("the rules before allow nothing")
	}
}
