//go:build kernel

package kernel

import (
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kithnet/kith/policy/conntrack"
)

// isolate moves the test to a network namespace of its own, on a thread that ends with it.
func isolate(t testing.TB) {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("make a network namespace, which needs root: %v", err)
	}
}

// track makes the kernel remember connections of an address, to another: so many, each from a port of its own.
func track(t testing.TB, from, to string, count int) {
	t.Helper()
	source, destination := netip.MustParseAddr(from), netip.MustParseAddr(to)
	family := netlink.InetFamily(unix.AF_INET)
	if source.Is6() {
		family = unix.AF_INET6
	}
	h, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	for n := range count {
		flow := netlink.ConntrackFlow{
			FamilyType: uint8(family), TimeOut: 1000, ProtoInfo: &netlink.ProtoInfoTCP{State: 3},
			Forward: netlink.IPTuple{SrcIP: net.IP(source.AsSlice()), DstIP: net.IP(destination.AsSlice()), SrcPort: uint16(n), DstPort: uint16(80 + n>>16), Protocol: 6},
			Reverse: netlink.IPTuple{SrcIP: net.IP(destination.AsSlice()), DstIP: net.IP(source.AsSlice()), SrcPort: uint16(80 + n>>16), DstPort: uint16(n), Protocol: 6},
		}
		if err := h.ConntrackCreate(netlink.ConntrackTable, family, &flow); err != nil {
			t.Fatalf("make connection %d: %v", n, err)
		}
	}
}

func openers(t testing.TB, table Table) map[string]int {
	t.Helper()
	out := map[string]int{}
	err := table.Each(func(c conntrack.Connection, _ func() Name) {
		out[c.Opener.String()]++
		if c.Class.Protocol != 6 || c.Class.State != 3 || c.Rest < time.Minute || c.Rest > 1000*time.Second {
			t.Errorf("%+v", c)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestOnlyTheirConnectionsEnd: all that an address opened or answers, of either family, and nobody else's.
func TestOnlyTheirConnectionsEnd(t *testing.T) {
	isolate(t)
	table := New("/proc/sys")
	for _, c := range []struct {
		from, to string
		count    int
	}{{"10.1.0.5", "10.1.0.6", 300}, {"10.1.0.6", "10.1.0.7", 30}, {"10.1.0.7", "10.1.0.5", 3}, {"fd00::5", "fd00::6", 40}, {"fd00::6", "fd00::7", 4}} {
		track(t, c.from, c.to, c.count)
	}
	if count, capacity, err := table.Fill(); err != nil || count != 377 || capacity < count {
		t.Errorf("%d of %d, %v", count, capacity, err)
	}
	if err := table.DeleteOf([]netip.Addr{netip.MustParseAddr("10.1.0.5"), netip.MustParseAddr("fd00::5"), netip.MustParseAddr("10.1.0.99")}); err != nil {
		t.Fatal(err)
	}
	if got := openers(t, table); len(got) != 2 || got["10.1.0.6"] != 30 || got["fd00::6"] != 4 {
		t.Errorf("left: %v", got)
	}
}

// TestAnotherConnectionStays: one that has the addresses and ports of one that was to end, and is another.
func TestAnotherConnectionStays(t *testing.T) {
	isolate(t)
	table := New("/proc/sys")
	track(t, "10.1.0.5", "10.1.0.6", 3)
	var names []Name
	if err := table.Each(func(_ conntrack.Connection, name func() Name) { names = append(names, name()) }); err != nil {
		t.Fatal(err)
	}
	if err := netlink.ConntrackTableFlush(netlink.ConntrackTable); err != nil {
		t.Fatal(err)
	}
	track(t, "10.1.0.8", "10.1.0.6", 100) // where those of before were in the kernel's memory
	track(t, "10.1.0.5", "10.1.0.6", 3)
	if deleted, err := table.Delete(names); deleted != 0 || err != nil {
		t.Errorf("%d deleted, %v", deleted, err)
	}
	if got := openers(t, table); got["10.1.0.5"] != 3 {
		t.Errorf("left: %v", got)
	}
}

// TestLargeTableIsWalkedInLittleMemory: what a look keeps does not grow with the table.
func TestLargeTableIsWalkedInLittleMemory(t *testing.T) {
	isolate(t)
	count := 40_000
	if text := os.Getenv("KITH_CONNECTIONS"); text != "" {
		var err error
		if count, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	table := New("/proc/sys")
	track(t, "10.244.1.5", "10.244.1.6", count)
	track(t, "10.244.1.7", "10.244.1.6", 100)
	census := conntrack.NewCensus(conntrack.NewAddresses([]netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}, nil, nil))
	kept := grown(func() any {
		walk(t, table, "count", func(c conntrack.Connection, _ func() Name) { census.Count(c) })
		return census
	})
	if kept > 1<<20 {
		t.Errorf("a census of %d connections keeps %d KB", count, kept>>10)
	}
	j := census.Judge(count, conntrack.Watch{}, time.Now())
	picked := conntrack.Select[Name](census, j)
	kept = grown(func() any { walk(t, table, "pick", picked.Offer); return picked })
	if most := uint64(conntrack.MostEnds * 256); kept > most {
		t.Errorf("what ends of %d connections keeps %d KB, at most %d", count, kept>>10, most>>10)
	}
	begin := time.Now()
	names := picked.Picked()
	deleted, err := table.Delete(names)
	t.Logf("%d deleted in %s", deleted, time.Since(begin))
	if err != nil || deleted != len(names) || deleted == 0 {
		t.Errorf("%d of %d deleted, %v", deleted, len(names), err)
	}
	begin = time.Now()
	if err := table.DeleteOf([]netip.Addr{netip.MustParseAddr("10.244.1.7")}); err != nil {
		t.Fatal(err)
	}
	t.Logf("100 of an address deleted in %s", time.Since(begin))
	left := openers(t, table)
	if left["10.244.1.7"] != 0 || left["10.244.1.5"] != count-deleted {
		t.Errorf("left: %v, of %d", left, count)
	}
}

func walk(t *testing.T, table Table, what string, do func(conntrack.Connection, func() Name)) {
	t.Helper()
	begin := time.Now()
	if err := table.Each(do); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: %s", what, time.Since(begin))
}

// grown is how much more memory is in use after a call, with what it returns.
func grown(do func() any) uint64 {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	kept := do()
	runtime.GC()
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(kept)
	return max(after.HeapAlloc, before.HeapAlloc) - before.HeapAlloc
}
