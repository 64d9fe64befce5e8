package gossip

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"
)

const (
	// One answer joins two halves of a split, so a round needs few attempts.
	attemptsPerRound = 3
	// After a start, and as long as members come, rounds follow each other this much
	// faster: many nodes that start at once know each other after a few of them,
	// long before gossip has brought the news.
	haste       = 10
	hastyRounds = 20
)

// rejoin tries lost addresses in rounds: memberlist itself never goes back to
// members it has given up.
func (g *Gossip) rejoin(ctx context.Context) error {
	alive, hasty := 0, hastyRounds
	for {
		pause := g.config.Intervals.Rejoin
		if hasty > 0 {
			pause /= haste
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		case <-g.roster.seeded:
		}
		timer.Stop()
		g.round(ctx, draw(g.roster.lost()))
		before := alive
		if alive = g.roster.alive(); alive > before {
			hasty = hastyRounds
		} else if hasty > 0 {
			hasty--
		}
	}
}

// draw takes a random few of the lost nodes, and of each an address: one that says it
// has many is not tried more often than the others.
func draw(lost [][]netip.AddrPort) []netip.AddrPort {
	rand.Shuffle(len(lost), func(i, j int) { lost[i], lost[j] = lost[j], lost[i] })
	var out []netip.AddrPort
	for _, addrs := range lost[:min(len(lost), attemptsPerRound)] {
		out = append(out, addrs[rand.IntN(len(addrs))])
	}
	return out
}

// round joins addresses at once, so that one that does not answer does not hold up
// the others. At the end of ctx it waits for none.
func (g *Gossip) round(ctx context.Context, addrs []netip.AddrPort) {
	var attempts sync.WaitGroup
	for _, addr := range addrs {
		attempts.Go(func() { g.attempt(addr) })
	}
	done := make(chan struct{})
	go func() {
		attempts.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

func (g *Gossip) attempt(addr netip.AddrPort) {
	if _, err := g.list.Join([]string{addr.String()}); err != nil {
		g.log.Debug("lost member does not answer", "address", addr, "error", err)
		return
	}
	g.log.Info("joined gossip", "address", addr)
}
