//go:build e2e

package e2e

import (
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestGossipKeyChanges: `kith gossip rotate` gives every node a new key, and no node calls another dead or suspect on the way.
func TestGossipKeyChanges(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	program := kithProgram(ctx, t)
	old := gossipKey(t)
	// What others put the machine through before is not this test's.
	for began := time.Now(); missed(t) != "" && time.Since(began) < patience; {
		time.Sleep(lookAtMembers)
	}
	time.Sleep(time.Second) // logs are told from the beginning of a second
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
		case <-time.After(lookAtMembers):
			everybodyLives(t)
		}
	}
	// Whoever had lost the others by the last step would be found out within a few probes.
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(lookAtMembers) {
		everybodyLives(t)
	}
	if key := gossipKey(t); key == old {
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

// lookAtMembers is the time from one look at the members to the next. The agents are asked by their sockets: a command in
// each pod for each look would take the processor time that they need to answer each other's probes.
const lookAtMembers = 100 * time.Millisecond

// allSay is what all nodes' agents say.
func allSay(t *testing.T) (all []nodeReport) {
	t.Helper()
	for _, n := range shared.Members {
		r, err := report(n.Name)
		if err != nil {
			t.Fatalf("ask %s's agent: %v", n.Name, err)
		}
		all = append(all, r)
	}
	return all
}

func everybodyLives(t *testing.T) {
	t.Helper()
	if who := missed(t); who != "" {
		t.Fatal(who)
	}
}

// missed names a node that not every node sees alive; empty: there is none.
func missed(t *testing.T) string {
	t.Helper()
	for _, r := range allSay(t) {
		for _, m := range r.Members {
			if m.State != "alive" {
				return m.Node + " is " + m.State
			}
		}
	}
	return ""
}

// gossipKey is the only key, which all nodes have.
func gossipKey(t *testing.T) string {
	t.Helper()
	keys := map[string]bool{}
	for _, r := range allSay(t) {
		keys[strings.Join(r.Gossip.Keys, " ")] = true
	}
	for key := range keys {
		if len(keys) == 1 && key != "" && !strings.Contains(key, " ") {
			return key
		}
	}
	t.Fatalf("nodes have the keys %v", keys)
	return ""
}
