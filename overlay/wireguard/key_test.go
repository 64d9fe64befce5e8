package wireguard

import (
	"bytes"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestKeyIsMadeOnceAndKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	first, err := LoadKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, keyFile)
	for name, want := range map[string]fs.FileMode{dir: 0o700, path: 0o600} {
		info, err := os.Stat(name)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("mode of %s: %v, %v; want %v", name, info.Mode(), err, want)
		}
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	second, err := LoadKey(dir)
	if err != nil || second != first || first.Public().IsZero() {
		t.Errorf("the key changed at the second start (%v)", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("an open key file stays open: %v", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("left in the state folder: %v (%v)", entries, err)
	}
}

func TestBrokenKeyIsNotReplaced(t *testing.T) {
	for name, content := range map[string]string{
		"empty": "", "short": "c2VjcmV0", "no base64": "secret!", "zero": strings.Repeat("A", 43) + "=",
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, keyFile)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := LoadKey(dir)
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
	slog.New(slog.NewJSONHandler(&log, nil)).Info("key", "key", k, "options", Options{Key: k})
	slog.New(slog.NewTextHandler(&log, nil)).Info("key", "key", k, "options", Options{Key: k})
	shown := log.String() + fmt.Sprintf("%s %v %+v %#v %d", k, k, Options{Key: k}, k, k)
	secret := k.key.String()
	for _, form := range []string{secret, fmt.Sprintf("%x", k.key[:]), fmt.Sprint(k.key[:])} {
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
