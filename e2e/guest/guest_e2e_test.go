//go:build e2e

package guest_test

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kithnet/kith/e2e/guest"
	"github.com/kithnet/kith/e2e/parts"
)

// limit is the time one package's tests have in the guest; they need two minutes on a machine that is not busy.
const limit = 20 * time.Minute

// repository is the root module, seen from this package's folder.
const repository = "../.."

// TestKernelWireGuardGuest runs the mesh's kernel tests, the ones wireguard-go passes on the host, on a kernel
// that has WireGuard: the variable makes them fail rather than fall back.
func TestKernelWireGuardGuest(t *testing.T) {
	runPackage(t, "overlay/wireguard", guest.Job{Env: []string{"KITH_WIREGUARD=kernel"}})
}

// TestPolicyGuest runs the ruleset's kernel tests on a stock distribution kernel, older than many hosts' own. What
// they ask the nft tool is left to the host: the tool's older versions write rules that this kernel refuses.
func TestPolicyGuest(t *testing.T) {
	runPackage(t, "policy/nft", guest.Job{Env: []string{"KITH_NFT=absent", "KITH_IPVS=required", "KITH_SEED=" + os.Getenv("KITH_SEED")}})
}

// TestForgedSizesGuest runs the agent's test of forged ICMP errors with the kernel's WireGuard, which cuts its packets by what
// the kernel believes of the way.
func TestForgedSizesGuest(t *testing.T) {
	runPackage(t, "cmd/kith-agent", guest.Job{Args: []string{"-test.run=TestForgedSizesCutNoTunnel"}, Env: []string{"KITH_WIREGUARD=kernel"}})
}

// run boots again, twice at most, if the emulator was at fault: one of two processors ran into an instruction that the
// kernel, on the other, was about to patch. A real processor does not see the breakpoint that stands there meanwhile. The
// guest's process 1 keeps the kernel from patching what tests meet most often (holdHooks).
func run(t *testing.T, kernel guest.Kernel, job guest.Job) (int, error) {
	t.Helper()
	for try := 1; ; try++ {
		var console bytes.Buffer
		code, err := guest.Run(t.Context(), kernel, job, io.MultiWriter(t.Output(), &console))
		if err == nil || try == 3 || !strings.Contains(console.String(), "Oops: int3") {
			return code, err
		}
		t.Logf("THE EMULATOR FAILED, all is run once more: %v", err)
	}
}

// runPackage compiles all tests of a package, kernel tests included, and runs them in a guest: those that KITH_GUEST_RUN names,
// or all.
func runPackage(t *testing.T, pkg string, job guest.Job) {
	t.Helper()
	job.Program = filepath.Join(t.TempDir(), "tests")
	compile := exec.CommandContext(t.Context(), "go", "test", "-tags", "kernel", "-c", "-o", job.Program, "./"+pkg)
	compile.Dir = repository
	compile.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if out, err := compile.CombinedOutput(); err != nil {
		t.Fatalf("compile the tests of %s: %v\n%s", pkg, err, out)
	}
	builder, err := parts.New(t.Output())
	if err != nil {
		t.Fatal(err)
	}
	kernel, err := guest.Fetch(t.Context(), builder)
	if err != nil {
		t.Fatal(err)
	}
	if only := os.Getenv("KITH_GUEST_RUN"); only != "" {
		job.Args = append(job.Args, "-test.run="+only)
	}
	job.Args = append(job.Args, "-test.v", "-test.timeout="+(limit-30*time.Second).String())
	job.Timeout = limit
	if data := filepath.Join(repository, pkg, "testdata"); exists(data) {
		if job.Files == nil {
			job.Files = map[string]string{}
		}
		job.Files["testdata"] = data
	}
	code, err := run(t, kernel, job)
	if err != nil {
		t.Fatal(err)
	}
	if code != 0 {
		t.Errorf("the tests of %s ended with code %d in the guest", pkg, code)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
