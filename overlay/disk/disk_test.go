package disk

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/kithnet/kith/overlay"
)

func memory() Memory {
	return Memory{
		Nodes: []overlay.Node{{
			Name: "a", UID: "1", Created: time.Unix(100, 0).UTC(), PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")},
			InternalIPs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, SigningKey: "key", Claim: "claim",
		}},
		GossipKeys: [][]byte{{1, 2}, {3}},
	}
}

func TestMemoryIsKept(t *testing.T) {
	f := Folder(filepath.Join(t.TempDir(), "state"))
	if m, err := f.LoadMemory(); err != nil || len(m.Nodes) != 0 {
		t.Errorf("before the first: %v, %v", m, err)
	}
	if own, err := f.LoadOwn(); err != nil || own.Sealed != nil {
		t.Errorf("before the first: %v, %v", own, err)
	}
	for range 2 {
		if err := errors.Join(f.SaveMemory(memory()), f.SaveOwn(Own{UID: "1", Sealed: []byte{9}})); err != nil {
			t.Fatal(err)
		}
	}
	m, err := f.LoadMemory()
	if diff := cmp.Diff(memory(), m, cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{})); diff != "" || err != nil {
		t.Errorf("%s (%v)", diff, err)
	}
	if own, err := f.LoadOwn(); err != nil || own.UID != "1" || !bytes.Equal(own.Sealed, []byte{9}) {
		t.Errorf("own claim %v, %v", own, err)
	}
	entries, _ := os.ReadDir(string(f))
	if len(entries) != 2 {
		t.Errorf("left in the state folder: %v", entries)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", e.Name(), info.Mode())
		}
	}
}

// TestTornFileIsRefused holds that a file cut, bent or replaced anywhere is refused whole, by name and with the reason.
func TestTornFileIsRefused(t *testing.T) {
	f := Folder(t.TempDir())
	path := filepath.Join(string(f), memoryFile)
	if err := errors.Join(f.SaveMemory(memory()), f.SaveOwn(Own{UID: "1"})); err != nil {
		t.Fatal(err)
	}
	good, _ := os.ReadFile(path)
	own, _ := os.ReadFile(filepath.Join(string(f), ownFile))
	bad := [][]byte{own, []byte("kith mesh 2 x\n{}"), append(bytes.Clone(good), '\n'), []byte("\n")}
	for i := range good {
		bent := bytes.Clone(good)
		bent[i] ^= 1
		bad = append(bad, good[:i], bent)
	}
	for _, text := range bad {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		m, err := f.LoadMemory()
		if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), path) || len(m.Nodes) != 0 {
			t.Fatalf("%q: %v, %v", text, m, err)
		}
	}
}

func TestSignerIsMadeOnceAndKept(t *testing.T) {
	f := Folder(filepath.Join(t.TempDir(), "state"))
	first, err := f.LoadSigner()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(string(f), signerFile)
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	second, err := f.LoadSigner()
	if err != nil || first != second {
		t.Errorf("the key changed at the second start (%v)", err)
	}
	for name, want := range map[string]fs.FileMode{string(f): 0o700, path: 0o600} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != want {
			t.Errorf("mode of %s: %v, want %v", name, info.Mode(), want)
		}
	}
	if !first.Public().Verify([]byte("m"), first.Sign([]byte("m"))) {
		t.Error("what it signs does not verify")
	}
	for _, content := range []string{"", "c2VjcmV0", "secret!", strings.Repeat("A", 43) + "="} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := f.LoadSigner()
		if err == nil || !strings.Contains(err.Error(), path) || content != "" && strings.Contains(err.Error(), content) {
			t.Errorf("%q: error %v", content, err)
		}
	}
}

func TestSignerDoesNotShowItself(t *testing.T) {
	s, err := Folder(t.TempDir()).LoadSigner()
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("key", "key", s)
	slog.New(slog.NewTextHandler(&log, nil)).Info("key", "key", s)
	shown := log.String() + fmt.Sprintf("%s %v %+v %#v %d %x", s, s, s, s, s, s)
	for _, form := range []string{base64.StdEncoding.EncodeToString(s.seed[:]), fmt.Sprintf("%x", s.seed), fmt.Sprint(s.seed)} {
		if strings.Contains(shown, strings.Trim(form, "[]")) {
			t.Errorf("the key shows as %s", form)
		}
	}
}

// TestErrorsOfACauseAreOne holds that who tells an error once does so however often it comes, and that nothing is left.
func TestErrorsOfACauseAreOne(t *testing.T) {
	f := Folder(t.TempDir())
	path := filepath.Join(string(f), memoryFile)
	if err := os.MkdirAll(filepath.Join(path, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	first, second := f.SaveMemory(memory()), f.SaveMemory(memory())
	if first == nil || second == nil || first.Error() != second.Error() || !strings.Contains(first.Error(), path+":") {
		t.Errorf("errors %v and %v", first, second)
	}
	if entries, err := os.ReadDir(string(f)); err != nil || len(entries) != 1 {
		t.Errorf("left: %v (%v)", entries, err)
	}
}

// TestUnfinishedFilesAreSwept holds that no key stays behind in a file that a crash cut, and that all others stay.
func TestUnfinishedFilesAreSwept(t *testing.T) {
	f := Folder(t.TempDir())
	if err := errors.Join(f.SaveMemory(memory()), f.SaveOwn(Own{UID: "1"}), os.Mkdir(filepath.Join(string(f), "ipam.tmp-1"), 0o700)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"wireguard.keys", "preshared", memoryFile} {
		tmp, err := os.CreateTemp(string(f), name+unfinished)
		if err == nil {
			_, err = tmp.WriteString("secret")
		}
		if err = errors.Join(err, tmp.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Sweep(); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(string(f))
	if err != nil || len(entries) != 3 {
		t.Errorf("in the state folder: %v (%v)", entries, err)
	}
	if m, err := f.LoadMemory(); err != nil || len(m.Nodes) != 1 {
		t.Errorf("%v, %v", m, err)
	}
	if err := Folder(filepath.Join(string(f), "none")).Sweep(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a folder that is not there: %v", err)
	}
}
