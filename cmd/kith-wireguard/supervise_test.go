package main

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestKilledCarrierIsStartedAgain holds that a carrier that is killed comes back, as often as it is killed, and goes with
// its supervisor.
func TestKilledCarrierIsStartedAgain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pids")
	carrier := func(ctx context.Context) *exec.Cmd {
		return exec.CommandContext(ctx, "sh", "-c", `echo $$ >> "$0"; exec sleep 300`, file)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		supervise(ctx, carrier, slog.New(slog.DiscardHandler))
	}()
	last := 0
	for n := 1; n <= 4; n++ {
		last = nth(t, file, n)
		if err := syscall.Kill(last, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	last = nth(t, file, 5)
	cancel()
	<-done
	if err := syscall.Kill(last, 0); err == nil {
		t.Error("the carrier outlives its supervisor")
	}
}

// nth waits for the process number of the nth carrier.
func nth(t *testing.T, file string, n int) int {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		text, _ := os.ReadFile(file)
		if lines := strings.SplitAfter(string(text), "\n"); len(lines) > n {
			pid, err := strconv.Atoi(strings.TrimSpace(lines[n-1]))
			if err != nil {
				t.Fatal(err)
			}
			return pid
		}
	}
	t.Fatalf("there is no carrier number %d", n)
	return 0
}
