package identity

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var noon = time.Unix(1000, 0)

func hint(node, pod string, sequence uint64, addresses ...int) Hint {
	h := Hint{Node: node, Sequence: sequence, Until: noon}
	if pod != "" {
		h.Pin = Pin{PodKey{"a", pod}, "uid-" + pod}
	}
	for _, i := range addresses {
		h.Addresses = append(h.Addresses, addr(i))
	}
	return h
}

// pending is a pod on node n1 that has no address yet.
func pending(name string, created int64, addresses ...int) Pod {
	p := Pod{Namespace: "a", Name: name, UID: "uid-" + name, Created: time.Unix(created, 0), Labels: map[string]string{"app": name}, Node: "n1"}
	for _, i := range addresses {
		p.Addresses = append(p.Addresses, addr(i))
	}
	return p
}

// TestNodeKnowsItsPodsAddressFirst: what a node says of an address counts for its own pod, and until somebody knows better.
func TestNodeKnowsItsPodsAddressFirst(t *testing.T) {
	type do = func(*Table)
	say := func(h Hint) do { return func(t *Table) { t.Hint(h) } }
	put := func(p Pod) do { return func(t *Table) { t.PutPod(p) } }
	ended, other, moved := pending("x", 1), pending("x", 1), pending("x", 1)
	ended.Node, other.UID, moved.Node = "", "uid-other", "n2"
	tests := []struct {
		name  string
		steps []do
		want  string // who has address 1
	}{
		{"said after the pod", []do{put(pending("x", 1)), say(hint("n1", "x", 1, 1))}, "x"},
		{"said before the pod", []do{say(hint("n1", "x", 1, 1)), put(pending("x", 1))}, "x"},
		{"said before the pod is put on a node", []do{put(ended), say(hint("n1", "x", 1, 1)), put(pending("x", 1))}, "x"},
		{"labels change", []do{say(hint("n1", "x", 1, 1)), put(Pod{Namespace: "a", Name: "x", UID: "uid-x", Labels: map[string]string{"app": "y"}, Node: "n1"})}, "y"},
		{"of another node's pod", []do{put(pending("x", 1)), say(hint("n2", "x", 1, 1))}, ""},
		{"by two nodes", []do{say(hint("n1", "x", 1, 1)), say(hint("n2", "x", 9, 2)), put(pending("x", 1))}, "x"},
		{"of a pod with another UID", []do{put(other), say(hint("n1", "x", 1, 1))}, ""},
		{"of a pod with another UID to come", []do{say(hint("n1", "x", 1, 1)), put(other)}, ""},
		{"of no UID", []do{put(Pod{Namespace: "a", Name: "x", Node: "n1"}), say(Hint{Pin: Pin{PodKey{"a", "x"}, ""}, Node: "n1", Addresses: []netip.Addr{addr(1)}, Until: noon})}, ""},
		{"status says another", []do{say(hint("n1", "x", 1, 1)), put(pending("x", 1)), put(pending("x", 1, 2))}, ""},
		{"status said another", []do{put(pending("x", 1, 2)), say(hint("n1", "x", 1, 1))}, ""},
		{"status says no more", []do{put(pending("x", 1)), say(hint("n1", "x", 1, 1)), put(pending("x", 1, 1)), put(pending("x", 1))}, ""},
		{"pod ended", []do{put(pending("x", 1)), say(hint("n1", "x", 1, 1)), put(ended)}, ""},
		{"pod gone", []do{put(pending("x", 1)), say(hint("n1", "x", 1, 1)), func(t *Table) { t.DeletePod(PodKey{"a", "x"}) }}, ""},
		{"pod gone, another of its name", []do{put(pending("x", 1)), say(hint("n1", "x", 1, 1)), put(other)}, ""},
		{"pod of its name on another node", []do{put(pending("x", 1)), say(hint("n1", "x", 1, 1)), put(moved)}, ""},
		{"time is over", []do{put(pending("x", 1)), say(hint("n1", "x", 1, 1)), func(t *Table) { t.DropHints(noon) }}, ""},
		{"time is not over", []do{put(pending("x", 1)), say(hint("n1", "x", 1, 1)), func(t *Table) { t.DropHints(noon.Add(-1)) }}, "x"},
		{"nobody's", []do{put(pending("x", 1)), say(hint("n1", "x", 1, 1)), say(hint("n1", "", 2, 1))}, ""},
		{"nobody's, and late what was before", []do{put(pending("x", 1)), say(hint("n1", "", 2, 1)), say(hint("n1", "x", 1, 1))}, ""},
		{"used again", []do{put(pending("x", 2)), put(pending("y", 1)), say(hint("n1", "x", 1, 1)), say(hint("n1", "y", 2, 1))}, "y"},
		{"used again, late what was before", []do{put(pending("x", 2)), put(pending("y", 1)), say(hint("n1", "y", 2, 1)), say(hint("n1", "x", 1, 1))}, "y"},
		{"used again, free again", []do{put(pending("x", 2)), put(pending("y", 1)), say(hint("n1", "x", 1, 1)), say(hint("n1", "y", 2, 1)), say(hint("n1", "", 3, 1))}, ""},
		{"used again, then stated", []do{put(pending("x", 2)), say(hint("n1", "x", 1, 1)), say(hint("n1", "y", 2, 1)), put(pending("y", 1, 1))}, "y"},
		{"an older pod states it still", []do{put(pending("x", 2)), put(pending("y", 1, 1)), say(hint("n1", "x", 1, 1))}, "x"},
		{"a newer pod states it", []do{put(pending("x", 1)), put(pending("y", 2, 1)), say(hint("n1", "x", 1, 1))}, "y"},
	}
	for _, tt := range tests {
		table := NewTable()
		table.PutNamespace(Namespace{Name: "a"})
		seen := map[netip.Addr]*Identity{}
		for _, step := range tt.steps {
			step(table)
			follow(t, table, seen)
		}
		got := ""
		if id := table.Lookup(addr(1)); id != nil {
			got = id.Labels().Get("app")
		}
		if got != tt.want {
			t.Errorf("%s: the address is %q's, want %q's", tt.name, got, tt.want)
		}
		table.DropHints(noon)
		emptied(t, table)
	}
}

// TestHintsDoNotDependOnOrder mixes what nodes say with what the API says. A pod's own events keep their order.
func TestHintsDoNotDependOnOrder(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		var lines [][]func(*Table)
		for i := range 5 {
			p := samplePod(r)
			p.Name, p.UID, p.Addresses = fmt.Sprint("pod", i), fmt.Sprint(i), nil
			line := []func(*Table){func(t *Table) { t.PutPod(p) }}
			for range r.IntN(3) {
				p.Node = fmt.Sprint("n", r.IntN(2))
				if r.IntN(3) == 0 {
					p.Addresses = []netip.Addr{addr(r.IntN(4))}
				}
				last := p
				line = append(line, func(t *Table) { t.PutPod(last) })
			}
			lines = append(lines, line)
		}
		for i := range 8 {
			node := r.IntN(2) // each has two of the four addresses
			h := Hint{Node: fmt.Sprint("n", node), Sequence: uint64(i), Addresses: []netip.Addr{addr(2*node + r.IntN(2))}, Until: noon}
			if k := r.IntN(6); k < 5 {
				h.Pin = Pin{PodKey{fmt.Sprint("ns", r.IntN(3)), fmt.Sprint("pod", k)}, fmt.Sprint(k)}
			}
			lines = append(lines, []func(*Table){func(t *Table) { t.Hint(h) }})
		}
		for i := range 3 {
			lines = append(lines, []func(*Table){func(t *Table) { t.PutNamespace(Namespace{Name: fmt.Sprint("ns", i)}) }})
		}
		want := mixed(t, lines, r)
		for range 4 {
			if d := cmp.Diff(want, mixed(t, lines, r)); d != "" {
				t.Fatalf("seed %d: (-one order +another)\n%s", seed, d)
			}
		}
	}
}

// mixed is what a table says after all lines, of which it takes the next event of one or another.
func mixed(t *testing.T, lines [][]func(*Table), r *rand.Rand) map[string]string {
	t.Helper()
	var turns []int
	for i, line := range lines {
		for range line {
			turns = append(turns, i)
		}
	}
	r.Shuffle(len(turns), func(i, j int) { turns[i], turns[j] = turns[j], turns[i] })
	table, next, seen := NewTable(), make([]int, len(lines)), map[netip.Addr]*Identity{}
	for _, i := range turns {
		lines[i][next[i]](table)
		next[i]++
		follow(t, table, seen)
	}
	v := view(table)
	table.DropHints(noon)
	emptied(t, table)
	return v
}

// TestHintsAreBounded: a node that says much takes nothing from others.
func TestHintsAreBounded(t *testing.T) {
	table := NewTable()
	table.PutNamespace(Namespace{Name: "a"})
	for i := range 5 * maxHints {
		table.Hint(hint("n2", "flood", uint64(i), i))
	}
	if got := len(table.words); got != maxHints {
		t.Errorf("%d words of one node are kept, want %d", got, maxHints)
	}
	table.PutPod(pending("x", 1))
	table.Hint(hint("n1", "x", 1, 5*maxHints))
	if table.Lookup(addr(5*maxHints)) == nil {
		t.Error("another node is not heard")
	}
	table.Hint(hint("n2", "", 5*maxHints, 0))
	if w := table.words[addr(0)]; w.pin != (Pin{}) {
		t.Errorf("%v has an address that its node gave up", w.pin)
	}
}
