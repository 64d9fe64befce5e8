package kube

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Object is a ClusterNetworkPolicy as the API has it: which version of what is meant, what is wrong with it, and what its
// status says.
type Object struct {
	Name, UID  string
	Version    string // the API's resourceVersion
	Generation int64
	Problems   []Problem
	Conditions []metav1.Condition
}

// Status is what the conditions of an object, in that version, are to say.
type Status struct {
	Name, Version string
	Conditions    []metav1.Condition
}

// The conditions of a ClusterNetworkPolicy.
const (
	ConditionAccepted = "Accepted" // every part of it is understood
	ConditionEnforced = "Enforced" // the kernels of all nodes have it
)

const (
	maxProblem = 1000 // bytes of a condition's message that one problem may take
	maxMessage = 8000 // the API allows 32768
)

// Digest names a set of objects: nodes with the same digest have the same policies, in the same generations.
func Digest(objects []Object) string {
	lines := make([]string, len(objects))
	for i, o := range objects {
		lines[i] = fmt.Sprintf("%s %s %d\n", o.Name, o.UID, o.Generation)
	}
	slices.Sort(lines)
	sum := sha256.Sum256([]byte(strings.Join(lines, "")))
	return hex.EncodeToString(sum[:8])
}

// Conditions returns what is to be written on those objects whose conditions do not say it yet, by name. digests is what
// each node with an agent has in its kernel. now is when what changes now has changed.
func Conditions(objects []Object, digests map[string]string, now time.Time) []Status {
	enforced := enforcement(Digest(objects), digests)
	var out []Status
	for _, o := range objects {
		want := []metav1.Condition{acceptance(o.Problems), enforced}
		if o.settle(want, now) {
			out = append(out, Status{Name: o.Name, Version: o.Version, Conditions: want})
		}
	}
	slices.SortFunc(out, func(a, b Status) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// settle gives the conditions generation and time, and says whether that is news.
func (o Object) settle(want []metav1.Condition, now time.Time) (news bool) {
	for i := range want {
		c := &want[i]
		c.ObservedGeneration, c.LastTransitionTime = o.Generation, metav1.NewTime(now.Truncate(time.Second))
		have := meta.FindStatusCondition(o.Conditions, c.Type)
		if have != nil && have.Status == c.Status {
			c.LastTransitionTime = have.LastTransitionTime
		}
		news = news || have == nil || *have != *c
	}
	return news
}

func acceptance(problems []Problem) metav1.Condition {
	if len(problems) == 0 {
		return metav1.Condition{Type: ConditionAccepted, Status: metav1.ConditionTrue, Reason: "Accepted", Message: "every part is understood"}
	}
	var message strings.Builder
	for i, p := range problems {
		line := fmt.Sprintf("%s: %s; %s", p.Field, p.Message, p.Fix)
		if len(line) > maxProblem {
			line = strings.ToValidUTF8(line[:maxProblem], "") + "..."
		}
		if message.Len()+len(line) > maxMessage {
			fmt.Fprintf(&message, "\nand %d more", len(problems)-i)
			break
		}
		if i > 0 {
			message.WriteByte('\n')
		}
		message.WriteString(line)
	}
	return metav1.Condition{Type: ConditionAccepted, Status: metav1.ConditionFalse, Reason: "Refused", Message: message.String()}
}

func enforcement(digest string, digests map[string]string) metav1.Condition {
	n := 0
	for _, d := range digests {
		if d == digest {
			n++
		}
	}
	c := metav1.Condition{
		Type: ConditionEnforced, Status: metav1.ConditionTrue, Reason: "Enforced",
		Message: fmt.Sprintf("enforced on %d of %d nodes", n, len(digests)),
	}
	if n == 0 || n < len(digests) {
		c.Status, c.Reason = metav1.ConditionFalse, "Waiting"
	}
	return c
}
