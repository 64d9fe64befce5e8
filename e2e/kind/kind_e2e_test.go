//go:build e2e

package kind_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/kithnet/kith/e2e/basics"
	"github.com/kithnet/kith/e2e/kind"
	"github.com/kithnet/kith/e2e/parts"
)

const name = "kith-e2e"

// TestKind installs Kith on a dual-stack kind cluster, as a person would, and checks what a cluster owes its pods.
func TestKind(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test makes namespaces and mounts: run it as root")
	}
	ctx := t.Context()
	builder, err := parts.New(os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	image, err := builder.Kith(ctx)
	if err != nil {
		t.Fatal(err)
	}
	deploy := filepath.Join(filepath.Dir(builder.Module), "deploy")
	down := func() {
		if err := kind.Down(context.Background(), builder, name); err != nil {
			t.Errorf("take the cluster down: %v", err)
		}
	}
	down() // what a test that was killed has left
	t.Cleanup(down)
	cluster, err := kind.Up(ctx, builder, name, filepath.Join(deploy, "kind", "dual-stack.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			explain(t, cluster)
		}
	})
	if err := cluster.Install(ctx, image, filepath.Join(deploy, "kith.yaml")); err != nil {
		t.Fatal(err)
	}
	basics.Run(t, cluster)
}

// explain prints what helps to understand a failure.
func explain(t *testing.T, cluster *kind.Cluster) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, args := range [][]string{
		{"get", "nodes,pods", "--all-namespaces", "--output=wide"},
		{"-n", "kith-system", "describe", "pods"},
		{"-n", "kith-system", "logs", "daemonset/kith", "--all-containers", "--all-pods", "--prefix", "--tail=100"},
	} {
		out, err := cluster.Kubectl(ctx, args...)
		t.Logf("kubectl %v (%v)\n%s", args, err, out)
	}
}
