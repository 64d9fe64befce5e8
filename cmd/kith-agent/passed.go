package main

import (
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/kithnet/kith/policy/dns/tap"
)

const (
	// passedFor is how long it stays a problem that a name server's answer passed unheard.
	passedFor = 10 * time.Minute
	// mostPassed is how many such problems are remembered at a time.
	mostPassed = 64
)

// passed are the answers of name servers that lately passed unheard.
type passed struct {
	log *slog.Logger
	mu  sync.Mutex
	at  map[tap.Unheard]time.Time // of a server any pod stands for all, of a busy pod any server
}

// note remembers one, and logs it unless something like it was a problem already.
func (p *passed) note(u tap.Unheard) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.forget(now)
	like := func(k tap.Unheard) bool {
		return k.Busy == u.Busy && (u.Busy && k.Pod == u.Pod || !u.Busy && k.Server == u.Server)
	}
	for k := range p.at {
		if like(k) {
			p.at[k] = now
			return
		}
	}
	if len(p.at) >= mostPassed {
		return
	}
	p.at[u] = now
	p.log.Warn(problemOf(u))
}

func (p *passed) forget(now time.Time) {
	maps.DeleteFunc(p.at, func(_ tap.Unheard, at time.Time) bool { return now.Sub(at) > passedFor })
}

// Problems are what somebody should look at, sorted.
func (p *passed) Problems() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forget(time.Now())
	all := slices.SortedFunc(maps.Keys(p.at), func(a, b tap.Unheard) int {
		for _, pair := range [][2]netip.Addr{{a.Server, b.Server}, {a.Pod, b.Pod}} {
			if c := pair[0].Compare(pair[1]); c != 0 {
				return c
			}
		}
		return 0
	})
	var out []string
	for _, u := range all {
		out = append(out, problemOf(u))
	}
	return out
}

func problemOf(u tap.Unheard) string {
	if u.Busy {
		return fmt.Sprintf("pod %s gets more answers of name servers than are heard: not all names are learned that it asks for", u.Pod)
	}
	return fmt.Sprintf("names are not learned from the name server %s, which pod %s asks: if pods are to use it, add it to policy.nameServers", u.Server, u.Pod)
}
