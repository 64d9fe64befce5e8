package gossip

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"
)

// One answer joins two halves of a split, so a round needs few attempts.
const attemptsPerRound = 5

// rejoin tries lost addresses in rounds: memberlist itself never goes back to
// members it has given up.
func (g *Gossip) rejoin(ctx context.Context) error {
	tick := time.NewTicker(g.config.Intervals.Rejoin)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-g.roster.seeded:
		}
		g.round(ctx, g.roster.lost())
	}
}

// round joins a random few of the lost addresses at once, so that one that does
// not answer does not hold up the others. At the end of ctx it waits for none.
func (g *Gossip) round(ctx context.Context, lost []netip.AddrPort) {
	rand.Shuffle(len(lost), func(i, j int) { lost[i], lost[j] = lost[j], lost[i] })
	var attempts sync.WaitGroup
	for _, addr := range lost[:min(len(lost), attemptsPerRound)] {
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
