//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kithnet/kith/e2e/cluster"
)

const (
	wantSpecs = 47
	// These need SCTP sockets, which not every kernel has; a spec about SCTP policies does not.
	sctpSpecs = "SCTPConnectivity"
)

// specReport is the part of Ginkgo's JSON report that this test reads.
type specReport []struct {
	SpecReports []struct {
		ContainerHierarchyTexts []string
		LeafNodeText            string
		State                   string
		RunTime                 time.Duration
		Failure                 struct{ Message string }
	}
}

// TestNetworkPolicyUpstream runs Kubernetes' own NetworkPolicy specs, and watches every underlay link
// meanwhile: not one packet there may bear a pod's address.
func TestNetworkPolicyUpstream(t *testing.T) {
	for _, program := range []string{"netpol.test", "ginkgo"} {
		if _, err := shared.builder.Program(t.Context(), program); err != nil {
			t.Fatal(err)
		}
	}
	t.Parallel() // beside the conformance suite of ClusterNetworkPolicy
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	report := filepath.Join(t.TempDir(), "report.json")
	capture, err := shared.Capture()
	if err != nil {
		t.Fatal(err)
	}
	runErr := runSpecs(ctx, report)
	seen, err := capture.Stop()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the underlay during the specs:\n%s", seen)
	if runErr != nil {
		t.Errorf("ginkgo: %v", runErr)
	}
	if seen.Leaks != 0 || seen.MissedAt != 0 {
		t.Errorf("%d packets with a pod address on the underlay, %d not seen", seen.Leaks, seen.MissedAt)
	}
	if n := seen.Classes[cluster.WireGuardClass]; n == 0 {
		t.Error("no WireGuard packet on the underlay: the capture did not see the cluster")
	}
	checkSpecs(t, report)
	waitNamespacesEnd(ctx, t)
}

// TestCaptureSeesPods: a capture that finds nothing is worth something only if it would have found it. The
// outside host knows no way to pods, so what it sends there crosses the underlay in clear.
func TestCaptureSeesPods(t *testing.T) {
	capture, err := shared.Capture()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range shared.PodCIDRs() {
		// No answer is expected, and that is ping's failure.
		shared.OutsideRun(t.Context(), "ping", "-c", "1", "-W", "1", p.Addr().Next().String())
	}
	seen, err := capture.Stop()
	if err != nil {
		t.Fatal(err)
	}
	if seen.Leaks == 0 {
		t.Errorf("packets to pods in clear were not seen:\n%s", seen)
	}
}

// runSpecs builds upstream's test binary and runs it.
func runSpecs(ctx context.Context, report string) error {
	specs, err := shared.builder.Program(ctx, "netpol.test")
	if err != nil {
		return err
	}
	ginkgo, err := shared.builder.Program(ctx, "ginkgo")
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, ginkgo, "--procs=3", "--focus=Netpol", "--skip="+sctpSpecs, "--no-color", "--silence-skips",
		"--timeout=55m", "--output-dir="+filepath.Dir(report), "--json-report="+filepath.Base(report), specs, "--",
		"--provider=skeleton", "--kubeconfig="+shared.Kubeconfig(), "--allowed-not-ready-nodes=0")
	cmd.Dir = filepath.Dir(report)
	// ginkgo ends its children by itself when it is asked to.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = time.Minute
	// A mark for each spec that ends, and what failed, as it happens.
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	return cmd.Run()
}

func checkSpecs(t *testing.T, path string) {
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var suites specReport
	if err := json.Unmarshal(content, &suites); err != nil {
		t.Fatal(err)
	}
	passed := 0
	for _, suite := range suites {
		for _, s := range suite.SpecReports {
			name := strings.Join(append(s.ContainerHierarchyTexts, s.LeafNodeText), " ")
			if !strings.Contains(name, "Netpol") {
				continue
			}
			switch s.State {
			case "passed":
				passed++
				t.Logf("passed in %s: %s", s.RunTime.Round(time.Second), name)
			case "skipped":
				if err := explainSkip(name); err != nil {
					t.Error(err)
				}
				t.Logf("skipped, needs SCTP sockets: %s", name)
			default:
				t.Errorf("%s: %s: %s", s.State, name, s.Failure.Message)
			}
		}
	}
	if passed != wantSpecs {
		t.Errorf("%d specs passed, want %d", passed, wantSpecs)
	}
}

func explainSkip(name string) error {
	if !strings.Contains(name, sctpSpecs) {
		return errors.New("skipped without a reason: " + name)
	}
	return nil
}
