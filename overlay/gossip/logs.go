package gossip

import (
	"context"
	"log/slog"
	"strings"
)

// logWriter turns memberlist's lines ("[WARN] memberlist: text") into records.
type logWriter struct{ log *slog.Logger }

func (w *logWriter) Write(line []byte) (int, error) {
	level, text := splitLine(string(line))
	w.log.Log(context.Background(), level, text)
	return len(line), nil
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
