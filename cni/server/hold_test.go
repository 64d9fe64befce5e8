package server

import (
	"context"
	"testing"
	"time"

	"github.com/kithnet/kith/cni"
)

// TestHold: who holds a container keeps its operations waiting, is not let in while one runs or a DEL is pending, and hears
// when that is over.
func TestHold(t *testing.T) {
	n := newNode()
	ended := make(chan struct{}, 10)
	s := n.server(0)
	s = New(Options{Deps: s.Deps, Pending: s.Pending, Log: s.Log, Ended: func() { ended <- struct{}{} }})
	await := func() {
		t.Helper()
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			t.Fatal("nothing is heard of the end")
		}
	}
	socket := start(t, s)
	key := cni.Key{ContainerID: "a", IfName: "eth0"}
	opens, goes := make(chan struct{}), make(chan struct{})
	n.gate["a"] = func(context.Context) error { close(opens); <-goes; return nil }
	added := make(chan error, 1)
	go func() {
		_, err := post(t.Context(), socket, "/cni/add", call(cni.CommandAdd, "a"))
		added <- err
	}()
	<-opens
	if _, free := s.TryHold(key); free {
		t.Error("held during ADD")
	}
	close(goes)
	await()
	if err := <-added; err != nil {
		t.Fatal(err)
	}
	release, free := s.TryHold(key)
	if !free {
		t.Fatal("not free after ADD")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.del(ctx, cni.Request{Key: key}); err == nil || n.left() == 0 {
		t.Errorf("DEL while it is held: %v, left %d", err, n.left())
	}
	release()
	n.mu.Lock()
	n.pending[key] = true
	n.mu.Unlock()
	if _, free := s.TryHold(key); free {
		t.Fatal("held though a DEL is pending")
	}
	if _, err := s.del(t.Context(), cni.Request{Key: key}); err != nil || n.left() != 0 {
		t.Errorf("DEL: %v, left %d", err, n.left())
	}
	await()
}
