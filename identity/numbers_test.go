package identity

import (
	"encoding/binary"
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// crowded is a key whose first hashes are among very few numbers, 0 and 0xffffffff with them, so that keys collide.
func crowded(r *rand.Rand) Key {
	var k Key
	for i := range 8 {
		words := [...]uint32{0, 0xffffffff, 1, 2, 3, 4}
		binary.BigEndian.PutUint32(k[4*i:], words[r.IntN(len(words))])
	}
	return k
}

func TestNumbersDoNotDependOnOrder(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 0))
		keys := map[Key]struct{}{}
		for range 12 {
			keys[crowded(r)] = struct{}{}
		}
		want := NewNumbers()
		for k := range keys {
			want.Add(k)
		}
		got := NewNumbers()
		for range 60 {
			k := crowded(r)
			keep, toggled := r.IntN(2) == 0, k
			if keep {
				got.Add(toggled)
			} else {
				got.Remove(toggled)
			}
		}
		for k := range maps.Clone(got.number) {
			if _, ok := keys[k]; !ok {
				got.Remove(k)
			}
		}
		for k := range keys {
			got.Add(k)
		}
		if d := cmp.Diff(want.number, got.number); d != "" {
			t.Fatalf("seed %d: (-added once +after others)\n%s", seed, d)
		}
		distinct(t, got)
		for k := range keys {
			got.Remove(k)
		}
		if len(got.number)+len(got.owner)+len(got.waiting) > 0 {
			t.Fatalf("seed %d: something stays after all keys went: %+v", seed, got)
		}
	}
}

func distinct(t *testing.T, n *Numbers) {
	t.Helper()
	seen := map[uint32]Key{}
	for k, num := range n.number {
		if num == 0 || num == 0xffffffff {
			t.Fatalf("key %s has number %#x", k, num)
		}
		if o, dup := seen[num]; dup {
			t.Fatalf("keys %s and %s share number %#x", k, o, num)
		}
		seen[num] = k
	}
}

func TestNumbersTellWhoMoved(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 0))
	n := NewNumbers()
	told := map[Key]uint32{}
	for range 400 {
		k := crowded(r)
		var moved []Key
		if r.IntN(2) == 0 {
			moved = n.Add(k)
		} else {
			moved = n.Remove(k)
			delete(told, k)
		}
		for _, m := range moved {
			told[m] = n.Of(m)
		}
		if d := cmp.Diff(n.number, told); d != "" {
			t.Fatalf("(-numbers +what was told)\n%s", d)
		}
	}
}

func TestNumbersSmallestKeyKeepsItsHash(t *testing.T) {
	low, high := Key{0, 0, 0, 9, 0, 0, 0, 5}, Key{0, 0, 0, 9, 0, 0, 0, 6}
	n := NewNumbers()
	n.Add(high)
	if got := n.Of(high); got != 9 {
		t.Errorf("alone, the larger key has %d, want 9", got)
	}
	n.Add(low)
	if n.Of(low) != 9 || n.Of(high) != 6 {
		t.Errorf("together: smaller %d, larger %d, want 9 and 6", n.Of(low), n.Of(high))
	}
	n.Remove(low)
	if got := n.Of(high); got != 9 {
		t.Errorf("alone again, the larger key has %d, want 9", got)
	}
}
