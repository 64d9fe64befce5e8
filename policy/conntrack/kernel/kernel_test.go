package kernel

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestFill(t *testing.T) {
	dir := t.TempDir()
	if _, _, err := New(dir).Fill(); !errors.Is(err, ErrAbsent) {
		t.Errorf("a kernel that tracks nothing: %v", err)
	}
	folder := filepath.Join(dir, "net/netfilter")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"nf_conntrack_count": "17\n", "nf_conntrack_max": "262144\n"} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if count, capacity, err := New(dir).Fill(); count != 17 || capacity != 262144 || err != nil {
		t.Errorf("%d of %d, %v", count, capacity, err)
	}
	if err := os.WriteFile(filepath.Join(folder, "nf_conntrack_max"), []byte("many"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := New(dir).Fill(); err == nil {
		t.Error("no error for a number that is none")
	}
}
