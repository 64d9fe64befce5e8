package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/kithnet/kith/cni"
	"github.com/kithnet/kith/policy/conntrack"
	"github.com/kithnet/kith/policy/conntrack/kernel"
	"github.com/kithnet/kith/policy/nft"
	"github.com/kithnet/kith/policy/ruleset"
)

// fillEvery is how often it is asked how full the kernel's table of connections is. It costs two reads of a few bytes.
const fillEvery = time.Second

// connectionTable is the kernel's.
type connectionTable interface {
	Fill() (count, capacity int, err error)
	Each(func(conntrack.Connection, func() kernel.Name)) error
	Delete([]kernel.Name) (int, error)
	Own() ([]netip.Addr, error)
}

// guardian keeps room in the kernel's table of connections: it limits those who hold too much, and ends some of what they
// hold. One goroutine, run, takes the steps.
type guardian struct {
	log   *slog.Logger
	table connectionTable
	limit func([]ruleset.Limit)   // in the kernel's rules
	able  func() error            // says why the kernel cannot limit
	whose func(netip.Addr) string // names the pod at an address

	resets resets

	watch    conntrack.Watch
	capacity int
	unable   error // the kernel cannot limit

	mu       sync.Mutex
	network  ruleset.Network
	problems []string
	gone     []netip.Addr // addresses whose pods ended since the last step
	failed   string       // what was logged last
}

// watchConnections keeps room in the table.
func (a *agent) watchConnections(ctx context.Context) error {
	g := &a.keeper
	g.log, g.table = a.log, a.connections
	g.limit = func(all []ruleset.Limit) { a.enforcer.Update(func(c *ruleset.Compiler) { c.SetLimits(all) }) }
	g.able = nft.CanLimit
	g.whose = func(addr netip.Addr) string { return podAt(addr, a.store.List()) }
	if rate := a.cfg.Connections.NewPerSecond; rate > 0 {
		if err := g.able(); err != nil {
			g.log.Error("connections.newPerSecond is not kept", "error", err)
		} else {
			a.enforcer.Update(func(c *ruleset.Compiler) { c.SetRate(rate) })
		}
	}
	return g.run(ctx)
}

// podAt names the pod at an address, which a pod of another node has if none of this node's has it.
func podAt(addr netip.Addr, here []cni.Attachment) string {
	for _, at := range here {
		for _, own := range at.Addresses {
			if own == addr {
				return fmt.Sprintf("pod %s/%s (%s)", at.Pod.Namespace, at.Pod.Name, addr)
			}
		}
	}
	return fmt.Sprintf("the pod at %s, of another node,", addr)
}

func (g *guardian) run(ctx context.Context) error {
	ticker := time.NewTicker(fillEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-ticker.C:
			g.complain(g.step(now))
		}
	}
}

// complain logs an error, once as long as it stays the same. A kernel that tracks nothing yet is none.
func (g *guardian) complain(err error) {
	text := ""
	if err != nil && !errors.Is(err, kernel.ErrAbsent) {
		text = err.Error()
	}
	if text != "" && text != g.failed {
		g.log.Error("nobody keeps room in the table of connections", "error", err)
	}
	g.failed = text
}

// SetNetwork says which addresses are pods', and which nodes'.
func (g *guardian) SetNetwork(n ruleset.Network) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.network = n
}

// Forget says that the pods at these addresses are gone: no limit of theirs is for the next ones.
func (g *guardian) Forget(addresses []netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.gone = append(g.gone, addresses...)
}

// forget takes out who is gone.
func (g *guardian) forget() {
	g.mu.Lock()
	gone := g.gone
	g.gone = nil
	g.mu.Unlock()
	before := len(g.watch.Limited)
	if before == 0 || len(gone) == 0 {
		return
	}
	if g.watch = g.watch.Without(gone); len(g.watch.Limited) < before {
		g.limit(limitsOf(g.watch.Limited, g.capacity))
	}
}

// Problems says who is limited, and that the table is nearly full.
func (g *guardian) Problems() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append(g.resets.problems(), g.problems...)
}

// resets knows whether the kernel can answer with a TCP reset: it is asked once.
type resets struct {
	once sync.Once
	try  func() error // nil: the kernel's
	err  error
}

func (r *resets) able() bool {
	r.once.Do(func() {
		if r.try == nil {
			r.try = nft.CanReset
		}
		r.err = r.try()
	})
	return r.err == nil
}

func (r *resets) problems() []string {
	if r.able() {
		return nil
	}
	return []string{fmt.Sprintf("TCP connections that the node's table of connections lost hang, and do not end: %v", r.err)}
}

// step does what there is to do.
func (g *guardian) step(now time.Time) error {
	count, capacity, err := g.table.Fill()
	if err != nil {
		return err
	}
	g.capacity = capacity
	g.forget()
	switch g.watch.Due(count, capacity, now) {
	case conntrack.Look:
		return g.look(now)
	case conntrack.Release:
		g.log.Info("table of connections has room again: nobody is limited", "connections", count, "capacity", capacity)
		g.watch = g.watch.Released()
		g.limit(nil)
	case conntrack.Rest:
	}
	if len(g.watch.Limited) == 0 && count*100 <= conntrack.HighWater*capacity {
		g.say(nil)
	}
	return nil
}

// look takes two walks through the table: one to see who holds how much, and one for what ends, if anything does. New
// connections are limited before any ends.
func (g *guardian) look(now time.Time) error {
	addresses, err := g.addresses()
	if err != nil {
		return err
	}
	census := conntrack.NewCensus(addresses)
	if err := g.table.Each(func(c conntrack.Connection, _ func() kernel.Name) { census.Count(c) }); err != nil {
		return err
	}
	j := census.Judge(g.capacity, g.watch, now)
	if len(j.Limited) > 0 {
		g.unable = g.able()
	}
	g.tell(j)
	g.watch = g.watch.Looked(j, now)
	if g.unable == nil {
		g.limit(limitsOf(j.Limited, g.capacity))
	}
	if len(j.End) == 0 {
		return nil
	}
	picked := conntrack.Select[kernel.Name](census, j)
	if err := g.table.Each(picked.Offer); err != nil {
		return err
	}
	ended, err := g.table.Delete(picked.Picked())
	g.log.Warn("table of connections was nearly full: connections of those who hold most are ended", "connections", ended,
		"of", g.names(j.End))
	return err
}

// names are those of whom connections end, a few of them.
func (g *guardian) names(end map[conntrack.Holder]int) []string {
	var out []string
	for h := range end {
		if len(out) == mostNamed {
			break
		}
		out = append(out, g.whose(h.Address))
	}
	return out
}

func (g *guardian) addresses() (conntrack.Addresses, error) {
	own, err := g.table.Own()
	if err != nil {
		return conntrack.Addresses{}, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	var pods []netip.Prefix
	var nodes []netip.Addr
	for _, n := range g.network.Nodes {
		pods = append(pods, n.PodCIDRs...)
		nodes = append(append(nodes, n.Addresses...), n.Mesh...)
		if n.Name == g.network.Node {
			own = append(append(own, n.Addresses...), n.Mesh...)
		}
	}
	return conntrack.NewAddresses(pods, append(nodes, own...), own), nil
}

// limitsOf are the rules' limits.
func limitsOf(limited []conntrack.Excess, capacity int) []ruleset.Limit {
	rate := uint32(conntrack.PerSecond(capacity, len(limited)))
	var out []ruleset.Limit
	for _, x := range limited {
		side := ruleset.Opens
		if x.Side == conntrack.Answers {
			side = ruleset.Answers
		}
		out = append(out, ruleset.Limit{Address: x.Address, Side: side, PerSecond: rate})
	}
	return out
}

// mostNamed bounds how many pods are named at once.
const mostNamed = 8

// tell says who is limited, and logs whoever was not before.
func (g *guardian) tell(j conntrack.Judgement) {
	var problems []string
	rate := conntrack.PerSecond(g.capacity, len(j.Limited))
	for i, x := range j.Limited {
		text := fmt.Sprintf("%s %s %d of the %d connections that this node can track: its new ones are limited to %d in a second until it "+
			"holds less, and what was silent longest ends. If it needs them, raise net.netfilter.nf_conntrack_max on the node",
			g.whose(x.Address), verbOf(x.Side), x.Held, g.capacity, rate)
		if !g.wasLimited(x.Holder) {
			g.log.Warn("pod takes too much of the table of connections", "problem", text)
		}
		if i < mostNamed {
			problems = append(problems, text)
		}
	}
	if more := len(j.Limited) - mostNamed; more > 0 {
		problems = append(problems, fmt.Sprintf("%d more pods hold too many connections", more))
	}
	if g.unable != nil {
		problems = append(problems, fmt.Sprintf("new connections are not limited: %v", g.unable))
	}
	if len(j.Limited) == 0 {
		problems = append(problems, fmt.Sprintf("more than %d %% of the %d connections that this node can track are there, and no pod holds too "+
			"many for long: raise net.netfilter.nf_conntrack_max on the node before it is full", conntrack.HighWater, g.capacity))
	}
	g.say(problems)
}

func (g *guardian) wasLimited(h conntrack.Holder) bool {
	for _, x := range g.watch.Limited {
		if x.Holder == h {
			return true
		}
	}
	return false
}

func verbOf(s conntrack.Side) string {
	if s == conntrack.Answers {
		return "answers"
	}
	return "opened"
}

func (g *guardian) say(problems []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.problems = problems
}
