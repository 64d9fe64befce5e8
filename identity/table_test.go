package identity

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func addr(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}) }

func samplePod(r *rand.Rand) Pod {
	p := Pod{
		Namespace: fmt.Sprintf("ns%d", r.IntN(3)), Name: fmt.Sprintf("pod%d", r.IntN(6)), UID: fmt.Sprint(r.IntN(3)),
		Created: time.Unix(int64(r.IntN(3)), 0), Labels: map[string]string{"app": fmt.Sprint(r.IntN(3))},
	}
	for range r.IntN(3) {
		p.Addresses = append(p.Addresses, addr(r.IntN(4)))
	}
	slices.SortFunc(p.Addresses, netip.Addr.Compare)
	p.Addresses = slices.Compact(p.Addresses)
	return p
}

// view is everything that a table says, for comparison.
func view(t *Table) map[string]string {
	v := map[string]string{}
	name := func(i *Identity) string {
		if i == nil {
			return "nobody"
		}
		return fmt.Sprintf("%s %s number %x", i, i.NamespaceLabels(), t.Number(i))
	}
	for i := range 4 {
		v[addr(i).String()] = name(t.Lookup(addr(i)))
	}
	for k := range t.pods {
		v[k.String()] = name(t.Pod(k))
	}
	for id := range t.Identities() {
		as := slices.SortedFunc(t.Addresses(id), netip.Addr.Compare)
		v[id.Key().String()] = fmt.Sprint(name(id), slices.Compact(as))
	}
	return v
}

func TestTableDoesNotDependOnOrder(t *testing.T) {
	for seed := range uint64(150) {
		r := rand.New(rand.NewPCG(seed, 0))
		pods, spaces := map[PodKey]Pod{}, map[string]Namespace{}
		got := NewTable()
		seen := map[netip.Addr]*Identity{}
		for range 60 {
			switch p := samplePod(r); r.IntN(6) {
			case 0:
				got.DeletePod(p.Key())
				delete(pods, p.Key())
			case 1:
				n := Namespace{Name: p.Namespace, Labels: map[string]string{"team": fmt.Sprint(r.IntN(2))}}
				got.PutNamespace(n)
				spaces[n.Name] = n
			case 2:
				got.DeleteNamespace(p.Namespace)
				delete(spaces, p.Namespace)
			case 3:
				got.Pin(addr(r.IntN(4)), Pin{p.Key(), p.UID})
			default:
				got.PutPod(p)
				pods[p.Key()] = p
			}
			if r.IntN(3) == 0 {
				follow(t, got, seen)
			}
		}
		follow(t, got, seen)
		want := NewTable()
		want.ReplacePods(slices.Collect(maps.Values(pods)))
		want.ReplaceNamespaces(slices.Collect(maps.Values(spaces)))
		for a, p := range got.pins {
			want.Pin(a, p)
		}
		if d := cmp.Diff(view(want), view(got)); d != "" {
			t.Fatalf("seed %d: (-at once +event by event)\n%s", seed, d)
		}
		emptied(t, got)
	}
}

// follow keeps a picture by the changes alone.
func follow(t *testing.T, table *Table, seen map[netip.Addr]*Identity) {
	t.Helper()
	c := table.TakeChanges()
	for a := range c.Addresses {
		seen[a] = table.Lookup(a)
	}
	for i := range 4 {
		if got, want := seen[addr(i)], table.Lookup(addr(i)); got != want {
			t.Fatalf("changes left %s with %v, the table says %v", addr(i), got, want)
		}
	}
	for id := range c.Gone {
		if _, both := c.Appeared[id]; both {
			t.Fatalf("%s appeared and went", id)
		}
	}
	for id := range c.Appeared {
		if table.Number(id) == 0 {
			t.Fatalf("%s appeared and has no number", id)
		}
	}
}

// emptied takes everything out and looks for what stays.
func emptied(t *testing.T, table *Table) {
	t.Helper()
	table.ReplacePods(nil)
	table.ReplaceNamespaces(nil)
	for a := range maps.Clone(table.pins) {
		table.Unpin(a)
	}
	left := len(table.pods) + len(table.spaces) + len(table.entries) + len(table.owner) + len(table.contenders) +
		len(table.pins) + len(table.pinned) + len(table.words) + len(table.hinted) + len(table.spoken) + len(table.numbers.number)
	if left > 0 {
		t.Fatalf("%d things stay in an emptied table: %+v", left, table)
	}
}

func TestAddressReuse(t *testing.T) {
	old := Pod{Namespace: "a", Name: "old", Created: time.Unix(1, 0), Labels: map[string]string{"app": "old"}, Addresses: []netip.Addr{addr(1)}}
	young := Pod{Namespace: "a", Name: "new", Created: time.Unix(2, 0), Labels: map[string]string{"app": "new"}, Addresses: []netip.Addr{addr(1)}}
	for _, order := range [][]Pod{{old, young}, {young, old}} {
		table := NewTable()
		table.PutNamespace(Namespace{Name: "a"})
		for _, p := range order {
			table.PutPod(p)
		}
		if got := table.Lookup(addr(1)).Labels().Get("app"); got != "new" {
			t.Errorf("both claim the address: it is %q's, want the newer's", got)
		}
		table.DeletePod(young.Key())
		if got := table.Lookup(addr(1)).Labels().Get("app"); got != "old" {
			t.Errorf("the newer went: the address is %q's, want the older's", got)
		}
	}
}

func TestNamespaceLabelsCannotBeForged(t *testing.T) {
	table := NewTable()
	table.PutNamespace(Namespace{Name: "evil", Labels: map[string]string{NameLabel: "kube-system"}})
	table.PutPod(Pod{Namespace: "evil", Name: "p", Labels: map[string]string{NameLabel: "kube-system"}})
	id := table.Pod(PodKey{"evil", "p"})
	if got := id.NamespaceLabels().Get(NameLabel); got != "evil" {
		t.Errorf("the namespace's name label says %q", got)
	}
}

func TestIdentityKeepsPartsApart(t *testing.T) {
	ns := Namespace{Name: "a"}
	ids := []*Identity{
		New(ns, Pod{Labels: map[string]string{"a": "bc"}}),
		New(ns, Pod{Labels: map[string]string{"ab": "c"}}),
		New(ns, Pod{Labels: map[string]string{"a": "b", "c": ""}}),
		New(Namespace{Name: "a", Labels: map[string]string{"a": "bc"}}, Pod{}),
		New(ns, Pod{Ports: []NamedPort{{"a", TCP, 80}}}),
		New(ns, Pod{Ports: []NamedPort{{"a", UDP, 80}}}),
		New(ns, Pod{Ports: []NamedPort{{"a", TCP, 81}}}),
		New(Namespace{Name: "b"}, Pod{}),
	}
	seen := map[Key]*Identity{}
	for _, id := range ids {
		if o := seen[id.Key()]; o != nil {
			t.Errorf("%s and %s have one key", id, o)
		}
		seen[id.Key()] = id
	}
	a := New(ns, Pod{Ports: []NamedPort{{"b", TCP, 1}, {"a", TCP, 2}, {"", TCP, 3}, {"a", TCP, 2}}})
	b := New(ns, Pod{Ports: []NamedPort{{"a", TCP, 2}, {"b", TCP, 1}}})
	if a.Key() != b.Key() {
		t.Error("order, repetition and unnamed ports change the key")
	}
}

// TestMemoryPerPod holds the table to its part of a kilobyte for each remote pod.
func TestMemoryPerPod(t *testing.T) {
	const pods, limit = 10_000, 700
	before := heap()
	table := NewTable()
	table.PutNamespace(Namespace{Name: "a"})
	for i := range pods {
		labels := map[string]string{"app": fmt.Sprint("app", i%50), "pod-template-hash": fmt.Sprint(i % 100)}
		if i%3 == 0 {
			labels["statefulset.kubernetes.io/pod-name"] = fmt.Sprint("pod-", i)
		}
		table.PutPod(Pod{
			Namespace: "a", Name: fmt.Sprintf("application-5d4f8c7b9-%05d", i), UID: fmt.Sprintf("e0a1c5f2-0000-4000-8000-%012x", i),
			Labels: labels, Addresses: []netip.Addr{addr(i)}, Ports: []NamedPort{{"http", TCP, 8080}},
		})
	}
	table.TakeChanges()
	if got := (heap() - before) / pods; got > limit {
		t.Errorf("%d bytes for each pod, want at most %d", got, limit)
	} else {
		t.Logf("%d bytes for each pod", got)
	}
	runtime.KeepAlive(table)
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
