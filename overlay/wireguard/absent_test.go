package wireguard

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestAbsentDeviceSaysWhy: what wireguard-go's process wrote of a device it cannot serve is in the agent's error, bounded and
// on one line; without it the error is what it was.
func TestAbsentDeviceSaysWhy(t *testing.T) {
	dir := t.TempDir()
	if err := absent(dir, "kith0"); err != ErrAbsent {
		t.Errorf("nothing is written: %v", err)
	}
	for text, want := range map[string]string{
		"open /dev/net/tun: operation not permitted\nuse another runc": `It says: "open /dev/net/tun: operation not permitted\nuse another runc"`,
		strings.Repeat("x", 2*maxProblem):                              strings.Repeat("x", maxProblem) + `"`,
	} {
		if err := os.WriteFile(filepath.Join(dir, "kith0.problem"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		err := absent(dir, "kith0")
		if !errors.Is(err, ErrAbsent) || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%v, want …%s", err, want)
		}
		if err := absent(dir, "kith1"); err != ErrAbsent {
			t.Errorf("of the other device: %v", err)
		}
	}
}
