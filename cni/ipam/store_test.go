package ipam

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/kithnet/kith/cni"
)

func prefixes(cidrs ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, s := range cidrs {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}

func attachment(id string) cni.Attachment {
	return cni.NewAttachment(cni.Request{
		Key: cni.Key{ContainerID: id, IfName: "eth0"}, Netns: "/run/netns/" + id,
		Pod: cni.Pod{Namespace: "ns", Name: id},
	}, 1420)
}

func open(t *testing.T, dir string, cidrs ...string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if err := s.SetCIDRs(prefixes(cidrs...)); err != nil {
		t.Fatal(err)
	}
	return s
}

// reopen is what a start after SIGKILL is: the file as it was, nothing of memory.
func reopen(t *testing.T, s *Store, dir string, cidrs ...string) *Store {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return open(t, dir, cidrs...)
}

// memory is a disk in memory, for tests with many writes.
type memory struct{ data []byte }

func (m *memory) append(line []byte) error  { m.data = append(m.data, line...); return nil }
func (m *memory) rewrite(data []byte) error { m.data = bytes.Clone(data); return nil }
func (m *memory) close() error              { return nil }

func openMemory(t *testing.T, m *memory, cidrs ...string) *Store {
	t.Helper()
	st, err := parse(m.data)
	if err != nil {
		t.Fatal(err)
	}
	s := newStore(m, st)
	if err := errors.Join(s.rewrite(), s.SetCIDRs(prefixes(cidrs...))); err != nil {
		t.Fatal(err)
	}
	return s
}

func allocate(t *testing.T, s *Store, id string) string {
	t.Helper()
	a, err := s.Allocate(attachment(id))
	if err != nil {
		t.Fatalf("allocate %s: %v", id, err)
	}
	return strings.Trim(fmt.Sprint(a.Addresses), "[]")
}

func release(t *testing.T, s *Store, id string) {
	t.Helper()
	if err := s.Release(attachment(id).Key); err != nil {
		t.Fatal(err)
	}
}

func TestAllocate(t *testing.T) {
	tests := map[string]struct {
		cidrs []string
		want  []string
		says  string
	}{
		"IPv4": {[]string{"10.1.0.0/29"}, []string{"10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6"},
			"IPv4 10.1.0.0/29 (5 of 5 in use): addresses exhausted"},
		"IPv6": {[]string{"fd00::/126"}, []string{"fd00::2", "fd00::3"}, "IPv6 fd00::/126 (2 of 2 in use): addresses exhausted"},
		"dual stack": {[]string{"fd00::/64", "10.1.0.0/30"}, []string{"10.1.0.2 fd00::2"},
			"IPv4 10.1.0.0/30 (1 of 1 in use)"},
		"spill over": {[]string{"10.1.0.0/30", "10.2.0.0/30", "fd00::/64"}, []string{"10.1.0.2 fd00::2", "10.2.0.2 fd00::3"},
			"IPv4 10.1.0.0/30 (1 of 1 in use), 10.2.0.0/30 (1 of 1 in use)"},
		"too small":  {[]string{"10.1.0.0/31"}, nil, "IPv4 10.1.0.0/31 (0 of 0 in use)"},
		"single":     {[]string{"10.1.0.9/32"}, nil, "exhausted"},
		"the last":   {[]string{"255.255.255.252/30"}, []string{"255.255.255.254"}, "exhausted"},
		"last IPv6":  {[]string{"ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffc/126"}, []string{"ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"}, "exhausted"},
		"none given": {nil, nil, "the node has no pod CIDR yet"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := open(t, t.TempDir(), tt.cidrs...)
			for i, want := range tt.want {
				if err := s.Available(); err != nil {
					t.Error(err)
				}
				if got := allocate(t, s, fmt.Sprint("c", i)); got != want {
					t.Errorf("got %s, want %s", got, want)
				}
			}
			_, err := s.Allocate(attachment("one-more"))
			if err == nil || !strings.Contains(err.Error(), tt.says) || !errors.Is(err, cni.ErrUnavailable) {
				t.Errorf("error %v, want %q", err, tt.says)
			}
			if err := s.Available(); err == nil {
				t.Error("available")
			}
			if len(s.List()) != len(tt.want) {
				t.Error("a failed Allocate left something")
			}
		})
	}
}

func TestFreedLastIsReusedLast(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, "10.1.0.0/29")
	for _, id := range []string{"a", "b", "c", "d"} {
		allocate(t, s, id)
	}
	for _, id := range []string{"c", "a", "d"} {
		release(t, s, id)
		s = reopen(t, s, dir, "10.1.0.0/29")
	}
	for i, want := range []string{"10.1.0.6", "10.1.0.4", "10.1.0.2", "10.1.0.5"} {
		if got := allocate(t, s, fmt.Sprint("n", i)); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		s = reopen(t, s, dir, "10.1.0.0/29")
	}
}

func TestHugeCIDRInBoundedMemory(t *testing.T) {
	st := newState()
	_, f, err := newFamilies(prefixes("fd00::/48"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 * maxFreed {
		addr, ok := f.next(st)
		if !ok {
			t.Fatal("exhausted")
		}
		a := attachment(fmt.Sprint("c", i))
		a.Addresses = []netip.Addr{addr}
		st.apply(entry{Op: opPut, Attachment: &a})
		st.apply(entry{Op: opFree, Key: &a.Key})
	}
	if n := len(st.freed.order); n > maxFreed+1 || n != len(st.freed.waiting) {
		t.Errorf("%d freed addresses wait", n)
	}
}

func TestCIDRsMayChange(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, "10.1.0.0/30")
	allocate(t, s, "a")
	if err := s.SetCIDRs(prefixes("10.1.0.0/30", "10.2.0.0/30", "fd00::/120")); err != nil {
		t.Fatal(err)
	}
	if got := allocate(t, s, "b"); got != "10.2.0.2 fd00::2" {
		t.Error(got)
	}
	release(t, s, "a")
	// The node has other CIDRs now: what was freed of the old ones must not come back.
	s = reopen(t, s, dir, "10.3.0.0/30")
	if got := allocate(t, s, "c"); got != "10.3.0.2" {
		t.Error(got)
	}
	if _, err := s.Allocate(attachment("d")); err == nil {
		t.Error("an address of a CIDR that is gone")
	}
	s = reopen(t, s, dir, "10.1.0.0/30")
	if got := allocate(t, s, "d"); got != "10.1.0.2" {
		t.Error(got)
	}
}

func TestSetCIDRsRefuses(t *testing.T) {
	s := open(t, t.TempDir(), "10.1.0.0/30")
	for _, bad := range [][]netip.Prefix{
		prefixes("10.1.0.1/30"), prefixes("10.1.0.0/16", "10.1.5.0/24"), {netip.Prefix{}}, prefixes("::ffff:10.1.0.0/112"),
	} {
		if err := s.SetCIDRs(bad); err == nil {
			t.Errorf("%v was taken", bad)
		}
	}
	if got := allocate(t, s, "a"); got != "10.1.0.2" {
		t.Errorf("%s: the refused CIDRs count", got)
	}
}

func TestRecords(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, "10.1.0.0/24", "fd00::/64")
	want := attachment("a")
	want.Addresses = []netip.Addr{netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("fd00::2")}
	allocate(t, s, "b")
	release(t, s, "b")
	want.Addresses = []netip.Addr{netip.MustParseAddr("10.1.0.3"), netip.MustParseAddr("fd00::3")}
	allocate(t, s, "a")
	if _, err := s.Allocate(attachment("a")); err == nil {
		t.Error("allocated twice")
	}
	if err := s.Commit(attachment("b").Key); err == nil {
		t.Error("committed what is not there")
	}
	if err := s.Commit(want.Key); err != nil {
		t.Fatal(err)
	}
	release(t, s, "b")
	want.Complete = true
	for range 2 {
		got, ok := s.Get(want.Key)
		if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" || !ok {
			t.Error(diff)
		}
		s = reopen(t, s, dir)
	}
	if diff := cmp.Diff([]string(nil), s.Usage()); diff != "" {
		t.Error(diff)
	}
}

func TestOneProcessAtATime(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "another agent") {
		t.Errorf("error %v", err)
	}
}

// Whatever the order of operations and restarts, the store is what a simple model says.
func TestRandomOrders(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 0))
		disk := &memory{}
		cidrs := []string{"10.1.0.0/28", "10.2.0.0/29", "fd00::/64"}
		s := openMemory(t, disk, cidrs...)
		live := map[string]string{}
		var lastFreed string
		for range 150 {
			id := fmt.Sprint("c", rng.IntN(24))
			switch _, ok := live[id]; {
			case rng.IntN(20) == 0:
				s = openMemory(t, disk, cidrs...)
			case ok:
				release(t, s, id)
				lastFreed, _, _ = strings.Cut(live[id], " ")
				delete(live, id)
			case len(live) < 13+5:
				live[id] = allocate(t, s, id)
				got, _, _ := strings.Cut(live[id], " ")
				if got == lastFreed && len(live) < 13+5 {
					t.Errorf("seed %d: %s was freed last and reused first", seed, got)
				}
			default:
				if err := s.Available(); !errors.Is(err, ErrExhausted) {
					t.Errorf("seed %d: %v", seed, err)
				}
			}
		}
		compareWithModel(t, s, live)
	}
}

func compareWithModel(t *testing.T, s *Store, live map[string]string) {
	t.Helper()
	got := map[string]string{}
	owner := map[netip.Addr]string{}
	for _, a := range s.List() {
		got[a.ContainerID] = strings.Trim(fmt.Sprint(a.Addresses), "[]")
		for _, addr := range a.Addresses {
			if owner[addr] != "" {
				t.Errorf("%s has two owners", addr)
			}
			owner[addr] = a.ContainerID
		}
	}
	if diff := cmp.Diff(live, got); diff != "" {
		t.Error(diff)
	}
}

// failingDisk fails calls as told, and like a real one may have written all the same.
type failingDisk struct {
	disk
	fail  func() bool
	wrote bool
}

func (d *failingDisk) append(line []byte) error {
	if !d.fail() {
		return d.disk.append(line)
	}
	if d.wrote {
		return errors.Join(errors.New("no sync"), d.disk.append(line))
	}
	return errors.Join(errors.New("no space"), d.disk.append(line[:len(line)/2]))
}

func (d *failingDisk) rewrite(data []byte) error {
	if d.fail() {
		return errors.New("no space")
	}
	return d.disk.rewrite(data)
}

func TestDiskErrors(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 1))
		disk := &memory{}
		s := openMemory(t, disk, "10.1.0.0/26")
		s.disk = &failingDisk{disk: disk, wrote: seed%2 == 0, fail: func() bool { return rng.IntN(3) == 0 }}
		live := map[string]string{}
		for i := range 60 {
			id := fmt.Sprint("c", i%20)
			if _, ok := live[id]; ok {
				if s.Release(attachment(id).Key) == nil {
					delete(live, id)
				}
				continue
			}
			if a, err := s.Allocate(attachment(id)); err == nil {
				live[id] = a.Addresses[0].String()
			}
		}
		compareWithModel(t, s, live)
		s.disk.(*failingDisk).fail = func() bool { return false }
		live["z"] = allocate(t, s, "z")
		s = openMemory(t, disk, "10.1.0.0/26")
		compareWithModel(t, s, live)
	}
}

// TestFullDiskOpens holds that an agent starts on a full disk with what it had: it gives no address until there is room.
func TestFullDiskOpens(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, "10.1.0.0/26")
	held := allocate(t, s, "a")
	full := filepath.Join(dir, fileName+".tmp")
	if err := os.Mkdir(full, 0o700); err != nil { // what is to be written first, cannot
		t.Fatal(err)
	}
	s = reopen(t, s, dir, "10.1.0.0/26")
	if a, ok := s.Get(attachment("a").Key); !ok || a.Addresses[0].String() != held {
		t.Errorf("the store has %v of a, want %s", a.Addresses, held)
	}
	if a, err := s.Allocate(attachment("b")); err == nil {
		t.Errorf("%v is given and not on disk", a.Addresses)
	}
	if err := os.Remove(full); err != nil {
		t.Fatal(err)
	}
	if again := allocate(t, s, "b"); again == held {
		t.Errorf("%s is given twice", held)
	}
	if s = reopen(t, s, dir, "10.1.0.0/26"); len(s.List()) != 2 {
		t.Errorf("on disk is %v", s.List())
	}
	if err := os.Mkdir(filepath.Join(dir, "new"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "new", fileName+".tmp"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(filepath.Join(dir, "new")); err == nil {
		t.Error("a store was made that nothing can be written to")
	}
}

func TestJournalStaysSmall(t *testing.T) {
	disk := &memory{}
	s := openMemory(t, disk, "10.1.0.0/28")
	for i := range 1200 {
		allocate(t, s, fmt.Sprint(i))
		release(t, s, fmt.Sprint(i))
	}
	if len(disk.data) > 300<<10 {
		t.Errorf("%d bytes", len(disk.data))
	}
	if got := allocate(t, openMemory(t, disk, "10.1.0.0/28"), "x"); got != "10.1.0.6" {
		t.Errorf("after 1200 turns through 13 addresses: %s", got)
	}
}
