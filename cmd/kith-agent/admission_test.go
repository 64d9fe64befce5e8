package main

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"
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
		if told := strings.Contains(c.Problem(), "any node can speak for any other"); told != step.told {
			t.Errorf("answer %v: told %t, want %t (%v)", step.answer, told, step.told, err)
		}
	}
	if !strings.Contains(log.String(), "level=ERROR") {
		t.Errorf("log: %s", &log)
	}
}
