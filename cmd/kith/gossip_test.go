package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// fakeRing is a cluster of nodes that follow the Secret one look behind; each call may be the one after which the
// command is cut off.
type fakeRing struct {
	t      *testing.T
	ring   gossipRing
	nodes  map[string][]string
	budget int
}

var errCutOff = errors.New("cut off")

func (f *fakeRing) spend() error {
	f.budget--
	if f.budget < 0 {
		return errCutOff
	}
	return nil
}

func (f *fakeRing) load(context.Context) (gossipRing, error) { return f.ring, f.spend() }

func (f *fakeRing) save(_ context.Context, ring gossipRing) error {
	if err := f.spend(); err != nil {
		return err
	}
	f.ring = ring
	return nil
}

// keys lets one node catch up, and holds that all nodes understand each other at any time.
func (f *fakeRing) keys(context.Context) (map[string][]string, error) {
	var want []string
	for _, key := range f.ring.keys {
		want = append(want, fingerprint(key))
	}
	out := map[string][]string{}
	for node, keys := range f.nodes {
		out[node] = keys
	}
	for _, node := range []string{"n1", "n2", "n3"} {
		if !slices.Equal(f.nodes[node], want) {
			f.nodes[node] = want
			break
		}
	}
	for from, sends := range f.nodes {
		for to, accepts := range f.nodes {
			if !slices.Contains(accepts, sends[0]) {
				f.t.Errorf("%s does not understand %s", to, from)
			}
		}
	}
	return out, f.spend()
}

// TestGossipRotateCutOffAnywhere holds that a rotation cut off after any step goes on from there, ends with one new key,
// and that all nodes understand each other on the way.
func TestGossipRotateCutOffAnywhere(t *testing.T) {
	old := freshKey()
	for cut := range 40 {
		f := &fakeRing{t: t, ring: gossipRing{keys: []string{old}}, nodes: map[string][]string{}, budget: cut}
		for _, node := range []string{"n1", "n2", "n3"} {
			f.nodes[node] = []string{fingerprint(old)}
		}
		r := rotation{rotator: f, out: io.Discard, pause: time.Microsecond}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		err := r.run(ctx)
		cancel()
		if err != nil {
			f.budget = 1000
			// Whether it ended just before it was cut off shows in the Secret alone.
			if f.ring.to != "" || f.ring.keys[0] == old {
				err = r.run(t.Context())
			} else {
				err = nil
			}
		}
		if err != nil || len(f.ring.keys) != 1 || f.ring.keys[0] == old || f.ring.to != "" {
			t.Fatalf("cut off after %d calls: %v, %d keys, to %q", cut, err, len(f.ring.keys), f.ring.to)
		}
	}
}

func TestGossipRotateRefuses(t *testing.T) {
	a, b := freshKey(), freshKey()
	for _, ring := range []gossipRing{{}, {keys: []string{a, b}}, {keys: []string{a}, to: fingerprint(b)}} {
		if _, _, err := ring.next(freshKey); err == nil || !strings.Contains(err.Error(), "secret kith-gossip ") {
			t.Errorf("%d keys, to %q: %v", len(ring.keys), ring.to, err)
		}
	}
}

func TestGossipSecret(t *testing.T) {
	secret := &corev1.Secret{}
	put(secret, gossipRing{keys: []string{"a", "b"}, to: "x"})
	if got := fmt.Sprintf("%q %v", secret.Data[gossipField], secret.Annotations); got != `"a\nb\n" map[kith.network/rotate-to:x]` {
		t.Error(got)
	}
	put(secret, gossipRing{keys: []string{"b"}})
	if got := fmt.Sprintf("%q %v", secret.Data[gossipField], secret.Annotations); got != `"b\n" map[]` {
		t.Error(got)
	}
}
