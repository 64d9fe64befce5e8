package kube

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kithnet/kith/policy"
)

// TestBoundIsTold: a policy that is too large closes its rule, and the problem and the condition name rule and fix. What the
// watch remembers of it stays as it is.
func TestBoundIsTold(t *testing.T) {
	block := policy.Peer{Block: &policy.Block{CIDR: netip.MustParsePrefix("192.0.2.0/24")}}
	rules := policy.Rules{
		{AllPeers: true, AllPorts: true, Action: policy.Pass},
		{Action: policy.Deny, Peers: []policy.Peer{block, block, block}, AllPorts: true},
		{Action: policy.Deny, Peers: []policy.Peer{block, block, block}, AllPorts: true},
	}
	p := policy.Policy{Tier: policy.Admin, Name: "large", Namespaces: labels.Everything(), Subject: labels.Everything(), Egress: &rules}
	in := Change{Name: p.Key(), Put: &p, Object: &Object{Name: "large", Generation: 1}}
	c := in.Bounded(2)
	got := *c.Put.Egress
	if got[0].Action != policy.Pass || got[1].Action != policy.Deny || !got[1].AllPeers || !got[2].AllPeers {
		t.Errorf("the rules are %+v", got)
	}
	if rules[1].AllPeers || len(in.Object.Problems) > 0 {
		t.Error("what it was made of has changed")
	}
	if len(c.Problems) != 1 {
		t.Fatalf("problems: %v", c.Problems)
	}
	for _, part := range []string{"cluster network policy large", "spec.egress[1]", "3 elements", "more than the 2", "denies all", "1 rules behind", "policy.maxElements"} {
		if !strings.Contains(c.Problems[0].Error(), part) {
			t.Errorf("%q is not in %q", part, c.Problems[0])
		}
	}
	status := Conditions([]Object{*c.Object}, nil, time.Unix(0, 0))
	if cond := meta.FindStatusCondition(status[0].Conditions, ConditionAccepted); cond == nil || cond.Status != "False" || !strings.Contains(cond.Message, "spec.egress[1]") {
		t.Errorf("the condition is %v", cond)
	}
	if same := in.Bounded(7); same.Put != in.Put || len(same.Problems) > 0 {
		t.Errorf("at the limit there are problems: %v", same.Problems)
	}
	if gone := (Change{Name: p.Key()}).Bounded(2); gone.Put != nil || len(gone.Problems) > 0 {
		t.Errorf("a policy that is gone has problems: %v", gone.Problems)
	}
}
