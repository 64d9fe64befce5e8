package userspace

import (
	"strconv"
	"testing"
	"time"
)

func TestRepeatedFailuresAreHeldBack(t *testing.T) {
	r := &repeats{seen: make(map[string]*repeat)}
	start := time.Unix(1000, 0)
	for _, step := range []struct {
		text  string
		after time.Duration
		count int
		now   bool
	}{
		{"a", 0, 0, true},
		{"a", time.Second, 0, false},
		{"b", time.Second, 0, true},
		{"a", 2 * time.Second, 0, false},
		{"a", quietFor, 2, true},
		{"a", quietFor + time.Second, 0, false},
	} {
		if count, now := r.note(step.text, start.Add(step.after)); count != step.count || now != step.now {
			t.Errorf("%s after %s: %d, %t; want %d, %t", step.text, step.after, count, now, step.count, step.now)
		}
	}
}

func TestMemoryOfFailuresIsBounded(t *testing.T) {
	r := &repeats{seen: make(map[string]*repeat)}
	for i := range 10 * mostTexts {
		r.note(strconv.Itoa(i), time.Unix(0, 0))
	}
	if len(r.seen) > mostTexts {
		t.Errorf("%d texts remembered, want at most %d", len(r.seen), mostTexts)
	}
}
