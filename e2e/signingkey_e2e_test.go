//go:build e2e

package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestNodeThatLostItsSigningKey: a node that goes on under its Node object with another signing key moves nothing, every
// other node names it with the command that accepts the key, and that command brings it back.
func TestNodeThatLostItsSigningKey(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
	defer cancel()
	_, _, victim := agentOfOneNode(ctx, t)
	before := map[string]nodeReport{}
	for _, r := range allSay(t) {
		before[r.Node] = r
	}
	writtenByAnother(ctx, t, victim, before[victim].Claim.SigningKey)
	if _, err := shared.ExecRun(victim, "rm", "/var/lib/kith/signing.key", "/var/lib/kith/claim"); err != nil {
		t.Fatal(err)
	}
	kubectl(ctx, t, "-n", "kith-system", "delete", "pod", "-l", "app.kubernetes.io/name=kith", "--field-selector=spec.nodeName="+victim)
	command := "kith mesh accept " + victim
	lookUntil(ctx, t, "all others name the node and the command", func(all []nodeReport) bool {
		return naming(all, command) == len(all)-1
	})
	for _, r := range allSay(t) {
		if r.Node != victim && keyOf(r, victim) != keyOf(before[r.Node], victim) {
			t.Errorf("%s: the peer of %s has moved to %s", r.Node, victim, keyOf(r, victim))
		}
	}
	out, err := exec.CommandContext(ctx, kithProgram(ctx, t), "mesh", "accept", victim, "--kubeconfig", shared.Kubeconfig()).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	lookUntil(ctx, t, "all nodes are whole", func(all []nodeReport) bool {
		return naming(all, command) == 0 && !slices.ContainsFunc(all, func(r nodeReport) bool { return !r.whole() || !r.Ready })
	})
	for _, r := range allSay(t) {
		if r.Node == victim && (r.Claim.SigningKey == before[victim].Claim.SigningKey || !strings.Contains(string(out), r.Claim.SigningKey)) {
			t.Errorf("accepted %s, and the node has %s; before it had %s", out, r.Claim.SigningKey, before[victim].Claim.SigningKey)
		}
	}
}

// writtenByAnother: a key that somebody else writes on the Node is written over by the node's own agent, and every node's
// peers are whole all the while.
func writtenByAnother(ctx context.Context, t *testing.T, node, own string) {
	t.Helper()
	const other = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	kubectl(ctx, t, append(merge(node, `{"annotations":{"kith.network/signing-public-key":"`+other+`"}}`),
		"--as=somebody", "--as-group=system:masters", "--as-group=kith:break-glass")...)
	lookUntil(ctx, t, "the node's agent writes its key again, and nobody has lost the node", func(all []nodeReport) bool {
		for _, r := range all {
			if r.Node != node && keyOf(r, node) == "" {
				t.Errorf("%s has no peer %s", r.Node, node)
			}
		}
		return kubectl(ctx, t, "get", "node", node, "-o", `jsonpath={.metadata.annotations.kith\.network/signing-public-key}`) == own &&
			naming(all, "kith mesh accept") == 0
	})
}

// naming counts the nodes with a problem that contains a text.
func naming(all []nodeReport, text string) (n int) {
	for _, r := range all {
		if slices.ContainsFunc(r.Problems, func(p string) bool { return strings.Contains(p, text) }) {
			n++
		}
	}
	return n
}

func keyOf(r nodeReport, node string) string {
	for _, p := range r.Peers {
		if p.Node == node {
			return p.PublicKey
		}
	}
	return ""
}

// lookUntil asks all agents until what they say is so. One that starts does not answer.
func lookUntil(ctx context.Context, t *testing.T, what string, holds func([]nodeReport) bool) {
	t.Helper()
	for {
		var all []nodeReport
		for _, n := range shared.Members {
			if r, err := report(n.Name); err == nil {
				all = append(all, r)
			}
		}
		if len(all) == len(shared.Members) && holds(all) {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("never: %s: %+v", what, all)
		case <-time.After(lookAtMembers):
		}
	}
}

// kithProgram builds the person's tool.
func kithProgram(ctx context.Context, t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "kith")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", program, "./cmd/kith")
	build.Dir, build.Env = filepath.Dir(shared.builder.Module), append(os.Environ(), "CGO_ENABLED=0") // as for the image, so that all is compiled
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build kith: %v: %s", err, out)
	}
	return program
}
