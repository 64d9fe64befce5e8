package conntrack

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// home is a cluster of two nodes; the first is this one.
func home() Addresses {
	own := []netip.Addr{addr("192.0.2.1"), addr("10.244.1.1"), addr("fd00:1::1")}
	return NewAddresses(
		[]netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("10.244.2.0/25"), netip.MustParsePrefix("fd00:1::/64")},
		append(own, addr("192.0.2.2"), addr("10.244.2.1")), own)
}

func TestHolder(t *testing.T) {
	opens := func(s string) Holder { return Holder{addr(s), Opens} }
	answers := func(s string) Holder { return Holder{addr(s), Answers} }
	for _, tt := range []struct {
		name, from, to string
		want           Holder
	}{
		{"a pod of this node opens", "10.244.1.5", "203.0.113.1", opens("10.244.1.5")},
		{"a pod opens to a pod", "10.244.1.5", "10.244.1.6", opens("10.244.1.5")},
		{"a pod of another node opens", "10.244.2.5", "10.244.1.6", opens("10.244.2.5")},
		{"a pod of this node by IPv6", "fd00:1::5", "2001:db8::1", opens("fd00:1::5")},
		{"a pod opens to its node", "10.244.1.5", "192.0.2.1", opens("10.244.1.5")},
		{"a client from outside", "203.0.113.1", "10.244.1.6", answers("10.244.1.6")},
		{"a client from outside, to a pod of another node", "203.0.113.1", "10.244.2.6", answers("10.244.2.6")},
		{"another node", "192.0.2.2", "10.244.1.6", answers("10.244.1.6")},
		{"another node, by the mesh", "10.244.2.1", "10.244.1.6", answers("10.244.1.6")},
		{"this node", "192.0.2.1", "10.244.1.6", Holder{}},
		{"this node, by the mesh", "10.244.1.1", "10.244.2.6", Holder{}},
		{"this node to itself", "127.0.0.1", "127.0.0.1", Holder{}},
		{"a client of this node", "203.0.113.1", "192.0.2.1", Holder{}},
		{"beside a pod CIDR", "10.244.2.200", "203.0.113.1", Holder{}},
	} {
		got, ok := home().Holder(Connection{Opener: addr(tt.from), Answerer: addr(tt.to)})
		if got != tt.want || ok != (tt.want != Holder{}) {
			t.Errorf("%s: held by %v, want %v", tt.name, got, tt.want)
		}
	}
}

// pod is the n-th pod of this node.
func pod(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 244, 1, byte(n + 2)}) }

func opener(n int) Holder { return Holder{pod(n), Opens} }

var (
	open    = Class{Protocol: 6, State: 3, Answered: true}
	waiting = Class{Protocol: 6, State: 7, Answered: true} // TIME_WAIT
)

// census counts so many connections of each pod, of one class.
func census(of Class, counts ...int) *Census {
	c := NewCensus(home())
	for n, count := range counts {
		c.countOf(pod(n), of, count)
	}
	return c
}

func (c *Census) countOf(from netip.Addr, of Class, count int) {
	for range count {
		c.Count(Connection{Opener: from, Answerer: addr("203.0.113.1"), Class: of, Answered: of.Answered})
	}
}

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func TestJudge(t *testing.T) {
	limited := func(n, held, share int) Excess { return Excess{opener(n), held, share} }
	for _, tt := range []struct {
		name    string
		census  *Census
		before  Watch
		limited []Excess
		end     map[Holder]int
	}{
		{"one has nearly all", census(open, 900, 30, 20), Watch{}, []Excess{limited(0, 900, 650)}, map[Holder]int{opener(0): 250}},
		{"two have nearly all", census(open, 450, 20, 480), Watch{},
			[]Excess{limited(2, 480, 340), limited(0, 450, 340)}, map[Holder]int{opener(0): 110, opener(2): 140}},
		{"nobody has more than others", census(open, 200, 200, 200, 200), Watch{},
			[]Excess{limited(0, 200, 175), limited(1, 200, 175), limited(2, 200, 175), limited(3, 200, 175)},
			map[Holder]int{opener(0): 25, opener(1): 25, opener(2): 25, opener(3): 25}},
		{"all fit", census(open, 500, 100), Watch{}, nil, map[Holder]int{}},
		{"nobody has any", census(open), Watch{}, nil, map[Holder]int{}},
		{"what is closing ends first", census(waiting, 900, 30), Watch{}, nil, map[Holder]int{opener(0): 230}},
		{"what is closing, soon again", census(waiting, 900, 30), Watch{looked: noon.Add(-soonAgain), cut: map[Holder]int{opener(0): 9}},
			[]Excess{limited(0, 900, 670)}, map[Holder]int{opener(0): 230}},
		{"what is closing, again much later", census(waiting, 900, 30), Watch{looked: noon.Add(-soonAgain - 1), cut: map[Holder]int{opener(0): 9}},
			nil, map[Holder]int{opener(0): 230}},
		{"limited, and at its share", census(open, 650, 30), Watch{Limited: []Excess{limited(0, 900, 650)}}, []Excess{limited(0, 650, 650)}, map[Holder]int{}},
		{"limited, and gave back half", census(open, 325, 330), Watch{Limited: []Excess{limited(0, 900, 650)}}, []Excess{limited(0, 325, 330)}, map[Holder]int{}},
		{"limited, and gave back most", census(open, 100, 330), Watch{Limited: []Excess{limited(0, 900, 650)}}, nil, map[Holder]int{}},
		{"limited, and gone", census(open, 0, 330), Watch{Limited: []Excess{limited(0, 900, 650)}}, nil, map[Holder]int{}},
		{"limited, and more is closing", census(waiting, 900), Watch{Limited: []Excess{limited(0, 900, 650)}},
			[]Excess{limited(0, 900, 700)}, map[Holder]int{opener(0): 200}},
	} {
		j := tt.census.Judge(1000, tt.before, noon)
		same := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
		if d := cmp.Diff(Judgement{tt.limited, tt.end}, j, same); d != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, d)
		}
	}
}

// TestNodeTakesNothingFromItsPods: where the node itself fills the table, pods keep half of the room for all.
func TestNodeTakesNothingFromItsPods(t *testing.T) {
	c := census(open, 100, 50)
	c.countOf(addr("192.0.2.1"), open, 700)
	if j := c.Judge(1000, Watch{}, noon); len(j.Limited)+len(j.End) > 0 {
		t.Errorf("the node holds most, and limited are %v, ended %v", j.Limited, j.End)
	}
}

// TestJudgementHolds: whatever there is, only who has more than its share loses, and not more than that; what is left of
// pods' fits, or each has no more than the smallest share; and little ends at once.
func TestJudgementHolds(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 300 {
		capacity, total := 1+r.IntN(5000), 0
		counts := make([]int, r.IntN(110))
		for i := range counts {
			counts[i] = int(float64(r.IntN(capacity+1)) * r.Float64() * r.Float64())
			total += counts[i]
		}
		j := census(open, counts...).Judge(capacity, Watch{}, noon)
		left := total
		for h, n := range j.End {
			left -= n
			held := counts[int(h.Address.As4()[3])-2]
			if n <= 0 || held-n < capacity/smallestShare {
				t.Fatalf("capacity %d, %v: of %v, which holds %d, %d end", capacity, counts, h, held, n)
			}
		}
		if room := capacity * LowWater / 100; total-left < MostEnds-len(counts) && left > max(room, len(counts)*max(capacity/smallestShare, 1)) {
			t.Fatalf("capacity %d, %v: %d are left", capacity, counts, left)
		}
		if len(j.Limited) < len(j.End) {
			t.Fatalf("limited %v, ended %v", j.Limited, j.End)
		}
	}
	j := census(open, 60000, 90000).Judge(100000, Watch{}, noon)
	if sum := j.End[opener(0)] + j.End[opener(1)]; sum > MostEnds || sum < MostEnds-2 {
		t.Errorf("%d end at once", sum)
	}
}

func TestDue(t *testing.T) {
	some, late := []Excess{{Holder: opener(0)}}, noon.Add(time.Hour)
	for _, tt := range []struct {
		name  string
		watch Watch
		count int
		want  Step
	}{
		{"empty", Watch{}, 0, Rest},
		{"at the high water", Watch{}, 800, Rest},
		{"above", Watch{}, 801, Look},
		{"full", Watch{}, 1000, Look},
		{"just looked", Watch{looked: late.Add(-lookAgain + 1), cut: map[Holder]int{opener(0): 1}}, 1000, Rest},
		{"looked before", Watch{looked: late.Add(-lookAgain), cut: map[Holder]int{opener(0): 1}}, 1000, Look},
		{"looked in vain", Watch{looked: late.Add(-lookAgain)}, 1000, Rest},
		{"looked in vain before", Watch{looked: late.Add(-lookAfterVain)}, 1000, Look},
		{"limited", Watch{Limited: some}, 750, Rest},
		{"limited and more again", Watch{Limited: some}, 751, Look},
		{"limited, not calm yet", Watch{Limited: some}, 600, Rest},
		{"limited and calm", Watch{Limited: some}, 599, Release},
	} {
		if got := tt.watch.Due(tt.count, 1000, late); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
	if got := (Watch{}).Due(5, 0, late); got != Rest {
		t.Errorf("a table without capacity: %v", got)
	}
	if got := (Watch{Limited: some}).Released(); got.Limited != nil {
		t.Errorf("released: %v", got)
	}
}

// TestSelection: of who has too much those end that nobody misses, and then those that were silent longest; nobody else's.
func TestSelection(t *testing.T) {
	day := 24 * time.Hour
	unanswered := Class{Protocol: 6, State: 1}
	stream := Class{Protocol: 17, Answered: true}
	all := []struct {
		name  string
		from  netip.Addr
		class Class
		rest  time.Duration
	}{
		{"fresh", pod(0), open, day},
		{"silent for an hour", pod(0), open, day - time.Hour},
		{"silent for a minute", pod(0), open, day - time.Minute},
		{"fresh datagrams", pod(0), stream, 2 * time.Minute},
		{"datagrams of a minute ago", pod(0), stream, 58 * time.Second},
		{"waits", pod(0), waiting, 2 * time.Minute},
		{"unanswered", pod(0), unanswered, 2 * time.Minute},
		{"of another, for long", pod(1), open, time.Hour},
		{"of the node", addr("192.0.2.1"), open, time.Hour},
	}
	c := NewCensus(home())
	of := func(from netip.Addr, class Class, rest time.Duration) Connection {
		return Connection{Opener: from, Answerer: pod(3), Class: class, Answered: class.Answered, Rest: rest}
	}
	for _, x := range all {
		c.Count(of(x.from, x.class, x.rest))
	}
	order := []string{"unanswered", "waits", "silent for an hour", "datagrams of a minute ago", "silent for a minute", "fresh", "fresh datagrams"}
	for n := range len(order) + 2 {
		s := Select[string](c, Judgement{End: map[Holder]int{opener(0): n, opener(9): 5}})
		for _, x := range all {
			s.Offer(of(x.from, x.class, x.rest), func() string { return x.name })
		}
		want, got := slices.Clone(order[:min(n, len(order))]), s.Picked()
		if n == 1 || n == 6 { // of two alike either
			continue
		}
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%d end: %q, want %q", n, got, want)
		}
	}
}

// TestMemoryIsBounded: a census counts so many holders one by one, and a selection remembers what ends.
func TestMemoryIsBounded(t *testing.T) {
	own := NewAddresses([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, nil, nil)
	c, from := NewCensus(own), addr("10.0.0.0")
	for range mostHolders + 1000 {
		c.Count(Connection{Opener: from, Answerer: from})
		from = from.Next()
	}
	c.Count(Connection{Opener: addr("10.0.0.7"), Answerer: from})
	if len(c.counts) != mostHolders || c.total != mostHolders+1001 || c.counts[Holder{addr("10.0.0.7"), Opens}].all != 2 {
		t.Errorf("%d holders, %d connections", len(c.counts), c.total)
	}
	s := Select[string](c, Judgement{End: map[Holder]int{{addr("10.0.0.7"), Opens}: 5}})
	names := 0
	for range 1000 {
		s.Offer(Connection{Opener: addr("10.0.0.7")}, func() string { names++; return fmt.Sprint(names) })
	}
	if len(s.Picked()) != 5 || names != 5 {
		t.Errorf("%d picked, %d named", len(s.Picked()), names)
	}
}

// TestJudgementDoesNotDependOnOrder of connections.
func TestJudgementDoesNotDependOnOrder(t *testing.T) {
	forth, back := census(open, 300, 500, 500, 40), NewCensus(home())
	for n, count := range []int{40, 500, 500, 300} {
		back.countOf(pod(3-n), open, count)
	}
	a, b := forth.Judge(1000, Watch{}, noon), back.Judge(1000, Watch{}, noon)
	if !slices.Equal(a.Limited, b.Limited) || !maps.Equal(a.End, b.End) {
		t.Errorf("%v and %v", a, b)
	}
}

func TestPerSecond(t *testing.T) {
	for _, tt := range []struct{ capacity, limited, want int }{{262144, 0, 512}, {262144, 1, 512}, {262144, 4, 128}, {262144, 1000, 1}, {100, 1, 1}} {
		if got := PerSecond(tt.capacity, tt.limited); got != tt.want {
			t.Errorf("%d limited of %d: %d in a second, want %d", tt.limited, tt.capacity, got, tt.want)
		}
	}
}
