package config

import "testing"

func TestHeapLimit(t *testing.T) {
	for text, want := range map[string]int64{"": 0, "0": 0, "1073741824": 805306368} {
		if got, err := HeapLimit(text); err != nil || got != want {
			t.Errorf("of %q: %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"1Gi", "-1", "99999999999999999999", " 1"} {
		if got, err := HeapLimit(text); err == nil {
			t.Errorf("of %q: %d", text, got)
		}
	}
}
