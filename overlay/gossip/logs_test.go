package gossip

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestSplitLine(t *testing.T) {
	for line, want := range map[string]string{
		"[ERR] memberlist: Failed to send\n":  "WARN Failed to send",
		"[WARN] memberlist: Refuting\n":       "INFO Refuting",
		"[INFO] memberlist: Marking a\n":      "INFO Marking a",
		"[DEBUG] memberlist: Stream\n":        "DEBUG Stream",
		"something else altogether [x] y\n":   "INFO something else altogether [x] y",
		"[ERR] Failed to shutdown transport ": "WARN Failed to shutdown transport",
	} {
		level, text := splitLine(line)
		if got := level.String() + " " + text; got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}

// TestStrangersDoNotFloodTheLog holds that what anybody can send writes a few lines, and is counted.
func TestStrangersDoNotFloodTheLog(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	var out bytes.Buffer
	lost := map[Cause]int{}
	w := &logWriter{lost: func(c Cause) { lost[c]++ }, log: slog.New(slog.NewTextHandler(&out, nil)), now: func() time.Time { return now }}
	for i := range 10_000 {
		fmt.Fprintf(w, "[ERR] memberlist: Decrypt packet failed: no installed keys could decrypt the message from=192.0.2.%d\n", i%250)
		fmt.Fprintf(w, "[ERR] memberlist: failed to receive: encryption is configured but remote state is not encrypted from=192.0.2.1\n")
		fmt.Fprintf(w, "[WARN] memberlist: ignoring alive message for 'x': refused\n")
		fmt.Fprintf(w, "[WARN] memberlist: handler queue full, dropping message (4) from=192.0.2.1\n")
		fmt.Fprintf(w, "[ERR] memberlist: Failed to decode alive message: x from=192.0.2.1\n")
		fmt.Fprintf(w, "[WARN] memberlist: Got ping for unexpected node 'x'\n")
	}
	if lines := strings.Count(out.String(), "\n"); lines != 1+linesPerSecond {
		t.Errorf("%d lines", lines)
	}
	if lost[QueueFull] != 10_000 || lost[Unreadable] != 10_000 {
		t.Errorf("lost: %v", lost)
	}
	if w.count() != 20_000 {
		t.Errorf("%d strangers counted", w.count())
	}
	now = now.Add(2 * time.Minute)
	out.Reset()
	fmt.Fprintf(w, "[WARN] memberlist: Refuting an alive message for 'x' meta:(%s)\n", strings.Repeat("255 ", 1<<18))
	if out.Len() > 2*maxLine {
		t.Errorf("a line of %d bytes", out.Len())
	}
	out.Reset()
	fmt.Fprintf(w, "[ERR] memberlist: Decrypt packet failed: x\n")
	if !strings.Contains(out.String(), "count=20001") {
		t.Errorf("later: %q", out.String())
	}
}
