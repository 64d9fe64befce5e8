//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const carrierKills = 6

// TestWireGuardKill kills wireguard-go on every node again and again: it is back each time without the kubelet, whose
// pauses grow to minutes, the connections of pods go on, and nothing passes the underlay in clear meanwhile.
func TestWireGuardKill(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	startFlows(ctx, t)
	containers := carrierRestarts(ctx, t)
	capture, err := shared.Capture()
	if err != nil {
		t.Fatal(err)
	}
	var longest time.Duration
	for range carrierKills {
		for _, n := range shared.Members {
			longest = max(longest, killCarrier(t, n.Name))
		}
		flowsGoOn(ctx, t)
	}
	report, err := capture.Stop()
	if err != nil {
		t.Fatal(err)
	}
	if report.Leaks != 0 || report.MissedAt != 0 {
		t.Errorf("in clear:\n%s", report)
	}
	if after := carrierRestarts(ctx, t); after != containers {
		t.Errorf("containers were started %s times before, %s now", containers, after)
	}
	checkDenied(ctx, t)
	t.Logf("%d kills on each node, a new process after %s at most, %d packets in clear", carrierKills, longest.Round(time.Millisecond), report.Leaks)
}

// killCarrier kills the process that carries the devices, waits for the next, and says how long that took.
func killCarrier(t *testing.T, node string) time.Duration {
	t.Helper()
	old := carrier(t, node)
	if old == 0 {
		t.Fatalf("no wireguard-go on %s", node)
	}
	began := time.Now()
	if err := unix.Kill(old, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for end := began.Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if now := carrier(t, node); now != 0 && now != old {
			return time.Since(began)
		}
	}
	t.Fatalf("wireguard-go does not come back on %s", node)
	return 0
}

// carrier is the process under the supervisor.
func carrier(t *testing.T, node string) int {
	t.Helper()
	pids, err := shared.Processes(node, "kith-wireguard")
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids {
		if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && strings.Contains(string(text), "\x00-carry\x00") {
			return pid
		}
	}
	return 0
}

// carrierRestarts is how often the kubelets have started wireguard-go's container again.
func carrierRestarts(ctx context.Context, t *testing.T) string {
	t.Helper()
	return kubectl(ctx, t, "-n", "kith-system", "get", "pods", "-l", "app.kubernetes.io/name=kith", "-o",
		`jsonpath={range .items[*]}{.spec.nodeName}={.status.containerStatuses[?(@.name=="wireguard")].restartCount} {end}`)
}

// flowsGoOn waits until every client has had echoes on all its connections again.
func flowsGoOn(ctx context.Context, t *testing.T) {
	t.Helper()
	before, want := flowStates(ctx, t, "role=client"), flowsPerPair*len(shared.Members)
	for {
		waiting := 0
		for pod, s := range flowStates(ctx, t, "role=client") {
			if s.Broken > 0 {
				t.Fatalf("client %s: %+v", pod, s)
			}
			if s.Open < want || s.Echoes < before[pod].Echoes+2*want {
				waiting++
			}
		}
		if waiting == 0 {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("flows do not go on: %+v", flowStates(context.Background(), t, "role=client"))
		case <-time.After(time.Second):
		}
	}
}
