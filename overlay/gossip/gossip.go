// Package gossip is the edge between memberlist and the mesh's members.
//
// Input: this node's record, a shared secret, and addresses to find others at.
// Output: the list of members with what each says of itself and whether it lives.
//
// Invariants:
//   - A member once seen stays in the list, alive or dead, until it is forgotten.
//   - Ending the process says nothing to the others: a restart is no leave.
//   - As long as an address is known at which no live member answers, it is tried
//     again: a healed partition heals here.
//   - What does not parse is refused, counted by cause, and changes nothing.
//
// Out of scope: whether a member may claim its key (the core compares with the
// Node object), signatures, and where seeds and the secret come from.
package gossip

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net/netip"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/kithnet/kith/overlay"
)

// Config is what Start needs. SecretKey has 32 bytes. Zero Intervals are the
// defaults.
type Config struct {
	Name      string
	Bind      netip.AddrPort
	SecretKey []byte
	Record    Record
	Intervals Intervals
	Log       *slog.Logger

	transport memberlist.Transport
}

// Intervals set the pace of failure detection and of looking for lost members.
type Intervals struct {
	Probe  time.Duration
	Gossip time.Duration
	Rejoin time.Duration
}

func (i Intervals) orDefaults() Intervals {
	if i.Probe == 0 {
		i.Probe = time.Second
	}
	if i.Gossip == 0 {
		i.Gossip = 200 * time.Millisecond
	}
	if i.Rejoin == 0 {
		i.Rejoin = 5 * time.Second
	}
	return i
}

const (
	secretLength   = 32
	streamTimeout  = 5 * time.Second
	updateTimeout  = 5 * time.Second
	reclaimTimeout = time.Millisecond
)

// Gossip is this node's part in the cluster's gossip.
type Gossip struct {
	config Config
	list   *memberlist.Memberlist
	roster *roster
	record *announcement
	log    *slog.Logger
}

// Start binds the gossip port and begins to answer. Run looks for others.
func Start(config Config) (*Gossip, error) {
	if len(config.SecretKey) != secretLength {
		return nil, fmt.Errorf("start gossip: secret key of %d bytes instead of %d", len(config.SecretKey), secretLength)
	}
	config.Intervals = config.Intervals.orDefaults()
	record, err := newAnnouncement(config.Record)
	if err != nil {
		return nil, fmt.Errorf("start gossip: %w", err)
	}
	g := &Gossip{config: config, roster: newRoster(config.Name), record: record, log: config.Log}
	g.list, err = memberlist.Create(g.listConfig())
	if err != nil {
		return nil, fmt.Errorf("start gossip on %s: %w", config.Bind, err)
	}
	return g, nil
}

func (g *Gossip) listConfig() *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.Name = g.config.Name
	c.BindAddr = g.config.Bind.Addr().String()
	c.BindPort = int(g.config.Bind.Port())
	c.AdvertisePort = int(g.config.Bind.Port())
	c.SecretKey = g.config.SecretKey
	c.Transport = g.config.transport
	c.TCPTimeout = streamTimeout
	c.ProbeInterval = g.config.Intervals.Probe
	c.ProbeTimeout = g.config.Intervals.Probe / 2
	c.GossipInterval = g.config.Intervals.Gossip
	// A node may come back under another address as soon as it is known to be dead.
	c.DeadNodeReclaimTime = reclaimTimeout
	c.Delegate = g.record
	c.Events = g.roster
	c.Alive = g.roster
	c.Conflict = g.roster
	c.Logger = log.New(&logWriter{log: g.log}, "", 0)
	return c
}

// Members returns every member seen and not forgotten, this node among them, by
// name.
func (g *Gossip) Members() []overlay.Member { return g.roster.members() }

// Changed receives after the list of members changed. It is for one consumer.
func (g *Gossip) Changed() <-chan struct{} { return g.roster.changed }

// Refused returns how many records were refused, by cause.
func (g *Gossip) Refused() map[string]uint64 { return g.roster.refusals() }

// Forget drops a member whose node is gone. One that is still alive stays.
func (g *Gossip) Forget(name string) { g.roster.forget(name) }

// SetSeeds replaces the addresses at which other members may be found.
func (g *Gossip) SetSeeds(seeds []netip.AddrPort) { g.roster.setSeeds(seeds) }

// Addr returns the address that the others know this member by.
func (g *Gossip) Addr() netip.AddrPort { return addrPort(g.list.LocalNode()) }

// SetRecord replaces this node's record and tells the others.
func (g *Gossip) SetRecord(ctx context.Context, record Record) error {
	if err := g.record.set(record); err != nil {
		return fmt.Errorf("set gossip record: %w", err)
	}
	done := make(chan error, 1)
	go func() { done <- g.list.UpdateNode(updateTimeout) }()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("set gossip record: %w", err)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Run looks for lost members until ctx ends, then stops answering. It announces
// no leave: the others keep this node's peer while it restarts.
func (g *Gossip) Run(ctx context.Context) error {
	err := g.rejoin(ctx)
	if shutdown := g.list.Shutdown(); shutdown != nil {
		return errors.Join(err, fmt.Errorf("stop gossip: %w", shutdown))
	}
	return err
}
