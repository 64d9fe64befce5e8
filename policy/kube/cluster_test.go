package kube

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic/fake"
	clienttesting "k8s.io/client-go/testing"
	"sigs.k8s.io/yaml"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
)

var (
	clusterPolicies = schema.GroupVersionResource{Group: ClusterGroup, Version: "v1alpha2", Resource: "clusternetworkpolicies"}
	newerPolicies   = schema.GroupVersionResource{Group: ClusterGroup, Version: "v1beta1", Resource: "clusternetworkpolicies"}
)

func object(t testing.TB, text string) *unstructured.Unstructured {
	t.Helper()
	fields, err := fieldsOf(text)
	if err != nil {
		t.Fatal(err)
	}
	return &unstructured.Unstructured{Object: fields}
}

// fieldsOf has the types that the client has: whole numbers are int64.
func fieldsOf(text string) (map[string]any, error) {
	raw, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		return nil, err
	}
	var fields map[string]any
	err = utiljson.Unmarshal(raw, &fields)
	return fields, err
}

// clusterClient is an API server that serves the older version alone.
func clusterClient(objects ...runtime.Object) *fake.FakeDynamicClient {
	return servingClient(func(v string) bool { return v == clusterPolicies.Version }, objects...)
}

// servingClient is one that serves some versions.
func servingClient(serves func(version string) bool, objects ...runtime.Object) *fake.FakeDynamicClient {
	const list = "ClusterNetworkPolicyList"
	c := fake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{clusterPolicies: list, newerPolicies: list}, objects...)
	missing := func(action clienttesting.Action) (bool, error) {
		kind := action.GetResource()
		return !serves(kind.Version), apierrors.NewNotFound(kind.GroupResource(), "")
	}
	c.PrependReactor("*", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
		is, err := missing(action)
		return is, nil, err
	})
	c.PrependWatchReactor("*", func(action clienttesting.Action) (bool, watch.Interface, error) {
		is, err := missing(action)
		return is, nil, err
	})
	return c
}

// clusterWatch runs a watch on a fake API server that may not know the kind.
func clusterWatch(t *testing.T, known *atomic.Bool, objects ...runtime.Object) (*ClusterWatch, *fake.FakeDynamicClient, chan Change) {
	t.Helper()
	client := clusterClient(objects...)
	client.PrependReactor("list", "clusternetworkpolicies", func(clienttesting.Action) (bool, runtime.Object, error) {
		return !known.Load(), nil, apierrors.NewNotFound(clusterPolicies.GroupResource(), "")
	})
	changes := make(chan Change, 10)
	w, err := NewCluster(client, slog.New(slog.NewTextHandler(io.Discard, nil)), func(c Change) { changes <- c })
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return w, client, changes
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within a minute", what)
		}
	}
}

// awaitWatches waits until a fake API server has so many watches. It forgets what happens between a list and its watch, which a
// real one does not.
func awaitWatches(t *testing.T, actions func() []clienttesting.Action, count int) {
	t.Helper()
	eventually(t, "all is watched", func() bool {
		watches := 0
		for _, a := range actions() {
			if a.GetVerb() == "watch" {
				watches++
			}
		}
		return watches >= count
	})
}

const denyAll = `{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: a, uid: u1, generation: 7, resourceVersion: "1"},
  spec: {tier: Admin, priority: 5, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}}`

// TestSetStatus holds that only the status is applied, to that very version of the object, and that one which is gone is no error.
func TestSetStatus(t *testing.T) {
	client := clusterClient()
	w, err := NewCluster(client, slog.New(slog.DiscardHandler), func(Change) {})
	if err != nil {
		t.Fatal(err)
	}
	patches := make(chan string, 10)
	var answer error
	client.PrependReactor("patch", "clusternetworkpolicies", func(action clienttesting.Action) (bool, runtime.Object, error) {
		if action.GetResource() != clusterPolicies {
			return false, nil, nil
		}
		p, ok := action.(clienttesting.PatchActionImpl)
		if !ok || p.Name != "a" || p.Subresource != "status" || p.PatchType != types.ApplyPatchType {
			t.Errorf("action %+v", action)
		}
		patches <- string(p.Patch)
		return true, object(t, denyAll), answer
	})
	status := Status{Name: "a", Version: "5", Conditions: []metav1.Condition{{
		Type: ConditionAccepted, Status: metav1.ConditionTrue, Reason: "Accepted", Message: "m", ObservedGeneration: 3, LastTransitionTime: metav1.Unix(0, 0),
	}}}
	if err := w.SetStatus(t.Context(), status); err != nil {
		t.Fatal(err)
	}
	want := `{"apiVersion":"policy.networking.k8s.io/v1alpha2","kind":"ClusterNetworkPolicy","metadata":{"name":"a","resourceVersion":"5"},` +
		`"status":{"conditions":[{"lastTransitionTime":"1970-01-01T00:00:00Z","message":"m","observedGeneration":3,"reason":"Accepted","status":"True","type":"Accepted"}]}}`
	if diff := cmp.Diff(want, strings.TrimSpace(<-patches)); diff != "" {
		t.Error(diff)
	}
	for _, step := range []struct {
		answer error
		fails  bool
	}{
		{apierrors.NewNotFound(clusterPolicies.GroupResource(), "a"), false},
		{apierrors.NewConflict(clusterPolicies.GroupResource(), "a", errors.New("changed")), false},
		{errors.New("away"), true},
	} {
		answer = step.answer
		if err := w.SetStatus(t.Context(), status); (err != nil) != step.fails {
			t.Errorf("API answers %v: %v", step.answer, err)
		}
	}
}

func TestClusterWatch(t *testing.T) {
	var known atomic.Bool
	known.Store(true)
	w, client, changes := clusterWatch(t, &known, object(t, denyAll))
	c := next(t, changes)
	if c.Name.String() != "a" || c.Put == nil || c.Object == nil || c.Object.Generation != 7 || c.Object.UID != "u1" || c.Object.Version != "1" || c.Put.Tier != policy.Admin || c.Put.Priority != 5 || len(c.Problems) != 0 {
		t.Errorf("first change is %+v", c)
	}
	eventually(t, "synced", w.HasSynced)
	awaitWatches(t, client.Actions, 2) // the newer version is asked for, and is not there
	bad := object(t, denyAll)
	if err := unstructured.SetNestedField(bad.Object, "Log", "spec", "tier"); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Resource(clusterPolicies).Update(t.Context(), bad, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if c := next(t, changes); c.Put == nil || len(c.Problems) != 1 {
		t.Errorf("after the update: %+v", c)
	}
	if err := client.Resource(clusterPolicies).Delete(t.Context(), "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if c := next(t, changes); c.Name.String() != "a" || c.Put != nil {
		t.Errorf("after the deletion: %+v", c)
	}
}

// TestKindComesLater: without the definition of ClusterNetworkPolicies the agent goes on; when it comes, the watch begins,
// and an ADD that sees policies before it does waits for them.
func TestKindComesLater(t *testing.T) {
	var known atomic.Bool
	w, _, changes := clusterWatch(t, &known, object(t, denyAll))
	eventually(t, "synced without the kind", w.HasSynced)
	if err := w.CatchUp(t.Context(), identity.PodKey{}); err != nil {
		t.Errorf("ADD without the kind: %v", err)
	}
	known.Store(true)
	if err := w.CatchUp(t.Context(), identity.PodKey{}); err != nil {
		t.Errorf("ADD with the kind: %v", err)
	}
	select {
	case c := <-changes:
		if c.Name.String() != "a" || c.Put == nil {
			t.Errorf("change %+v", c)
		}
	default:
		t.Error("CatchUp returned before the policy came")
	}
}

// TestClusterWatchWaitsForAnswer: no answer does not mean that there are no policies.
func TestClusterWatchWaitsForAnswer(t *testing.T) {
	client := clusterClient()
	asked := make(chan struct{}, 100)
	client.PrependReactor("list", "*", func(clienttesting.Action) (bool, runtime.Object, error) {
		asked <- struct{}{}
		return true, nil, errors.New("away")
	})
	w, err := NewCluster(client, slog.New(slog.NewTextHandler(io.Discard, nil)), func(Change) {})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	<-asked
	<-asked // the first answer has been judged
	if w.HasSynced() {
		t.Error("synced without an answer")
	}
	if err := w.CatchUp(ctx, identity.PodKey{}); err == nil {
		t.Error("ADD caught up without an answer")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
