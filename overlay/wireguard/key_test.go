package wireguard

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kithnet/kith/overlay"
	"github.com/kithnet/kith/overlay/disk"
)

func TestKeyIsMadeOnceAndKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	first, err := LoadKeys(disk.Folder(dir).File(KeyFile))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, KeyFile)
	for name, want := range map[string]fs.FileMode{dir: 0o700, path: 0o600} {
		info, err := os.Stat(name)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("mode of %s: %v, %v; want %v", name, info.Mode(), err, want)
		}
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	second, err := LoadKeys(disk.Folder(dir).File(KeyFile))
	if err != nil || !sameKeys(first, second) {
		t.Errorf("the key changed at the second start (%v)", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("an open key file stays open: %v", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("left in the state folder: %v (%v)", entries, err)
	}
}

func sameKeys(a, b *Keyring) bool {
	keysA, generationA := a.Public()
	keysB, generationB := b.Public()
	return keysA == keysB && generationA == generationB && keysA[0] != keysA[1]
}

func TestRenewedKeysOutliveTheProcess(t *testing.T) {
	dir := t.TempDir()
	ring, err := LoadKeys(disk.Folder(dir).File(KeyFile))
	if err != nil {
		t.Fatal(err)
	}
	before, _ := ring.Public()
	for _, step := range []struct {
		do         func() error
		generation uint32
		changed    [overlay.Lanes]bool
	}{
		{ring.Renew, 3, [overlay.Lanes]bool{false, true}},
		{ring.Renew, 4, [overlay.Lanes]bool{true, false}},
		{func() error { return ring.Label(8) }, 8, [overlay.Lanes]bool{}},
		{ring.Renew, 9, [overlay.Lanes]bool{false, true}},
	} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		after, generation := ring.Public()
		if got := [overlay.Lanes]bool{after[0] != before[0], after[1] != before[1]}; got != step.changed || generation != step.generation {
			t.Errorf("generation %d, keys changed: %v; want %d, %v", generation, got, step.generation, step.changed)
		}
		if again, err := LoadKeys(disk.Folder(dir).File(KeyFile)); err != nil || !sameKeys(ring, again) {
			t.Errorf("generation %d is not kept: %v", generation, err)
		}
		if _, ok := ring.find(before[generation%overlay.Lanes]); ok == step.changed[generation%overlay.Lanes] {
			t.Errorf("generation %d: the key before is there: %t", generation, ok)
		}
		before = after
	}
	if err := ring.Label(10); err == nil {
		t.Error("a label that turns the lanes round is no error")
	}
}

func TestBrokenKeyIsNotReplaced(t *testing.T) {
	for name, content := range map[string]string{
		"empty": "", "short": "0\nc2VjcmV0\nc2VjcmV0\n", "no base64": "0\nsecret!\nsecret!\n",
		"zero":  "0\n" + strings.Repeat("A", 43) + "=\n" + strings.Repeat("B", 42) + "E=\n",
		"twice": "0\n" + strings.Repeat("B", 42) + "E=\n" + strings.Repeat("B", 42) + "E=\n",
		"torn":  "0\n" + strings.Repeat("B", 42) + "E=\n",
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, KeyFile)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := LoadKeys(disk.Folder(dir).File(KeyFile))
		if err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: error %v does not name the file", name, err)
		}
		if content != "" && err != nil && strings.Contains(err.Error(), content) {
			t.Errorf("%s: the error shows what is in the file: %v", name, err)
		}
		if after, _ := os.ReadFile(path); string(after) != content {
			t.Errorf("%s: the file was changed", name)
		}
	}
}

func TestKeyDoesNotShowItself(t *testing.T) {
	k, err := NewPrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	ring := &Keyring{keys: [overlay.Lanes]PrivateKey{k}}
	slog.New(slog.NewJSONHandler(&log, nil)).Info("key", "key", k, "options", Options{Keys: ring})
	slog.New(slog.NewTextHandler(&log, nil)).Info("key", "key", k, "options", Options{Keys: ring})
	shown := log.String() + fmt.Sprintf("%s %v %+v %#v %d", k, k, Options{Keys: ring}, ring, k)
	private := k.private()
	if overlay.Key(private.PublicKey()) != k.Public() {
		t.Errorf("public key %s is not that of the private one", k.Public())
	}
	var forms []string
	for _, secret := range [][]byte{k.seed[:], private[:]} {
		forms = append(forms, base64.StdEncoding.EncodeToString(secret), fmt.Sprintf("%x", secret), fmt.Sprint(secret))
	}
	for _, form := range forms {
		if strings.Contains(shown, strings.Trim(form, "[]")) {
			t.Errorf("the key shows as %s", form)
		}
	}
}

func TestParseMode(t *testing.T) {
	for word, want := range map[string]Mode{"": Auto, "auto": Auto, "kernel": Kernel, "userspace": Userspace} {
		if got, err := ParseMode(word); got != want || err != nil {
			t.Errorf("mode %q: %s, %v", word, got, err)
		}
	}
	if _, err := ParseMode("user"); err == nil {
		t.Error("mode user is no error")
	}
}
