package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kithnet/kith/policy"
	"github.com/kithnet/kith/policy/dns"
	"github.com/kithnet/kith/policy/ruleset"
)

// smallPupil has room as the kernel has, and holds what is over until somebody collects it.
type smallPupil map[string]map[ruleset.ElementChange]time.Time

func (p smallPupil) Learn(_ context.Context, elements map[ruleset.ElementChange]time.Duration) error {
	for e, lifetime := range elements {
		set := p[e.Set]
		if set == nil {
			set = map[ruleset.ElementChange]time.Time{}
			p[e.Set] = set
		}
		if _, there := set[e]; !there && len(set) >= ruleset.LearnedSize {
			return errors.New("the set is full")
		}
		set[e] = time.Now().Add(lifetime)
	}
	return nil
}

func (p smallPupil) Forget(elements []ruleset.ElementChange) error {
	for _, e := range elements {
		delete(p[e.Set], e)
	}
	return nil
}

// TestPodsShareASet: pods that were told as much of a name as they may be, and more than its set has room for, leave room
// for others: each who holds less than they learns what he is told, and they go on to learn, too, when all of it is over.
func TestPodsShareASet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const domain, pods, greedy = policy.Domain("*.example.com"), 24, 20
		p := smallPupil{}
		l := newLearner(slog.New(slog.DiscardHandler), p)
		listeners := map[netip.Addr]ruleset.Listener{}
		at := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 244, 1, byte(i)}) }
		for i := range pods {
			listeners[at(i)] = ruleset.Listener{Interface: fmt.Sprint("kith", i), Addresses: []netip.Addr{at(i)}, Domains: []policy.Domain{domain}}
		}
		l.listen(listeners)
		knows := func(pod int, told []dns.Telling) (n int) {
			for _, x := range told {
				if _, ok := p[ruleset.Told(domain, at(pod), x.Address).Set][ruleset.Told(domain, at(pod), x.Address)]; ok {
					n++
				}
			}
			return n
		}
		for i := range greedy {
			for begin := 0; begin < mostLessons; begin += 64 {
				l.hear(t.Context(), at(i), flood(begin, 64))
			}
		}
		for i := greedy; i < pods; i++ {
			for _, told := range [][]dns.Telling{flood(0, 500), flood(1000, 1)} {
				if l.hear(t.Context(), at(i), told); knows(i, told) != len(told) {
					t.Fatalf("pod %d knows %d of %d addresses that it was told", i, knows(i, told), len(told))
				}
			}
		}
		for i := range greedy {
			if n := knows(i, flood(0, mostLessons)); n < 2500 || l.told[fmt.Sprint("kith", i)].held[ruleset.Told(domain, at(i), at(i)).Set] != n {
				t.Errorf("greedy pod %d knows %d addresses, as is counted: %v", i, n, l.told[fmt.Sprint("kith", i)].held)
			}
		}
		time.Sleep(grace + time.Second)
		for _, set := range p {
			clear(set) // the kernel collects
		}
		if l.hear(t.Context(), at(0), flood(0, mostLessons)); knows(0, flood(0, mostLessons)) != mostLessons {
			t.Errorf("when all is over, a pod learns %d addresses", knows(0, flood(0, mostLessons)))
		}
		l.listen(nil)
		if len(l.held) > 0 || len(l.told) > 0 {
			t.Errorf("without pods, %v is held", l.held)
		}
	})
}
