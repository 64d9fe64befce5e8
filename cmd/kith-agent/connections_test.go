package main

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/kithnet/kith/cni"
	"github.com/kithnet/kith/policy"
	"github.com/kithnet/kith/policy/conntrack"
	"github.com/kithnet/kith/policy/conntrack/kernel"
	"github.com/kithnet/kith/policy/ruleset"
)

// fakeConnections is a table of connections in memory.
type fakeConnections struct {
	all      []conntrack.Connection
	capacity int
	err      error
	walks    int
	deleted  int
}

func (m *fakeConnections) Fill() (int, int, error) { return len(m.all), m.capacity, m.err }

func (m *fakeConnections) Each(do func(conntrack.Connection, func() kernel.Name)) error {
	m.walks++
	for _, c := range m.all {
		do(c, func() kernel.Name { return kernel.Name{} })
	}
	return nil
}

func (m *fakeConnections) Delete(names []kernel.Name) (int, error) {
	m.deleted += len(names)
	m.all = m.all[len(names):]
	return len(names), nil
}

func (m *fakeConnections) Own() ([]netip.Addr, error) {
	return []netip.Addr{netip.MustParseAddr("192.0.2.1")}, nil
}

func (m *fakeConnections) open(count int, from, to string) {
	for range count {
		m.all = append(m.all, conntrack.Connection{
			Opener: netip.MustParseAddr(from), Answerer: netip.MustParseAddr(to), Answered: true,
			Class: conntrack.Class{Protocol: 6, State: 3, Answered: true}, Rest: time.Hour,
		})
	}
}

// keeping is a guardian of a table for 1,000 connections, with what it limits and logs.
func keeping(m *fakeConnections) (g *guardian, limited *[]ruleset.Limit, log *bytes.Buffer) {
	limited, log = new([]ruleset.Limit), new(bytes.Buffer)
	m.capacity = 1000
	here := []cni.Attachment{{Pod: cni.Pod{Namespace: "shop", Name: "greedy"}, Addresses: []netip.Addr{netip.MustParseAddr("10.244.1.5")}}}
	g = &guardian{
		log: slog.New(slog.NewTextHandler(log, nil)), table: m,
		limit: func(all []ruleset.Limit) { *limited = all },
		able:  func() error { return nil },
		whose: func(a netip.Addr) string { return podAt(a, here) },
	}
	g.resets.try = func() error { return nil }
	g.SetNetwork(ruleset.Network{Node: "own", Nodes: []policy.Node{
		{Name: "own", PodCIDRs: prefixes("10.244.1.0/24")}, {Name: "two", PodCIDRs: prefixes("10.244.2.0/24")},
	}})
	return g, limited, log
}

func mustKeep(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestKeepsRoom: who holds most is limited, loses what it holds too much, and is named, until there is room again.
func TestKeepsRoom(t *testing.T) {
	m, now := &fakeConnections{}, time.Now()
	g, limited, log := keeping(m)
	m.open(800, "10.244.1.5", "203.0.113.1")
	mustKeep(t, g.step(now))
	if m.walks+m.deleted > 0 || len(g.Problems()) > 0 {
		t.Fatalf("at the high water: %d walks, %d deleted, problems %q", m.walks, m.deleted, g.Problems())
	}
	m.open(50, "10.244.2.9", "10.244.1.6")
	mustKeep(t, g.step(now))
	want := []ruleset.Limit{{Address: netip.MustParseAddr("10.244.1.5"), PerSecond: 1}}
	if fmt.Sprint(*limited) != fmt.Sprint(want) || m.deleted != 150 {
		t.Errorf("limited %v, want %v; %d deleted", *limited, want, m.deleted)
	}
	if all := g.Problems(); len(all) != 1 || !strings.HasPrefix(all[0], "pod shop/greedy (10.244.1.5) opened 800 of the 1000 connections") {
		t.Errorf("problems %q", all)
	}
	walks := m.walks
	for range 10 {
		mustKeep(t, g.step(now.Add(time.Hour)))
	}
	if m.walks != walks || strings.Count(log.String(), "pod takes too much") != 1 {
		t.Errorf("%d walks more, log:\n%s", m.walks-walks, log)
	}
	m.all = m.all[:500]
	mustKeep(t, g.step(now.Add(time.Hour)))
	if len(*limited)+len(g.Problems()) > 0 {
		t.Errorf("with room again: limited %v, problems %q", *limited, g.Problems())
	}
}

// TestLimitEndsWithItsPod: the next pod at the address of one that was limited is not, though the table is not calm yet.
func TestLimitEndsWithItsPod(t *testing.T) {
	m, now := &fakeConnections{}, time.Now()
	g, limited, _ := keeping(m)
	m.open(450, "10.244.1.5", "203.0.113.1")
	m.open(450, "10.244.1.7", "203.0.113.1")
	mustKeep(t, g.step(now))
	if len(*limited) != 2 {
		t.Fatalf("limited %v", *limited)
	}
	g.Forget([]netip.Addr{netip.MustParseAddr("10.244.1.5")})
	mustKeep(t, g.step(now.Add(time.Second)))
	if len(*limited) != 1 || (*limited)[0].Address != netip.MustParseAddr("10.244.1.7") {
		t.Errorf("limited %v", *limited)
	}
}

// TestTableOfTheNode: where no pod holds too much, nobody is limited, and the problem says what to do.
func TestTableOfTheNode(t *testing.T) {
	m, now := &fakeConnections{}, time.Now()
	g, limited, _ := keeping(m)
	m.open(900, "192.0.2.1", "10.244.1.5")
	m.open(20, "203.0.113.1", "10.244.2.6")
	for n := range 29 {
		mustKeep(t, g.step(now.Add(time.Duration(n)*time.Second)))
	}
	if m.walks != 1 || len(*limited)+m.deleted > 0 {
		t.Errorf("%d walks, limited %v, %d deleted", m.walks, *limited, m.deleted)
	}
	if all := g.Problems(); len(all) != 1 || !strings.Contains(all[0], "raise net.netfilter.nf_conntrack_max") {
		t.Errorf("problems %q", all)
	}
	m.all = m.all[:10]
	mustKeep(t, g.step(now))
	if all := g.Problems(); len(all) > 0 {
		t.Errorf("with room again: %q", all)
	}
}

// TestServerPays for what comes from outside, and is named.
func TestServerPays(t *testing.T) {
	m := &fakeConnections{}
	g, limited, _ := keeping(m)
	m.open(900, "203.0.113.1", "10.244.2.6")
	mustKeep(t, g.step(time.Now()))
	if len(*limited) != 1 || (*limited)[0].Side != ruleset.Answers || m.deleted != 200 {
		t.Errorf("limited %v, %d deleted", *limited, m.deleted)
	}
	if all := g.Problems(); len(all) != 1 || !strings.HasPrefix(all[0], "the pod at 10.244.2.6, of another node, answers 900") {
		t.Errorf("problems %q", all)
	}
}

// TestKernelWithoutLimits: what cannot be limited is not written, since the policies beside it would not be, either; connections
// end all the same, and the problem says what is missing.
func TestKernelWithoutLimits(t *testing.T) {
	m := &fakeConnections{}
	g, limited, _ := keeping(m)
	g.able = func() error { return errors.New("no module nft_limit") }
	m.open(900, "10.244.1.5", "203.0.113.1")
	mustKeep(t, g.step(time.Now()))
	if len(*limited) > 0 || m.deleted != 200 {
		t.Errorf("limited %v, %d deleted", *limited, m.deleted)
	}
	if all := g.Problems(); len(all) != 2 || !strings.Contains(all[1], "no module nft_limit") {
		t.Errorf("problems %q", all)
	}
}

// TestKernelWithoutResets: they are not written then, and the problem says what is missing. The kernel is asked once.
func TestKernelWithoutResets(t *testing.T) {
	asked := 0
	g, _, _ := keeping(&fakeConnections{})
	g.resets.try = func() error { asked++; return errors.New("no module nft_reject_inet") }
	for range 2 {
		if g.resets.able() {
			t.Error("able")
		}
	}
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
	if all := g.Problems(); len(all) != 1 || !strings.Contains(all[0], "no module nft_reject_inet") {
		t.Errorf("problems %q", all)
	}
}

// TestUnreadTable: an error is logged once; a kernel that tracks nothing is none.
func TestUnreadTable(t *testing.T) {
	m := &fakeConnections{err: errors.New("injected")}
	g, _, log := keeping(m)
	for range 3 {
		g.complain(g.step(time.Now()))
	}
	if n := strings.Count(log.String(), "injected"); n != 1 {
		t.Errorf("logged %d times", n)
	}
	log.Reset()
	m.err = kernel.ErrAbsent
	g.complain(g.step(time.Now()))
	if log.Len() > 0 {
		t.Errorf("log: %s", log)
	}
}
