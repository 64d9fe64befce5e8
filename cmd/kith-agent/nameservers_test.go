package main

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/kithnet/kith/policy/dns/tap"
)

// TestWhoIsHeard: the cluster's name servers and all others that are known, once each; any, where the cluster's are not
// known.
func TestWhoIsHeard(t *testing.T) {
	list := func(all ...string) (out []netip.Addr) {
		for _, a := range all {
			out = append(out, netip.MustParseAddr(a))
		}
		return out
	}
	for name, c := range map[string]struct {
		cluster, others []netip.Addr
		want            tap.Audience
	}{
		"all":           {list("10.96.0.10", "10.244.0.2"), list("192.0.2.53", "10.244.0.2"), tap.Audience{Servers: list("10.96.0.10", "10.244.0.2", "192.0.2.53")}},
		"not a cluster": {nil, list("192.0.2.53"), tap.Audience{Servers: list("192.0.2.53"), AnyServer: true}},
	} {
		t.Run(name, func(t *testing.T) {
			if d := cmp.Diff(c.want, whoIsHeard(c.cluster, c.others), cmpopts.EquateComparable(netip.Addr{}), cmpopts.SortSlices(netip.Addr.Less)); d != "" {
				t.Errorf("heard (-want +got)\n%s", d)
			}
		})
	}
}

// TestLearnerHearsWhomItTrusts: every name server before the cluster's are known, and then these.
func TestLearnerHearsWhomItTrusts(t *testing.T) {
	heard := make(chan tap.Audience, 8)
	l := newLearner(slog.New(slog.DiscardHandler), &fakePupil{})
	l.open = func(tap.Hear) (ear, error) { return audienceEar{heard}, nil }
	go func() { _ = l.run(t.Context()) }()
	l.listen(listener("example.com"))
	if a := <-heard; !a.AnyServer || len(a.Pods) != 2 {
		t.Errorf("before servers are known it hears %+v", a)
	}
	server := netip.MustParseAddr("10.96.0.10")
	for range 2 { // the second time nothing changes
		l.trust(tap.Audience{Servers: []netip.Addr{server}})
	}
	if a := <-heard; a.AnyServer || len(a.Pods) != 2 || len(a.Servers) != 1 || a.Servers[0] != server {
		t.Errorf("when servers are known it hears %+v", a)
	}
	if len(heard) > 0 {
		t.Errorf("hears %+v though nothing has changed", <-heard)
	}
}

// TestWhatPassesIsTold: once for each server and each busy pod, in the log and the status, for some time, and not without
// end.
func TestWhatPassesIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logged := lines(0)
		p := newLearner(slog.New(slog.NewTextHandler(&logged, nil)), &fakePupil{}).passed
		pod, other, server := netip.MustParseAddr("10.244.1.5"), netip.MustParseAddr("10.244.1.6"), netip.MustParseAddr("192.0.2.53")
		for _, u := range []tap.Unheard{{Server: server, Pod: pod}, {Server: server, Pod: other}, {Server: server, Pod: pod, Busy: true}, {Server: pod, Pod: pod, Busy: true}} {
			p.note(u)
		}
		want := []string{
			"names are not learned from the name server 192.0.2.53, which pod 10.244.1.5 asks: if pods are to use it, add it to policy.nameServers",
			"pod 10.244.1.5 gets more answers of name servers than are heard: not all names are learned that it asks for",
		}
		if got := p.Problems(); !slices.Equal(slices.Sorted(slices.Values(got)), want) || logged != 2 {
			t.Errorf("%d lines logged, problems %q", logged, got)
		}
		for i := range 1000 {
			p.note(tap.Unheard{Server: netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), Pod: pod})
		}
		if n := len(p.Problems()); n != mostPassed || int(logged) != mostPassed {
			t.Errorf("%d problems and %d lines of a thousand servers", n, logged)
		}
		time.Sleep(passedFor + time.Second)
		if got := p.Problems(); len(got) > 0 {
			t.Errorf("after all is over, %q", got)
		}
	})
}

// audienceEar tells all of whom it is to hear.
type audienceEar struct{ heard chan tap.Audience }

func (e audienceEar) Listen(a tap.Audience) error   { e.heard <- a; return nil }
func (e audienceEar) Run(ctx context.Context) error { <-ctx.Done(); return nil }
func (e audienceEar) Close() error                  { return nil }
