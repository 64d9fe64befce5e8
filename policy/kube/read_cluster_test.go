package kube

import (
	"encoding/json"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	policyv1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
)

// TestUnreadPartsClose: a part of another form closes as a wrong value does, and the others keep their meaning.
func TestUnreadPartsClose(t *testing.T) {
	const (
		head  = `metadata: {name: b}, spec: {tier: Baseline, priority: 7, subject: {pods: {podSelector: {matchLabels: {app: x}}}}`
		rules = `ingress: [{name: one, action: Accept, from: [{namespaces: {}}]}, {action: Pass, from: [{namespaces: {}}]}, {action: Deny, from: [{namespaces: {}}]}]`
		whole = "b on app=x\n"
		all   = "b on everything\n"
		hard  = "ingress: isolated, 3 rules\n  0: ; \n  1: Deny pods {everything} of namespaces {everything}; any port\n  2: Deny pods {everything} of namespaces {everything}; any port\n"
		deny  = "ingress: isolated, 1 rules\n  0: Deny anybody; any port\n"
		shut  = "ingress: isolated, 1 rules\n  0: Deny anybody; any port\negress: isolated, 1 rules\n  0: Deny anybody; any port\n"
		open  = "egress: not isolated\n"
	)
	for _, tt := range []struct{ text, field, want string }{
		{`{metadata: {name: b}, spec: {tier: Baseline, priority: five, subject: {pods: {podSelector: {matchLabels: {app: x}}}}, ` + rules + `}}`, "spec.priority", whole + hard + open},
		{`{metadata: {name: b}, spec: {tier: [Baseline], priority: 7, subject: {pods: {podSelector: {matchLabels: {app: x}}}}, ` + rules + `}}`, "spec.tier", whole + hard + open},
		{`{metadata: {name: b}, spec: {tier: Baseline, priority: 7, subject: {pods: {podSelector: {matchLabels: {app: 5}}}}, ` + rules + `}}`, "spec.subject", all + hard + open},
		{`{` + head + `, ingress: [{action: Accept, from: [{namespaces: {}}], protocols: any}]}}`, "spec.ingress[0]", whole + "ingress: isolated, 1 rules\n  0: ; \n" + open},
		{`{` + head + `, ingress: [{action: Pass, from: [{namespaces: {matchLabels: {a: 5}}}]}]}}`, "spec.ingress[0]", whole + deny + open},
		{`{` + head + `, ingress: [{action: 5, from: [{namespaces: {}}]}]}}`, "spec.ingress[0]", whole + deny + open},
		{`{` + head + `, ingress: [rule]}}`, "spec.ingress[0]", whole + deny + open},
		{`{` + head + `, ingress: {action: Accept}}}`, "spec.ingress", whole + deny + open},
		{`{metadata: {name: b}, spec: later}`, "spec", all + shut},
	} {
		t.Run(tt.field, func(t *testing.T) {
			p, unread, problems := readObject(object(t, tt.text))
			if len(unread) != 1 || unread[0].Field != tt.field || unread[0].Fix == "" || unread[0].Policy.String() != "b" {
				t.Errorf("unread %+v, want %s", unread, tt.field)
			}
			if d := cmp.Diff(unread, problems); d != "" {
				t.Errorf("problems (-unread +all)\n%s", d)
			}
			if d := cmp.Diff(tt.want, describe(p)); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}

func withPriority(t *testing.T, version string, priority any) *unstructured.Unstructured {
	t.Helper()
	u := object(t, denyAll)
	u.SetResourceVersion(version)
	if err := unstructured.SetNestedField(u.Object, priority, "spec", "priority"); err != nil {
		t.Fatal(err)
	}
	return u
}

// TestUnreadObject: a policy of another form that is there when the agent starts denies what it denies, is told as refused,
// and keeps no ADD waiting. One that is known keeps its meaning. A good version heals, as does a deletion, after which
// nothing is known.
func TestUnreadObject(t *testing.T) {
	var known atomic.Bool
	known.Store(true)
	w, client, changes := clusterWatch(t, &known, withPriority(t, "1", "five"))
	update := func(u *unstructured.Unstructured) {
		t.Helper()
		if _, err := client.Resource(clusterPolicies).Update(t.Context(), u, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	is := func(when string, priority int32, problems int) {
		t.Helper()
		c := next(t, changes)
		if c.Put == nil || c.Put.Priority != priority || (*c.Put.Ingress)[0].Action != policy.Deny || len(c.Problems) != problems {
			t.Fatalf("%s: %+v", when, c)
		}
		if err := w.CatchUp(t.Context(), identity.PodKey{}); err != nil {
			t.Fatalf("%s: ADD: %v", when, err)
		}
		want := map[int]metav1.ConditionStatus{0: metav1.ConditionTrue, 1: metav1.ConditionFalse}[problems]
		if accepted := Conditions([]Object{*c.Object}, nil, now)[0].Conditions[0]; accepted.Type != ConditionAccepted || accepted.Status != want {
			t.Errorf("%s: condition %+v", when, accepted)
		}
		if problems > 0 && c.Problems[0].Field != "spec.priority" {
			t.Errorf("%s: %+v", when, c.Problems)
		}
	}
	is("bad at start", 0, 1)
	eventually(t, "synced", w.HasSynced)
	update(withPriority(t, "2", int64(5)))
	is("healed", 5, 0)
	update(withPriority(t, "3", "five"))
	is("bad, and known", 5, 1)
	update(withPriority(t, "4", int64(6)))
	is("healed again", 6, 0)
	other := withPriority(t, "5", "five")
	other.SetUID("u2")
	update(other)
	is("made anew under its name", 0, 1)
	update(withPriority(t, "6", int64(6)))
	is("known again", 6, 0)
	if err := client.Resource(clusterPolicies).Delete(t.Context(), "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if c := next(t, changes); c.Name.String() != "a" || c.Put != nil || len(c.Problems) != 0 {
		t.Errorf("after the deletion: %+v", c)
	}
	if _, err := client.Resource(clusterPolicies).Create(t.Context(), withPriority(t, "7", "five"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	is("bad after the deletion", 0, 1)
}

// TestConditionsOfOthers: a condition of another form does not hide ours.
func TestConditionsOfOthers(t *testing.T) {
	got := readConditions(object(t, `{status: {conditions: [{type: Accepted, status: "True"}, {type: 5}, later]}}`))
	if d := cmp.Diff([]metav1.Condition{{Type: ConditionAccepted, Status: metav1.ConditionTrue}}, got); d != "" {
		t.Error(d)
	}
	if got := readConditions(object(t, `{status: later}`)); got != nil {
		t.Errorf("conditions %v", got)
	}
}

// FuzzReadObject: an object of whatever form is read, with a problem if it is not of ours, and without if it means the same
// to who reads it whole.
func FuzzReadObject(f *testing.F) {
	f.Add(denyAll)
	f.Add(`{spec: {tier: Admin, priority: 1.5, subject: {namespaces: {matchLabels: {a: 1}}}, egress: [{action: [], to: 5}, null, {to: [null]}]}}`)
	f.Fuzz(func(t *testing.T, text string) {
		fields, err := fieldsOf(text)
		if err != nil {
			return
		}
		u := &unstructured.Unstructured{Object: fields}
		p, unread, problems := readObject(u)
		if p.Subject == nil || p.Namespaces == nil || len(unread) > len(problems) {
			t.Fatalf("subject %v of %v, unread %v of %v", p.Subject, p.Namespaces, unread, problems)
		}
		spec, err := json.Marshal(map[string]any{"spec": u.Object["spec"]})
		if err != nil {
			t.Fatal(err)
		}
		var cnp policyv1alpha2.ClusterNetworkPolicy
		err = runtime.DefaultUnstructuredConverter.FromUnstructured(map[string]any{"spec": u.Object["spec"]}, &cnp)
		if (err != nil) != (len(unread) > 0) {
			t.Fatalf("%s: read whole: %v; unread %v", spec, err, unread)
		}
		if err != nil {
			return
		}
		cnp.Name = u.GetName()
		want, wantProblems := TranslateCluster(&cnp)
		if d := cmp.Diff(describe(want), describe(p)); d != "" || len(wantProblems) != len(problems) {
			t.Errorf("%s: problems %v, want %v; (-want +got)\n%s", spec, problems, wantProblems, d)
		}
	})
}
