package cpio

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// names reads the entry names back, in order, checking magic and padding on the way.
func names(t *testing.T, archive []byte) []string {
	t.Helper()
	var got []string
	for at := 0; at < len(archive); {
		header := archive[at : at+110]
		if string(header[:6]) != "070701" {
			t.Fatalf("offset %d: magic %q", at, header[:6])
		}
		size, length := hex(t, header[54:62]), hex(t, header[94:102])
		name := string(archive[at+110 : at+110+length-1])
		got = append(got, name)
		at = align(at + 110 + length)
		at = align(at + size)
		if name == "TRAILER!!!" && at != len(archive) {
			t.Fatalf("%d bytes after the trailer", len(archive)-at)
		}
	}
	return got
}

func hex(t *testing.T, field []byte) int {
	t.Helper()
	n := 0
	for _, c := range field {
		n = n*16 + strings.IndexByte("0123456789ABCDEF", c)
	}
	return n
}

func align(n int) int { return (n + 3) &^ 3 }

func TestParentsComeFirstAndOnce(t *testing.T) {
	var out bytes.Buffer
	w := NewWriter(&out)
	w.File("/lib/modules/a.ko", 0o644, []byte("12345"))
	w.File("lib/modules/b.ko", 0o644, nil)
	w.Dir("lib")
	w.Link("var/run", "/run")
	w.File("init", 0o755, []byte("x"))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	want := []string{"lib", "lib/modules", "lib/modules/a.ko", "lib/modules/b.ko", "var", "var/run", "init", "TRAILER!!!"}
	if diff := cmp.Diff(want, names(t, out.Bytes())); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
}

func TestSameCallsSameBytes(t *testing.T) {
	make := func() []byte {
		var out bytes.Buffer
		w := NewWriter(&out)
		w.File("a/b", 0o600, []byte("content"))
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	if !bytes.Equal(make(), make()) {
		t.Error("two archives of the same content differ")
	}
}

type full struct{}

var errFull = errors.New("disk full")

func (full) Write([]byte) (int, error) { return 0, errFull }

func TestCloseReturnsTheFirstError(t *testing.T) {
	w := NewWriter(full{})
	w.File("a", 0o644, []byte("b"))
	if err := w.Close(); !errors.Is(err, errFull) {
		t.Errorf("Close: %v, want %v", err, errFull)
	}
}
