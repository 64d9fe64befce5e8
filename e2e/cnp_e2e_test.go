//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

const wantConformance = 30

// TestClusterNetworkPolicyUpstream runs the conformance suite of the network policy API, all of it: where the kernel has
// no SCTP sockets, its servers and clients speak SCTP by packets. KITH_CONFORMANCE_REPORT names a file for the report in
// upstream's format, as for its folder conformance/reports.
func TestClusterNetworkPolicyUpstream(t *testing.T) {
	archive, err := shared.builder.Image(t.Context(), "conformance")
	if err == nil {
		err = shared.Load(t.Context(), archive)
	}
	if err != nil {
		t.Fatal(err)
	}
	suite, err := shared.builder.Program(t.Context(), "cnp.test")
	if err != nil {
		t.Fatal(err)
	}
	t.Parallel() // beside Kubernetes' own specs: both wait for what is denied, and neither selects the other's pods
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, suite, "-test.v", "-test.run=^TestConformance$", "-test.timeout=19m")
	cmd.Env = append(os.Environ(), "KUBECONFIG="+shared.Kubeconfig(), "REPORT="+os.Getenv("KITH_CONFORMANCE_REPORT"))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	result := regexp.MustCompile(`^    --- (PASS|FAIL|SKIP): TestConformance/(\S+) `)
	passed := 0
	var text strings.Builder
	for lines := bufio.NewScanner(out); lines.Scan(); {
		line := lines.Text()
		text.WriteString(line + "\n")
		switch m := result.FindStringSubmatch(line); {
		case m == nil:
		case m[1] == "PASS":
			passed++
			t.Logf("passed: %s", m[2])
		default:
			t.Errorf("%s: %s", m[1], m[2])
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("conformance suite: %v\n%s", err, text.String())
	}
	if passed != wantConformance {
		t.Errorf("%d conformance tests passed, want %d", passed, wantConformance)
	}
	waitNamespacesEnd(ctx, t)
}
