//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestGossipKeyChanges: `kith gossip rotate` gives every node a new key, and no node calls another dead or suspect on the way.
func TestGossipKeyChanges(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	program := filepath.Join(t.TempDir(), "kith")
	build := exec.CommandContext(ctx, "go", "build", "-o", program, "./cmd/kith")
	build.Dir = filepath.Dir(shared.builder.Module)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build kith: %v: %s", err, out)
	}
	old := gossipKey(ctx, t, program)
	began := time.Now()
	done := make(chan error, 1)
	go func() {
		out, err := exec.CommandContext(ctx, program, "gossip", "rotate", "--kubeconfig", shared.Kubeconfig()).CombinedOutput()
		t.Logf("after %s: %s", time.Since(began).Round(time.Millisecond), out)
		done <- err
	}()
	for rotating := true; rotating; {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			rotating = false
		default:
			everybodyLives(ctx, t, program)
		}
	}
	// Whoever had lost the others by the last step would be found out within a few probes.
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		everybodyLives(ctx, t, program)
	}
	if key := gossipKey(ctx, t, program); key == old {
		t.Errorf("the key is still %s", key)
	}
	logs := kubectl(ctx, t, "-n", "kith-system", "logs", "-l", "app.kubernetes.io/name=kith", "-c", "agent", "--tail=-1", "--prefix",
		"--since-time="+began.UTC().Format(time.RFC3339))
	for _, line := range strings.Split(logs, "\n") {
		if strings.Contains(line, "has failed, no acks") || strings.Contains(line, "as failed") {
			t.Errorf("a member was lost: %s", line)
		}
	}
}

type gossipView struct {
	Members []struct{ Node, State string }
	Gossip  struct{ Keys []string }
}

// gossipViews are what all nodes say.
func gossipViews(ctx context.Context, t *testing.T, program string) []gossipView {
	t.Helper()
	// A node that is not ready makes the command fail, and is told in its answer.
	out, _ := exec.CommandContext(ctx, program, "status", "-o", "json", "--kubeconfig", shared.Kubeconfig()).Output()
	var all struct {
		Nodes []struct{ Report *gossipView }
	}
	if err := json.Unmarshal(out, &all); err != nil {
		t.Fatalf("status: %v: %s", err, out)
	}
	var views []gossipView
	for _, n := range all.Nodes {
		if n.Report != nil {
			views = append(views, *n.Report)
		}
	}
	if len(views) != len(shared.Members) {
		t.Fatalf("%d nodes answer: %s", len(views), out)
	}
	return views
}

func everybodyLives(ctx context.Context, t *testing.T, program string) {
	t.Helper()
	for _, view := range gossipViews(ctx, t, program) {
		for _, m := range view.Members {
			if m.State != "alive" {
				t.Fatalf("%s is %s", m.Node, m.State)
			}
		}
	}
}

// gossipKey is the only key, which all nodes have.
func gossipKey(ctx context.Context, t *testing.T, program string) string {
	t.Helper()
	keys := map[string]bool{}
	for _, view := range gossipViews(ctx, t, program) {
		keys[strings.Join(view.Gossip.Keys, " ")] = true
	}
	for key := range keys {
		if len(keys) == 1 && key != "" && !strings.Contains(key, " ") {
			return key
		}
	}
	t.Fatalf("nodes have the keys %v", keys)
	return ""
}
