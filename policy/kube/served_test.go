package kube

import (
	"context"
	"log/slog"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	clienttesting "k8s.io/client-go/testing"

	"github.com/kithnet/kith/identity"
)

// definitions is what an API server serves, and the watches that it ends when that changes.
type definitions struct {
	mu      sync.Mutex
	served  map[string]bool
	watches []watch.Interface
	watched []string // the version of each
}

func (d *definitions) serves(version string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.served[version]
}

func (d *definitions) serve(versions ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.served = map[string]bool{}
	for _, v := range versions {
		d.served[v] = true
	}
	for _, w := range d.watches {
		w.Stop()
	}
	d.watches = nil
}

// watchedNow is the version of the watch that has begun since the definitions changed.
func (d *definitions) watchedNow() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.watches) == 0 {
		return ""
	}
	return d.watched[len(d.watched)-1]
}

// TestVersionsChange: the newest version that is served is watched, also when another one comes or goes; nothing that policies
// mean is lost then, and who asks in between is answered.
func TestVersionsChange(t *testing.T) {
	older, newer := object(t, denyAll), object(t, denyAll)
	newer.SetAPIVersion(ClusterGroup + "/" + newerPolicies.Version)
	d := &definitions{served: map[string]bool{clusterPolicies.Version: true}}
	client := servingClient(d.serves, older, newer)
	client.PrependWatchReactor("*", func(action clienttesting.Action) (bool, watch.Interface, error) {
		version := action.GetResource().Version
		if !d.serves(version) {
			return false, nil, nil
		}
		w, err := client.Tracker().Watch(action.GetResource(), "")
		d.mu.Lock()
		defer d.mu.Unlock()
		d.watches, d.watched = append(d.watches, w), append(d.watched, version)
		return true, w, err
	})
	changes := make(chan Change, 100)
	w, err := NewCluster(client, slog.New(slog.DiscardHandler), func(c Change) { changes <- c })
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
	if c := next(t, changes); c.Put == nil {
		t.Fatalf("first change is %+v", c)
	}
	eventually(t, "the first watch", func() bool { return d.watchedNow() != "" })
	for i, step := range []struct {
		serve []string
		want  string
	}{
		{[]string{"v1alpha2"}, "v1alpha2"}, {[]string{"v1alpha2", "v1beta1"}, "v1beta1"}, {[]string{"v1beta1"}, "v1beta1"},
		{[]string{"v1beta1", "v1alpha2"}, "v1beta1"}, {[]string{"v1alpha2"}, "v1alpha2"},
	} {
		d.serve(step.serve...)
		if err := w.CatchUp(ctx, identity.PodKey{}); err != nil {
			t.Errorf("%v: catch up: %v", step.serve, err)
		}
		eventually(t, step.want+" is watched", func() bool { return d.watchedNow() == step.want })
		kind := newerPolicies
		if step.want == clusterPolicies.Version {
			kind = clusterPolicies
		}
		changed := object(t, denyAll)
		changed.SetAPIVersion(kind.GroupVersion().String())
		changed.SetGeneration(int64(i) + 100)
		if _, err := client.Resource(kind).Update(ctx, changed, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		for seen := false; !seen; {
			c := next(t, changes)
			if c.Put == nil {
				t.Fatalf("%v: policy is taken away: %+v", step.serve, c)
			}
			seen = c.Object.Generation == changed.GetGeneration()
		}
	}
}

// TestStatusInTheServedVersion: conditions are written in a version that is served.
func TestStatusInTheServedVersion(t *testing.T) {
	for _, version := range ClusterVersions() {
		client := servingClient(func(v string) bool { return v == version })
		var wrote []string
		client.PrependReactor("patch", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
			if action.GetResource().Version != version {
				return false, nil, nil
			}
			wrote = append(wrote, string(action.(clienttesting.PatchActionImpl).Patch))
			return true, object(t, denyAll), nil
		})
		w, err := NewCluster(client, slog.New(slog.DiscardHandler), func(Change) {})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.SetStatus(t.Context(), Status{Name: "a", Version: "5"}); err != nil || len(wrote) != 1 {
			t.Errorf("%s: %v, written %q", version, err, wrote)
		}
	}
}
