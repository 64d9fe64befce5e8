package main

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/kithnet/kith/cni"
	"github.com/kithnet/kith/cni/ipam"
)

// TestEnforcerEndsLast holds that what the others need to undo what they began ends after them, and also when it is one
// of them that fails.
func TestEnforcerEndsLast(t *testing.T) {
	broken := errors.New("broken")
	for name, failure := range map[string]error{"the agent is to end": nil, "a task fails": broken} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			asked, answers := make(chan struct{}), make(chan struct{})
			err := together(ctx, map[string]task{"enforcer": func(ctx context.Context) error {
				for {
					select {
					case <-asked:
						close(answers)
						asked = nil
					case <-ctx.Done():
						return nil
					}
				}
			}}, map[string]task{
				"server": func(ctx context.Context) error {
					<-ctx.Done()
					close(asked)
					<-answers
					return nil
				},
				"other": func(context.Context) error { cancel(); return failure },
			})
			if !errors.Is(err, failure) {
				t.Errorf("error %v, want %v", err, failure)
			}
		})
	}
}

// TestNeededTaskThatFailsEndsAll holds the other way round.
func TestNeededTaskThatFailsEndsAll(t *testing.T) {
	broken := errors.New("broken")
	err := together(t.Context(), map[string]task{"enforcer": func(context.Context) error { return broken }},
		map[string]task{"server": func(ctx context.Context) error { <-ctx.Done(); return nil }})
	if !errors.Is(err, broken) {
		t.Errorf("error %v, want %v", err, broken)
	}
}

// TestEndedAttachmentsStayEnded: what ends while the agent starts, a DEL that waited for it or a pod that went with a
// reboot, does not come back with the attachments of before.
func TestEndedAttachmentsStayEnded(t *testing.T) {
	store, err := ipam.Open(filepath.Join(t.TempDir(), "ipam"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	if err := store.SetCIDRs(prefixes("10.1.0.0/24")); err != nil {
		t.Fatal(err)
	}
	at, err := store.Allocate(cni.NewAttachment(cni.Request{Key: testAttachment.Key, Pod: testAttachment.Pod}, 1420))
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Commit(at.Key); err != nil {
		t.Fatal(err)
	}
	e, _ := startEnforcer(t, &memoryTable{})
	a := &agent{log: slog.New(slog.DiscardHandler), store: store, enforcer: e}
	a.resume()
	if err := (gate{enforcer: e}).Close(t.Context(), at); err != nil {
		t.Fatal(err)
	}
	e.Complete()
	if err := (gate{enforcer: e}).Check(t.Context(), at); err == nil {
		t.Error("an attachment that has ended is open")
	}
	if n := e.Enforcement().Counts.Attachments; n != 0 {
		t.Errorf("%d attachments, want none", n)
	}
}
