package ipam

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/kithnet/kith/cni"
)

// history is a journal with every kind of line, and the state after each of them.
func history(t testing.TB) (data []byte, ends []int, states []*state) {
	t.Helper()
	a, b := attachment("a"), attachment("b")
	a.Addresses = []netip.Addr{netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("fd00::2")}
	b.Addresses = []netip.Addr{netip.MustParseAddr("10.1.0.3")}
	for i, e := range []entry{
		{Op: opHeader, Version: formatVersion},
		{Op: opQueue, Addresses: []netip.Addr{netip.MustParseAddr("10.1.0.9")}},
		{Op: opPut, Attachment: &a},
		{Op: opPut, Attachment: &b},
		{Op: opCommit, Key: &a.Key},
		{Op: opFree, Key: &b.Key},
	} {
		line, err := encode(e)
		if err != nil {
			t.Fatal(err)
		}
		data = append(data, line...)
		st, err := parse(data)
		if err != nil {
			t.Fatalf("line %d: %v", i+1, err)
		}
		ends, states = append(ends, len(data)), append(states, st)
	}
	return data, ends, states
}

func compare(t *testing.T, want, got *state) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(state{}, queue{}), cmpopts.EquateComparable(netip.Addr{}), cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
}

// A crash may cut the last write anywhere: what was acknowledged before it must be there.
func TestCutAnywhere(t *testing.T) {
	data, ends, states := history(t)
	for n := ends[0]; n <= len(data); n++ {
		whole := 0
		for whole+1 < len(ends) && ends[whole+1] <= n {
			whole++
		}
		tails := map[string][]byte{"": nil, "zeros": make([]byte, 40), "garbage": []byte("\x00\xff{}\n")}
		for name, tail := range tails {
			if name == "garbage" && n != ends[whole] {
				continue
			}
			got, err := parse(append(bytes.Clone(data[:n]), tail...))
			if err != nil {
				t.Fatalf("cut at %d, then %s: %v", n, name, err)
			}
			compare(t, states[whole], got)
		}
	}
}

func TestCutFileOpensAndGoesOn(t *testing.T) {
	data, _, _ := history(t)
	dir := t.TempDir()
	path := filepath.Join(dir, fileName)
	if err := os.WriteFile(path, data[:len(data)-7], 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir, "10.1.0.0/24")
	if n := len(s.List()); n != 2 {
		t.Errorf("%d attachments", n)
	}
	release(t, s, "b")
	if n := len(reopen(t, s, dir).List()); n != 1 {
		t.Errorf("%d attachments", n)
	}
}

func TestDamageIsRefused(t *testing.T) {
	data, ends, _ := history(t)
	// Without the newline before it, the last line is longer, and still a last line that does not fit.
	for n := range ends[len(ends)-2] - 1 {
		bad := bytes.Clone(data)
		bad[n] ^= 0x04
		if _, err := parse(bad); err == nil || !strings.Contains(err.Error(), "line ") {
			t.Fatalf("byte %d changed: %v", n, err)
		}
	}
	dir := t.TempDir()
	path := filepath.Join(dir, fileName)
	data[ends[2]+3] ^= 0xff
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(dir)
	if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "line 4") {
		t.Errorf("error %v does not name file and line", err)
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(after, data) {
		t.Error("a damaged file was changed")
	}
}

func TestNonsenseIsRefused(t *testing.T) {
	data, _, _ := history(t)
	a, taken, link := attachment("a"), attachment("c"), attachment("d")
	taken.Addresses = []netip.Addr{netip.MustParseAddr("fd00::2")}
	link.HostInterface = a.HostInterface
	twice := attachment("e")
	twice.Addresses = []netip.Addr{netip.MustParseAddr("10.1.0.7"), netip.MustParseAddr("10.1.0.7")}
	for name, e := range map[string]entry{
		"unknown operation":     {Op: "move"},
		"second header":         {Op: opHeader, Version: formatVersion},
		"attachment twice":      {Op: opPut, Attachment: &a},
		"address of another":    {Op: opPut, Attachment: &taken},
		"interface of another":  {Op: opPut, Attachment: &link},
		"address twice":         {Op: opPut, Attachment: &twice},
		"put of nothing":        {Op: opPut},
		"put without a key":     {Op: opPut, Attachment: &cni.Attachment{}},
		"free of nothing":       {Op: opFree},
		"free of the unknown":   {Op: opFree, Key: &twice.Key},
		"commit of the unknown": {Op: opCommit, Key: &twice.Key},
		"used address is free":  {Op: opQueue, Addresses: taken.Addresses},
		"free address is free":  {Op: opQueue, Addresses: []netip.Addr{netip.MustParseAddr("10.1.0.9")}},
	} {
		line, err := encode(e)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parse(append(bytes.Clone(data), line...)); err == nil || !strings.Contains(err.Error(), "line 7") {
			t.Errorf("%s: %v", name, err)
		}
	}
	future, _ := encode(entry{Op: opHeader, Version: formatVersion + 1})
	for _, bad := range [][]byte{future, []byte("x"), []byte("x\n"), make([]byte, 100)} {
		if _, err := parse(bad); err == nil || !strings.Contains(err.Error(), "line 1") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// What encode writes, parse reads, and the order of reuse survives.
func TestRewriteKeepsAll(t *testing.T) {
	_, _, states := history(t)
	want := states[len(states)-1]
	for i := range 1000 {
		want.freed.push(netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)}))
	}
	short, err := want.encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := parse(short)
	if err != nil {
		t.Fatal(err)
	}
	compare(t, want, got)
}

func FuzzParse(f *testing.F) {
	data, ends, _ := history(f)
	f.Add(data)
	f.Add(data[:ends[2]+5])
	f.Add([]byte{})
	f.Add(fmt.Appendf(nil, "%08x x\n", checksum([]byte("x"))))
	f.Fuzz(func(t *testing.T, data []byte) {
		st, err := parse(data)
		if err != nil {
			return
		}
		again, err := st.encode()
		if err != nil {
			t.Fatal(err)
		}
		back, err := parse(again)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		compare(t, st, back)
	})
}
