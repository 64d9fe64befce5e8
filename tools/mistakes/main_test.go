package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMistakesFitTheCode: each can be put in, and the test that should catch it is there. Whether it does only the stage
// of that name says, which is much slower.
func TestMistakesFitTheCode(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, m := range all() {
		if names[m.name] {
			t.Errorf("%s is there twice", m.name)
		}
		names[m.name] = true
		if _, err := m.overlay(root, t.TempDir()); err != nil {
			t.Errorf("%s: %v", m.name, err)
		}
		if name, _, _ := strings.Cut(m.test, "/"); !hasTest(t, filepath.Join(root, m.pkg), name) {
			t.Errorf("%s: there is no %s in %s", m.name, name, m.pkg)
		}
	}
}

func hasTest(t *testing.T, dir, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "\nfunc "+name+"(") {
			return true
		}
	}
	return false
}
