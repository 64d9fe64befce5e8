package main

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
	"github.com/kithnet/kith/policy/dns"
	"github.com/kithnet/kith/policy/dns/tap"
	"github.com/kithnet/kith/policy/ruleset"
)

// fakePupil notes what it learns.
type fakePupil struct {
	learned   map[time.Duration]int
	forgotten int
	refuse    error
}

func (p *fakePupil) Learn(_ context.Context, elements map[ruleset.ElementChange]time.Duration) error {
	if p.refuse != nil {
		return p.refuse
	}
	for _, lifetime := range elements {
		p.learned[lifetime]++
	}
	return nil
}

func (p *fakePupil) Forget(elements []ruleset.ElementChange) error {
	p.forgotten += len(elements)
	return nil
}

// fakeEar tells whom it was last to listen to, and closes listens at its end.
type fakeEar struct{ listens chan []netip.Addr }

func (e *fakeEar) Listen(a tap.Audience) error   { e.listens <- a.Pods; return nil }
func (e *fakeEar) Run(ctx context.Context) error { <-ctx.Done(); return nil }
func (e *fakeEar) Close() error                  { close(e.listens); return nil }

func listener(domains ...policy.Domain) map[netip.Addr]ruleset.Listener {
	four, six := netip.MustParseAddr("10.244.1.5"), netip.MustParseAddr("fd00:1::5")
	l := ruleset.Listener{Addresses: []netip.Addr{four, six}, Domains: domains}
	return map[netip.Addr]ruleset.Listener{four: l, six: l}
}

// TestLearnerHearsWhomItShould: nothing is open before there is somebody to hear, nor after, and changes between are
// taken over before listen returns.
func TestLearnerHearsWhomItShould(t *testing.T) {
	opened := make(chan *fakeEar, 8)
	l := newLearner(slog.New(slog.DiscardHandler), &fakePupil{})
	l.open = func(tap.Hear) (ear, error) {
		e := &fakeEar{make(chan []netip.Addr, 8)}
		opened <- e
		return e, nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.run(ctx) }()
	l.listen(nil)
	select {
	case <-opened:
		t.Error("open for nobody")
	default:
	}
	for range 2 {
		l.listen(listener("example.com"))
		heard := <-opened
		if got := <-heard.listens; len(got) != 2 {
			t.Errorf("listens to %v", got)
		}
		l.listen(listener("example.com"))
		l.listen(map[netip.Addr]ruleset.Listener{})
		if got, again := <-heard.listens; again {
			t.Errorf("listens to %v, though nobody is to be heard", got)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// brokenEar cannot listen to anybody but at first.
type brokenEar struct{ fakeEar }

func (e *brokenEar) Close() error { return nil }

func (e *brokenEar) Listen(a tap.Audience) error {
	select {
	case e.listens <- a.Pods:
		return nil
	default:
		return errors.New("netlink: no room")
	}
}

// TestLearnerHearsAnew: when the kernel refuses a change of who is heard, all are heard again by a new ear, without
// another change.
func TestLearnerHearsAnew(t *testing.T) {
	broken, whole := &brokenEar{fakeEar{make(chan []netip.Addr, 1)}}, &fakeEar{make(chan []netip.Addr, 8)}
	ears := make(chan ear, 3)
	ears <- broken // hears one listener, and no other after
	ears <- broken // cannot even begin
	ears <- whole
	l := newLearner(slog.New(slog.DiscardHandler), &fakePupil{})
	l.open = func(tap.Hear) (ear, error) { return <-ears, nil }
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.run(ctx) }()
	pod, other := netip.MustParseAddr("10.244.1.5"), netip.MustParseAddr("10.244.1.6")
	l.listen(map[netip.Addr]ruleset.Listener{pod: {}})
	for len(broken.listens) == 0 {
		runtime.Gosched()
	}
	both := map[netip.Addr]ruleset.Listener{pod: {}, other: {}}
	l.listen(both)
	got := <-whole.listens
	slices.SortFunc(got, netip.Addr.Compare)
	if d := cmp.Diff([]netip.Addr{pod, other}, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
		t.Errorf("hears (-want +got)\n%s", d)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestLearnerTeachesWhatRulesName: for all addresses of the pod, no longer than a day and a minute, and no more than a pod
// may be told.
func TestLearnerTeachesWhatRulesName(t *testing.T) {
	p := &fakePupil{learned: map[time.Duration]int{}}
	l := newLearner(slog.New(slog.DiscardHandler), p)
	l.listen(listener("*.example.com", "www.example.com"))
	pod := netip.MustParseAddr("10.244.1.5")
	six, four := netip.MustParseAddr("2001:db8::7"), netip.MustParseAddr("203.0.113.7")
	told := []dns.Telling{
		{Name: "www.example.com", Address: six, TTL: 30 * time.Second}, {Name: "a.example.com", Address: four, TTL: 1000 * time.Hour},
		{Name: "example.com", Address: four, TTL: time.Second},
	}
	l.hear(t.Context(), pod, told)
	l.hear(t.Context(), netip.MustParseAddr("10.244.1.6"), told)
	if d := cmp.Diff(map[time.Duration]int{90 * time.Second: 2, 24*time.Hour + time.Minute: 1}, p.learned); d != "" {
		t.Errorf("learned (-want +got)\n%s", d)
	}
	for _, again := range [][]dns.Telling{flood(0, 2*mostLessons), flood(0, 10)} {
		l.hear(t.Context(), pod, again)
	}
	if got := p.learned[grace]; got != mostLessons-3+10 {
		t.Errorf("learned %d of a flood, and what was known already; want %d", got, mostLessons-3+10)
	}
}

// TestLearnerForgetsWithThePod, not with a change of its policies: else the next pod at its address could go where that
// one was told to.
func TestLearnerForgetsWithThePod(t *testing.T) {
	p := &fakePupil{learned: map[time.Duration]int{}}
	l := newLearner(slog.New(slog.DiscardHandler), p)
	pod := netip.MustParseAddr("10.244.1.5")
	at := func(name string, domains ...policy.Domain) map[netip.Addr]ruleset.Listener {
		return map[netip.Addr]ruleset.Listener{pod: {Interface: name, Addresses: []netip.Addr{pod}, Domains: domains}}
	}
	told := []dns.Telling{{Name: "www.example.com", Address: netip.MustParseAddr("203.0.113.7"), TTL: time.Hour}}
	l.listen(at("kith1", "www.example.com"))
	for name, c := range map[string]struct {
		next map[netip.Addr]ruleset.Listener
		want int
	}{
		"its policies change": {at("kith1", "www.example.com", "example.org"), 0},
		"another pod":         {at("kith2", "www.example.com"), 1},
		"no pod":              {nil, 1},
	} {
		l.listen(at("kith1", "www.example.com"))
		l.hear(t.Context(), pod, told)
		p.forgotten = 0
		if l.listen(c.next); p.forgotten != c.want {
			t.Errorf("%s: %d forgotten, want %d", name, p.forgotten, c.want)
		}
	}
}

// lines counts what is logged.
type lines int

func (n *lines) Write(p []byte) (int, error) { *n++; return len(p), nil }

// flood are answers with so many new addresses.
func flood(begin, n int) []dns.Telling {
	out := make([]dns.Telling, n)
	for i := range out {
		at := begin + i
		out[i] = dns.Telling{Name: "x.example.com", Address: netip.AddrFrom4([4]byte{203, byte(at >> 16), byte(at >> 8), byte(at)})}
	}
	return out
}

// TestFullPodCostsLittle: what a pod that was told all it may be is told, too, makes one line of the log a minute, and has
// nobody look for what is over while nothing can be; when all is, it is told again.
func TestFullPodCostsLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, logged := &fakePupil{learned: map[time.Duration]int{}}, lines(0)
		l := newLearner(slog.New(slog.NewTextHandler(&logged, nil)), p)
		l.listen(listener("*.example.com"))
		pod := netip.MustParseAddr("10.244.1.5")
		l.hear(t.Context(), pod, flood(0, mostLessons-1))
		unseen := ruleset.Told("*.example.com", pod, pod)
		for _, known := range l.told {
			known.told[unseen] = lesson{until: time.Now().Add(-time.Hour)} // who looks finds it over
		}
		for i := range 100 {
			l.hear(t.Context(), pod, flood(mostLessons+75*i, 75))
		}
		if got := p.learned[grace]; got != mostLessons-1 || logged != 1 {
			t.Errorf("of a flood %d learned, %d lines logged; want %d and 1", got, logged, mostLessons-1)
		}
		time.Sleep(grace)
		l.hear(t.Context(), pod, flood(mostLessons, 75))
		if logged != 2 {
			t.Errorf("%d lines logged after a minute, want 2", logged)
		}
		for _, known := range l.told {
			if _, there := known.told[unseen]; !there {
				t.Error("looked for what is over though nothing could be")
			}
		}
		time.Sleep(time.Nanosecond)
		l.hear(t.Context(), pod, flood(mostLessons, 75))
		if got := p.learned[grace]; got != mostLessons-1+75 {
			t.Errorf("%d learned when all before was over, want %d", got, mostLessons-1+75)
		}
	})
}

// TestAnswersTakeNothingFromEachOther: an address is believed as long as the answer says that lasts longest, whichever name
// it was for, whichever of the pod's addresses it came to, and whether or not the kernel took it at once.
func TestAnswersTakeNothingFromEachOther(t *testing.T) {
	four, six := netip.MustParseAddr("10.244.1.5"), netip.MustParseAddr("fd00:1::5")
	long := dns.Telling{Name: "a.example.com", Address: netip.MustParseAddr("203.0.113.7"), TTL: 5 * time.Minute}
	short := dns.Telling{Name: "b.example.com", Address: long.Address, TTL: 5 * time.Second}
	type answer struct {
		to   netip.Addr
		told []dns.Telling
	}
	for name, c := range map[string]struct {
		answers []answer
		refuse  int // so many of them the kernel does not take
		want    map[time.Duration]int
	}{
		"a shorter one":      {[]answer{{four, []dns.Telling{long}}, {four, []dns.Telling{short}}}, 0, map[time.Duration]int{6 * time.Minute: 1}},
		"the same, later":    {[]answer{{four, []dns.Telling{long}}, {four, []dns.Telling{long}}}, 0, map[time.Duration]int{6 * time.Minute: 2}},
		"a longer one":       {[]answer{{four, []dns.Telling{short}}, {four, []dns.Telling{long}}}, 0, map[time.Duration]int{65 * time.Second: 1, 6 * time.Minute: 1}},
		"over IPv6":          {[]answer{{four, []dns.Telling{long}}, {six, []dns.Telling{short}}}, 0, map[time.Duration]int{6 * time.Minute: 1}},
		"in one":             {[]answer{{four, []dns.Telling{short, long, short}}}, 0, map[time.Duration]int{6 * time.Minute: 1}},
		"what was not taken": {[]answer{{four, []dns.Telling{long}}, {four, []dns.Telling{short}}}, 1, map[time.Duration]int{6*time.Minute - time.Second: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &fakePupil{learned: map[time.Duration]int{}}
				l := newLearner(slog.New(slog.DiscardHandler), p)
				l.listen(listener("*.example.com"))
				for i, a := range c.answers {
					if p.refuse = nil; i < c.refuse {
						p.refuse = errors.New("no room")
					}
					l.hear(t.Context(), a.to, a.told)
					time.Sleep(time.Second)
				}
				if d := cmp.Diff(c.want, p.learned); d != "" {
					t.Errorf("learned (-want +got)\n%s", d)
				}
			})
		})
	}
}

// TestLearnerTeachesAgain: what sets have lost, for the time that is left, if any, and if the pod's rules still name it.
func TestLearnerTeachesAgain(t *testing.T) {
	pod := netip.MustParseAddr("10.244.1.5")
	tell := func(name policy.Domain, last byte, ttl time.Duration) dns.Telling {
		return dns.Telling{Name: name, Address: netip.AddrFrom4([4]byte{203, 0, 113, last}), TTL: ttl}
	}
	all := []dns.Telling{tell("a.example", 1, time.Hour), tell("b.example", 2, time.Minute), tell("c.example", 3, time.Hour), tell("a.example", 4, 0)}
	setOfA := ruleset.Told("a.example", pod, pod).Set
	for name, c := range map[string]struct {
		lost func(string) bool
		want map[time.Duration]int
		then int // how many of the answers that are heard again, as old as they are, the kernel learns
	}{
		"all":     {func(string) bool { return true }, map[time.Duration]int{time.Hour: 1, time.Minute: 1}, 1},
		"one":     {func(set string) bool { return set == setOfA }, map[time.Duration]int{time.Hour: 1}, 0},
		"another": {func(set string) bool { return set == "told4_d.example" }, map[time.Duration]int{}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &fakePupil{learned: map[time.Duration]int{}}
				l := newLearner(slog.New(slog.DiscardHandler), p)
				l.listen(listener("a.example", "b.example", "c.example"))
				l.hear(t.Context(), pod, all)
				l.listen(listener("a.example", "b.example"))
				time.Sleep(grace)
				clear(p.learned)
				l.remind(t.Context(), c.lost)
				if d := cmp.Diff(c.want, p.learned); d != "" {
					t.Errorf("learned again (-want +got)\n%s", d)
				}
				clear(p.learned)
				l.listen(listener("a.example", "b.example", "c.example"))
				old := []dns.Telling{tell("a.example", 1, time.Minute), tell("b.example", 2, 0), tell("c.example", 3, time.Minute)}
				l.hear(t.Context(), pod, old)
				if got := p.learned[time.Hour]; got != c.then || len(p.learned) > 1 {
					t.Errorf("learned of old answers %v, want %d", p.learned, c.then)
				}
			})
		})
	}
}

// memorablePupil hands out what it learns.
type memorablePupil struct {
	learns chan map[ruleset.ElementChange]time.Duration
}

func (p memorablePupil) Forget([]ruleset.ElementChange) error { return nil }

func (p memorablePupil) Learn(_ context.Context, elements map[ruleset.ElementChange]time.Duration) error {
	if len(elements) > 0 {
		p.learns <- elements
	}
	return nil
}

// TestWhatSetsLoseIsLearnedAgain: when others empty the table, and when a domain's sets are made anew, the kernel learns
// without another answer what pods were told.
func TestWhatSetsLoseIsLearnedAgain(t *testing.T) {
	table, p := &memoryTable{}, memorablePupil{make(chan map[ruleset.ElementChange]time.Duration, 8)}
	e, foreign := startEnforcer(t, table)
	l := newLearner(slog.New(slog.DiscardHandler), p)
	names := func(d policy.Domain) policy.Policy {
		return policy.Policy{
			Tier: policy.Admin, Name: string(d), Namespaces: labels.Everything(), Subject: labels.Everything(),
			Egress: &policy.Rules{{Peers: []policy.Peer{{Domains: []policy.Domain{d}}}, AllPorts: true}},
		}
	}
	change := func(do func(*ruleset.Compiler)) {
		t.Helper()
		if err := e.Await(t.Context(), do, func(*ruleset.Compiler) bool { return true }); err != nil {
			t.Fatal(err)
		}
	}
	e.Update(func(c *ruleset.Compiler) {
		e.listen, e.remind = l.listen, l.remind
		putInput(c)
		putPod(c)
		c.PutAttachment(attachment(testAttachment))
		c.PutPolicy(names("a.example"))
		c.PutPolicy(names("b.example"))
	})
	e.Complete()
	for range 2 { // the second is written after what the first may have reminded of
		change(func(*ruleset.Compiler) {})
	}
	pod := testAttachment.Addresses[0]
	a := dns.Telling{Name: "a.example", Address: netip.MustParseAddr("203.0.113.7"), TTL: time.Hour}
	l.hear(t.Context(), pod, []dns.Telling{a})
	lesson := ruleset.Told(a.Name, pod, a.Address)
	learns := func(when string) {
		t.Helper()
		select {
		case got := <-p.learns:
			if rest := got[lesson]; len(got) != 1 || rest <= 0 || rest > a.TTL+grace {
				t.Errorf("%s: learns %v, want %v", when, got, lesson)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%s: nothing is learned", when)
		}
	}
	learns("an answer")
	table.mu.Lock()
	table.have = ruleset.Ruleset{}
	table.mu.Unlock()
	foreign <- struct{}{}
	learns("the table was emptied")
	change(func(c *ruleset.Compiler) { c.DeletePolicy(names("a.example").Key()) })
	change(func(c *ruleset.Compiler) { c.PutPolicy(names("a.example")) })
	learns("the sets were made anew")
	change(func(c *ruleset.Compiler) { c.PutNamespace(identity.Namespace{Name: "other"}) })
	change(func(*ruleset.Compiler) {})
	if len(p.learns) > 0 {
		t.Error("learns again though nothing was lost")
	}
}
