//go:build kernel

package nft

import (
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// newNamespace makes a network namespace and does not enter it. Tests of the kernel need root and say so.
func newNamespace(t testing.TB) netns.NsHandle {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("tests of the kernel need root")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	if err := netns.Set(home); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

// inside runs a function in a network namespace.
func inside(t testing.TB, ns netns.NsHandle, do func()) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	if err := netns.Set(ns); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := netns.Set(home); err != nil {
			panic(err)
		}
	}()
	do()
}

func openTable(t testing.TB, ns netns.NsHandle, opts ...Option) *Table {
	t.Helper()
	table, err := Open(append([]Option{InNamespace(int(ns))}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { table.Close() })
	return table
}

// generation is the number of the last transaction in the namespace.
func generation(t testing.TB, table *Table) uint32 {
	t.Helper()
	out, err := table.reader.list(unix.NFT_MSG_GETGEN, 0)
	if err != nil || len(out) != 1 {
		t.Fatalf("read generation: %v, %d answers", err, len(out))
	}
	for _, a := range attributes(out[0]) {
		if a.typ == unix.NFTA_GEN_ID {
			return number(a.data)
		}
	}
	t.Fatal("no generation in the answer")
	return 0
}
