package gossip

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// logWriter turns memberlist's lines ("[WARN] memberlist: text") into records. What
// others can make it say without end is not logged line by line: packets of
// strangers and what memberlist drops are counted, what the judge has refused is the
// judge's to tell, and of the rest so many lines a second pass.
type logWriter struct {
	log  *slog.Logger
	now  func() time.Time
	lost func(Cause)

	mu        sync.Mutex
	strangers uint64
	told      time.Time // of strangers
	second    time.Time
	passed    int
}

const (
	linesPerSecond = 20
	strangersEvery = time.Minute
	maxLine        = 512
)

func (w *logWriter) Write(line []byte) (int, error) {
	level, text := splitLine(string(line))
	switch {
	case strings.Contains(text, errStreamSize.Error()): // the gate has counted it
	case strings.Contains(text, errUnreadable.Error()):
		w.lost(Unreadable)
	case fromStranger(text):
		w.stranger(text)
	case strings.HasPrefix(text, "handler queue full"):
		w.lost(QueueFull)
	case unreadable(text):
		w.lost(Unreadable)
	case !refusedByJudge(text) && w.pass():
		w.log.Log(context.Background(), level, cut(text))
	}
	return len(line), nil
}

func cut(text string) string { return text[:min(len(text), maxLine)] }

// fromStranger knows the lines about what does not decrypt.
func fromStranger(text string) bool {
	return strings.HasPrefix(text, "Decrypt packet failed") || strings.HasPrefix(text, "failed to receive")
}

// unreadable knows the lines about what decrypts and is no message, or one that never gets to the judge.
func unreadable(text string) bool {
	return strings.HasSuffix(text, "because Vsn is not present") ||
		slices.ContainsFunc([]string{
			"Failed to decode", "Failed to decompress", "Failed to read remote state", "Failed to receive user message",
			"Failed push/pull merge", "Ignoring an alive message", "Got invalid checksum", "missing message type",
			"msg type", "Compound request", "Received invalid",
		}, func(prefix string) bool { return strings.HasPrefix(text, prefix) })
}

func refusedByJudge(text string) bool { return strings.HasPrefix(text, "ignoring alive message") }

func (w *logWriter) stranger(text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.strangers++
	if now := w.now(); now.Sub(w.told) >= strangersEvery {
		w.told = now
		w.log.Warn("gossip from somebody without the cluster's key", "count", w.strangers, "last", cut(text))
	}
}

func (w *logWriter) pass() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now := w.now(); now.Sub(w.second) >= time.Second {
		w.second, w.passed = now, 0
	}
	w.passed++
	return w.passed <= linesPerSecond
}

// count returns how many packets and streams of strangers there were.
func (w *logWriter) count() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.strangers
}

// splitLine lowers the level of what is routine in a mesh: members come and go,
// and strangers knock.
func splitLine(line string) (slog.Level, string) {
	line = strings.TrimSpace(line)
	tag, text, found := strings.Cut(line, "] ")
	if !found || !strings.HasPrefix(tag, "[") {
		return slog.LevelInfo, line
	}
	text = strings.TrimPrefix(text, "memberlist: ")
	switch tag[1:] {
	case "ERR", "ERROR":
		return slog.LevelWarn, text
	case "WARN", "INFO":
		return slog.LevelInfo, text
	}
	return slog.LevelDebug, text
}
