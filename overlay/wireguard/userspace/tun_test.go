package userspace

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRefusedTUNSaysWhatToDo: what keeps the process from TUN is named with a fix, and written where the agent reads it.
func TestRefusedTUNSaysWhatToDo(t *testing.T) {
	for cause, want := range map[error]string{
		unix.EPERM: "runc 1.2.0 to 1.2.3", unix.EACCES: "set userspaceWireGuard.privileged", unix.EROFS: "load the kernel's module tun",
		unix.ENODEV: "load the kernel's module tun", unix.EBUSY: "resource busy",
	} {
		err := explain(fmt.Errorf("open %s: %w", tunNode, cause))
		if !errors.Is(err, cause) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
		path := filepath.Join(t.TempDir(), "folder", "kith0.problem")
		if err := tell(path, err); err != nil {
			t.Fatal(err)
		}
		if text, err := os.ReadFile(path); err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%q %v", text, err)
		}
	}
}
