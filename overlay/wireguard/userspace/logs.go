package userspace

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/device"
)

// wireguard-go reports a failure with every packet that meets it.
const (
	quietFor    = 10 * time.Second
	mostTexts   = 256
	hiddenField = "repeated"
)

// logger passes wireguard-go's words on, each failure once in a while.
func logger(name string, log *slog.Logger) *device.Logger {
	log = log.With("device", name)
	failures := &repeats{seen: make(map[string]*repeat)}
	return &device.Logger{
		Verbosef: func(format string, args ...any) { log.Debug(fmt.Sprintf(format, args...)) },
		Errorf: func(format string, args ...any) {
			text := fmt.Sprintf(format, args...)
			if count, now := failures.note(text, time.Now()); now {
				log.Warn(text, hiddenField, count)
			}
		},
	}
}

type repeat struct {
	last  time.Time
	count int
}

// repeats counts what is said again within a short time.
type repeats struct {
	mu   sync.Mutex
	seen map[string]*repeat
}

// note tells whether to say text now, and how often it was held back before.
func (r *repeats) note(text string, at time.Time) (int, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	known, ok := r.seen[text]
	if ok && at.Sub(known.last) < quietFor {
		known.count++
		return 0, false
	}
	if len(r.seen) >= mostTexts {
		clear(r.seen)
	}
	r.seen[text] = &repeat{last: at}
	if ok {
		return known.count, true
	}
	return 0, true
}
