package kube

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var (
	long = time.Unix(1000, 0)
	now  = time.Unix(2000, 500)
)

func condition(kind, status, reason, message string) metav1.Condition {
	return metav1.Condition{
		Type: kind, Status: metav1.ConditionStatus(status), Reason: reason, Message: message, ObservedGeneration: 2,
		LastTransitionTime: metav1.NewTime(time.Unix(2000, 0)),
	}
}

func before(c metav1.Condition) metav1.Condition {
	c.LastTransitionTime = metav1.NewTime(long)
	return c
}

// TestConditions holds that an object's status says what is wrong with it and how many kernels have it, that a time
// changes with its status alone, and that what is said already is not written again.
func TestConditions(t *testing.T) {
	accepted := condition("Accepted", "True", "Accepted", "every part is understood")
	enforced := condition("Enforced", "True", "Enforced", "enforced on 2 of 2 nodes")
	waiting := condition("Enforced", "False", "Waiting", "enforced on 1 of 2 nodes")
	stale := before(accepted)
	stale.ObservedGeneration = 1
	problems := []Problem{{Field: "spec.tier", Message: "no tier", Fix: "use Admin"}, {Field: "spec.subject", Message: "empty", Fix: "set pods"}}
	others := metav1.Condition{Type: "Audited", Status: metav1.ConditionTrue}
	for _, tt := range []struct {
		name     string
		problems []Problem
		have     []metav1.Condition
		nodes    string // whether each has the policies
		want     []metav1.Condition
	}{
		{"new", nil, nil, "yy", []metav1.Condition{accepted, enforced}},
		{"said already, and something by others", nil, []metav1.Condition{before(enforced), others, before(accepted)}, "yy", nil},
		{"not everywhere", nil, []metav1.Condition{before(accepted), before(enforced)}, "yn", []metav1.Condition{before(accepted), waiting}},
		{"everywhere", nil, []metav1.Condition{before(accepted), before(waiting)}, "yy", []metav1.Condition{before(accepted), enforced}},
		{"changed object", nil, []metav1.Condition{stale, before(enforced)}, "yy", []metav1.Condition{before(accepted), before(enforced)}},
		{"nowhere yet", nil, nil, "", []metav1.Condition{accepted, condition("Enforced", "False", "Waiting", "enforced on 0 of 0 nodes")}},
		{"problems", problems, []metav1.Condition{before(accepted), before(enforced)}, "yy", []metav1.Condition{
			condition("Accepted", "False", "Refused", "spec.tier: no tier; use Admin\nspec.subject: empty; set pods"), before(enforced),
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := Object{Name: "a", UID: "1", Version: "5", Generation: 2, Problems: tt.problems, Conditions: tt.have}
			digests := map[string]string{}
			for i, has := range tt.nodes {
				digests[string(rune('a'+i))] = map[rune]string{'y': Digest([]Object{o}), 'n': "other"}[has]
			}
			var want []Status
			if tt.want != nil {
				want = []Status{{Name: "a", Version: "5", Conditions: tt.want}}
			}
			if diff := cmp.Diff(want, Conditions([]Object{o}, digests, now)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestManyProblemsHaveABound(t *testing.T) {
	problems := slices.Repeat([]Problem{{Field: "spec", Message: strings.Repeat("ä", 5000), Fix: "shorten it"}}, 100)
	message := acceptance(problems).Message
	if len(message) > maxMessage+100 || !strings.HasSuffix(message, "\nand 93 more") || strings.ToValidUTF8(message, "") != message {
		t.Errorf("%d bytes: ...%s", len(message), message[len(message)-50:])
	}
}

func TestDigest(t *testing.T) {
	a, b := Object{Name: "a", UID: "1", Generation: 1}, Object{Name: "b", UID: "2", Generation: 1}
	seen := map[string]bool{}
	newer, another := a, a
	newer.Generation, another.UID = 2, "3"
	for _, set := range [][]Object{{}, {a}, {b}, {a, b}, {newer, b}, {another, b}} {
		seen[Digest(set)] = true
	}
	if len(seen) != 6 {
		t.Errorf("digests %v", seen)
	}
	other := a
	other.Conditions, other.Problems = []metav1.Condition{{}}, []Problem{{}}
	if Digest([]Object{a, b}) != Digest([]Object{b, other}) {
		t.Error("the digest depends on order, status or problems")
	}
}
