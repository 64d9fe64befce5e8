//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kithnet/kith/e2e/cluster"
	"github.com/kithnet/kith/e2e/parts"
)

// shared is the cluster of all tests of this package, set once before the first.
var shared struct {
	*cluster.Cluster
	builder *parts.Builder
}

func TestMain(m *testing.M) {
	code, err := testMain(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

// testMain brings the cluster up, runs the tests and takes it down, also when interrupted. A cluster
// named by KITH_E2E_CLUSTER is used and left as it is.
func testMain(m *testing.M) (int, error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if os.Geteuid() != 0 {
		return 1, fmt.Errorf("these tests make network namespaces and mounts: run them as root")
	}
	var err error
	if shared.builder, err = parts.New(os.Stderr); err != nil {
		return 1, err
	}
	dir := filepath.Join(shared.builder.Cache, "run")
	if name := os.Getenv("KITH_E2E_CLUSTER"); name != "" {
		if shared.Cluster, err = cluster.Open(dir, name, os.Stderr); err != nil {
			return 1, err
		}
		return m.Run(), nil
	}
	shared.Cluster, err = bringUp(ctx, dir)
	defer takeDown()
	if err != nil {
		dumpLogs()
		return 1, err
	}
	interrupted := context.AfterFunc(ctx, func() {
		takeDown()
		os.Exit(130)
	})
	defer interrupted()
	code := m.Run()
	if code != 0 {
		dumpLogs()
	}
	return code, nil
}

func bringUp(ctx context.Context, dir string) (*cluster.Cluster, error) {
	set, err := shared.builder.Cluster(ctx)
	if err != nil {
		return nil, err
	}
	archive, err := shared.builder.Kith(ctx)
	if err != nil {
		return nil, err
	}
	spec := cluster.Spec{Name: "e2e", Nodes: 3, CNI: cluster.Kith, Stack: cluster.Stack(os.Getenv("KITH_E2E_STACK")),
		Proxy: cluster.Proxy(os.Getenv("KITH_E2E_PROXY")), Owner: cluster.Self()}
	if spec.Stack == "" {
		spec.Stack = cluster.IPv4
	}
	c, err := cluster.Up(ctx, dir, spec, set, os.Stderr)
	if err != nil {
		return c, err
	}
	return c, c.Install(ctx, archive, filepath.Join(filepath.Dir(shared.builder.Module), "deploy", "kith.yaml"))
}

// waitNamespacesEnd waits for namespaces that something deleted and did not wait for: the pods in them change the rules of
// their nodes until they are gone.
func waitNamespacesEnd(ctx context.Context, t *testing.T) {
	t.Helper()
	ending := strings.Fields(kubectl(ctx, t, "get", "namespaces", "-o",
		`jsonpath={range .items[?(@.status.phase=="Terminating")]}namespace/{.metadata.name} {end}`))
	if len(ending) > 0 {
		kubectl(ctx, t, append([]string{"wait", "--for=delete", "--timeout=180s"}, ending...)...)
	}
}

// waitServiceAccounts waits for what new namespaces need before they take pods that nobody makes again: the API server
// refuses one after a second or two without.
func waitServiceAccounts(ctx context.Context, t *testing.T, namespaces ...string) {
	t.Helper()
	for _, namespace := range namespaces {
		for began := time.Now(); ; time.Sleep(200 * time.Millisecond) {
			_, err := shared.Kubectl(ctx, "-n", namespace, "get", "serviceaccount", "default")
			if err == nil {
				break
			}
			if time.Since(began) > 2*time.Minute {
				t.Fatal(err)
			}
		}
	}
}

func takeDown() {
	if shared.Cluster == nil {
		return
	}
	if err := shared.Down(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
	}
}

// dumpLogs prints what helps to understand a failure.
func dumpLogs() {
	if shared.Cluster == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, args := range [][]string{
		{"get", "nodes,pods", "-A", "-o", "wide"},
		{"-n", "kith-system", "describe", "pods"},
		{"-n", "kith-system", "logs", "daemonset/kith", "-c", "agent", "--all-pods", "--prefix", "--tail=150"},
		{"-n", "kith-system", "logs", "daemonset/kith", "-c", "agent", "--all-pods", "--prefix", "--tail=50", "--previous"},
		{"-n", "kith-system", "logs", "daemonset/kith", "-c", "wireguard", "--all-pods", "--prefix", "--tail=50"},
	} {
		out, err := shared.Kubectl(ctx, args...)
		fmt.Fprintf(os.Stderr, "--- kubectl %v (%v)\n%s\n", args, err, out)
	}
}
