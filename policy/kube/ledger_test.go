package kube

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	metadatafake "k8s.io/client-go/metadata/fake"
	kubetesting "k8s.io/client-go/testing"

	"github.com/kithnet/kith/identity"
)

func TestBehind(t *testing.T) {
	given := map[string]string{"b": "9", "c": "12"}
	tests := []struct {
		name string
		now  inventory
		want string
	}{
		{"the same", inventory{map[string]string{"b": "9", "c": "12"}, "20"}, ""},
		{"older than what was given", inventory{map[string]string{"b": "8", "c": "11"}, "12"}, ""},
		{"another", inventory{map[string]string{"b": "9", "c": "12", "d": "13"}, "20"}, "d"},
		{"a newer one", inventory{map[string]string{"b": "10", "c": "12"}, "20"}, "b"},
		{"one is gone", inventory{map[string]string{"b": "9"}, "20"}, "c"},
		{"one came later", inventory{map[string]string{"b": "9"}, "11"}, ""},
		{"without a version", inventory{map[string]string{"b": ""}, "11"}, "b"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := newLedger()
			for name, version := range given {
				l.put("a", name, version)
			}
			l.put("other", "z", "1")
			want := tt.want
			if want != "" {
				want = "a/" + want
			}
			if got, _ := l.behind(inventories{spaces: map[string]inventory{"a": tt.now}}); got != want {
				t.Errorf("%q is behind, want %q", got, want)
			}
		})
	}
}

// server has objects of one namespace, by name and version, and a history of them.
type server struct {
	mu      sync.Mutex
	version int
	objects map[string]string
	history []func(*ledger)
}

func (s *server) change(r *rand.Rand) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
	name, version := fmt.Sprint("p", r.IntN(4)), strconv.Itoa(s.version)
	if _, there := s.objects[name]; there && r.IntN(3) == 0 {
		delete(s.objects, name)
		s.history = append(s.history, func(l *ledger) { l.delete("a", name) })
		return
	}
	s.objects[name] = version
	s.history = append(s.history, func(l *ledger) { l.put("a", name, version) })
}

func (s *server) take(context.Context) (inventories, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	version := strconv.Itoa(s.version)
	now := inventories{spaces: map[string]inventory{}, version: version, all: true}
	if len(s.objects) > 0 {
		now.spaces["a"] = inventory{maps.Clone(s.objects), version}
	}
	return now, nil
}

// TestCatchUp lets the watch be late by random times while the server changes: what was there when CatchUp was called
// has always been given when it returns.
func TestCatchUp(t *testing.T) {
	for seed := range uint64(300) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			s := &server{version: 8, objects: map[string]string{}}
			l := newLedger()
			for range r.IntN(12) {
				s.change(r)
			}
			asked, given := len(s.history), 0
			done := make(chan error, 1)
			go func() { done <- l.catchUp(t.Context(), s.take) }()
			for synctest.Wait(); ; synctest.Wait() {
				select {
				case err := <-done:
					if err != nil || !agree(s.history, given, asked) {
						t.Fatalf("seed %d: returned (%v) after %d of %d changes", seed, err, given, asked)
					}
					return
				default:
				}
				switch {
				case r.IntN(4) == 0 && len(s.history) < 40:
					s.change(r)
				case given < len(s.history) && r.IntN(2) == 0:
					s.history[given](l)
					given++
				default:
					time.Sleep(time.Duration(r.IntN(500)) * time.Millisecond)
				}
			}
		})
	}
}

// agree says whether what was given is what the server had when asked or at some moment since: what came and went need
// not be given.
func agree(history []func(*ledger), given, asked int) bool {
	have, server := newLedger(), newLedger()
	for _, change := range history[:given] {
		change(have)
	}
	for i := 0; ; i++ {
		if i >= asked && cmp.Equal(have.spaces, server.spaces) {
			return true
		}
		if i == len(history) {
			return false
		}
		history[i](server)
	}
}

func TestCatchUpEnds(t *testing.T) {
	client, names := fake.NewClientset(), names()
	w, err := New(client, names, func(Change) {})
	if err != nil {
		t.Fatal(err)
	}
	pod := identity.PodKey{Namespace: "a", Name: "b"}
	one := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "b", ResourceVersion: "7"}}
	list := metav1.List{Items: []runtime.RawExtension{{Object: one}}} // as the fake client wants it
	list.ResourceVersion = "8"
	var refusal error
	names.PrependReactor("list", "networkpolicies", func(kubetesting.Action) (bool, runtime.Object, error) {
		if refusal != nil {
			return true, nil, refusal
		}
		return true, &list, nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := w.CatchUp(ctx, pod); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with a policy that the watch never brings: %v", err)
	}
	w.given.put("a", "b", "7")
	if err := w.CatchUp(t.Context(), pod); err != nil {
		t.Errorf("with nothing behind: %v", err)
	}
	if asked := client.Actions(); len(asked) > 0 {
		t.Errorf("whole policies are asked for: %v", asked)
	}
	refusal = errors.New("away")
	if err := w.CatchUp(t.Context(), pod); !errors.Is(err, refusal) {
		t.Errorf("without the API server: %v", err)
	}
}

// names is an API server that is asked for names alone, and has none.
func names() *metadatafake.FakeMetadataClient {
	scheme := metadatafake.NewTestScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		panic(err)
	}
	return metadatafake.NewSimpleMetadataClient(scheme)
}
