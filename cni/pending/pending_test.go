package pending

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kithnet/kith/cni"
)

func key(id string) cni.Key { return cni.Key{ContainerID: id, IfName: "eth0"} }

func TestPutListRemove(t *testing.T) {
	f := Folder(filepath.Join(t.TempDir(), "run", "pending-del"))
	if keys, err := f.List(); len(keys) != 0 || err != nil {
		t.Errorf("%v, %v", keys, err)
	}
	for _, id := range []string{"a", "b", "a"} {
		if err := f.Put(key(id)); err != nil {
			t.Fatal(err)
		}
	}
	if keys, err := f.List(); len(keys) != 2 || err != nil || !f.Has(key("a")) || f.Has(key("c")) {
		t.Errorf("%v, %v", keys, err)
	}
	if info, err := os.Stat(string(f)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	for range 2 {
		if err := f.Remove(key("a")); err != nil {
			t.Fatal(err)
		}
	}
	if keys, err := f.List(); len(keys) != 1 || keys[0] != key("b") || err != nil {
		t.Errorf("%v, %v", keys, err)
	}
}

func TestPutRefusesBadKeys(t *testing.T) {
	f := Folder(t.TempDir())
	for _, bad := range []cni.Key{{}, {ContainerID: "../x", IfName: "eth0"}, {ContainerID: "a", IfName: "a/b"}, key(strings.Repeat("x", 600))} {
		if err := f.Put(bad); err == nil {
			t.Errorf("%v was put", bad)
		}
	}
}

func TestListReportsWhatIsNone(t *testing.T) {
	f := Folder(t.TempDir())
	if err := f.Put(key("a")); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(f.path(key("a")))
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		fileName(key("b")): string(whole),
		fileName(key("c")): "{",
		"other.json":       `{"containerID":"../..","ifname":"eth0"}`,
		fileName(key("d")): `"` + strings.Repeat("x", 2*maxSize) + `"`,
		".new-123":         "half",
	} {
		if err := os.WriteFile(filepath.Join(string(f), name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	keys, err := f.List()
	if len(keys) != 1 || keys[0] != key("a") {
		t.Errorf("%v", keys)
	}
	if err == nil || strings.Count(err.Error(), "read pending DEL") != 4 {
		t.Errorf("error %v", err)
	}
}

func TestThereIsALimit(t *testing.T) {
	f := Folder(t.TempDir())
	for i := range maxFiles {
		if err := os.WriteFile(filepath.Join(string(f), fmt.Sprint(i, suffix)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Put(key("a")); err == nil || !strings.Contains(err.Error(), "1024 are waiting") {
		t.Errorf("error %v", err)
	}
}
