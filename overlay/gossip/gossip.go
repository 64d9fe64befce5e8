// Package gossip is the edge between memberlist and the mesh's members.
//
// Input: this node's record, the cluster's keys, and addresses to find others at.
// Output: the list of members, where each gossips, and whether it lives; and every
// record that is heard, for the judge.
//
// Invariants:
//   - A member once seen stays in the list, alive or dead, until it is forgotten.
//   - Ending the process says nothing to the others: a restart is no leave.
//   - As long as an address is known at which no live member answers, it is tried
//     again: a healed partition heals here.
//   - A member whose record the judge refuses is no member, and is told to nobody.
//   - What does not bear one of the cluster's keys is counted and changes nothing.
//   - All that comes is heard by the judge, or counted by why it was not. Who sends
//     more than a member does takes no share of the others', and bounded memory.
//
// Out of scope: what is in a record and whether it is true (the judge says), and
// where seeds and keys come from. Liveness is not signed: a member can call another
// dead, and nothing may hang on that but what this node tries first. Nor is memberlist's
// incarnation: with the last there is, a member can make another unable to refute that.
package gossip

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/kithnet/kith/overlay"
)

// Judge decides which records are true. It is asked under memberlist's lock and
// may not call back.
type Judge interface {
	// Hear returns why the record is refused, or nil.
	Hear(overlay.Heard) error
	// Conflict tells of a member that is alive at one address and heard of at another.
	Conflict(name string)
}

// Config is what Start needs. Keys have 32 bytes each; what is sent bears the
// first, what is received may bear any. Zero Intervals are the defaults.
type Config struct {
	Name      string
	Bind      netip.AddrPort
	Keys      [][]byte
	Record    []byte
	Judge     Judge
	Intervals Intervals
	Log       *slog.Logger

	// wrap puts something between memberlist and the sockets, for tests.
	wrap func(memberlist.NodeAwareTransport) memberlist.NodeAwareTransport
}

// Intervals set the pace of failure detection and of looking for lost members.
type Intervals struct {
	Probe    time.Duration
	Gossip   time.Duration
	Rejoin   time.Duration
	Exchange time.Duration // of all that two members know; longer in large clusters
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
	if i.Exchange == 0 {
		i.Exchange = 10 * time.Second
	}
	return i
}

const (
	keyLength      = 32
	streamTimeout  = 5 * time.Second
	updateTimeout  = 5 * time.Second
	reclaimTimeout = time.Millisecond
)

// Gossip is this node's part in the cluster's gossip.
type Gossip struct {
	config Config
	list   *memberlist.Memberlist
	keys   *memberlist.Keyring
	roster *roster
	gate   *gate
	record *announcement
	post   *post
	lines  *logWriter
	log    *slog.Logger
}

// Start binds the gossip port and begins to answer. Run looks for others.
func Start(config Config) (*Gossip, error) {
	config.Intervals = config.Intervals.orDefaults()
	keys, err := newKeys(config.Keys)
	if err != nil {
		return nil, fmt.Errorf("start gossip: %w", err)
	}
	g := &Gossip{config: config, keys: keys, log: config.Log}
	g.roster = newRoster(config.Name, config.Judge, func(c Cause) { g.gate.count(c) })
	g.gate = newGate(g.roster.knows, config.Log)
	g.lines = &logWriter{log: config.Log, now: time.Now, lost: g.gate.count}
	if g.record, err = newAnnouncement(config.Record, g.gate.count); err != nil {
		return nil, fmt.Errorf("start gossip: %w", err)
	}
	g.post = g.record.post
	if err := g.open(); err != nil {
		return nil, fmt.Errorf("start gossip on %s: %w", config.Bind, err)
	}
	return g, nil
}

func (g *Gossip) open() error {
	t, err := listen(g.config.Bind, g.gate, g.keys.GetKeys, g.lines.stranger)
	if err != nil {
		return err
	}
	c := g.listConfig()
	c.Transport = t
	if g.config.wrap != nil {
		c.Transport = g.config.wrap(t)
	}
	if g.list, err = memberlist.Create(c); err != nil {
		return errors.Join(err, t.Shutdown())
	}
	t.serve() // not before memberlist knows this member: it would believe others about it
	return nil
}

func (g *Gossip) listConfig() *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.Name = g.config.Name
	c.BindAddr = g.config.Bind.Addr().String()
	c.BindPort = int(g.config.Bind.Port())
	c.AdvertisePort = int(g.config.Bind.Port())
	c.Keyring = g.keys
	c.ProtocolVersion = memberlist.ProtocolVersion2Compatible // the roster refuses others
	c.TCPTimeout = streamTimeout
	c.ProbeInterval = g.config.Intervals.Probe
	c.ProbeTimeout = g.config.Intervals.Probe / 2
	c.GossipInterval = g.config.Intervals.Gossip
	c.PushPullInterval = g.config.Intervals.Exchange
	// What members say is keys and signatures, which nothing makes shorter.
	c.EnableCompression = false
	// A node may come back under another address as soon as it is known to be dead.
	c.DeadNodeReclaimTime = reclaimTimeout
	c.Delegate = g.record
	c.Events = g.roster
	c.Alive = g.roster
	c.Conflict = g.roster
	c.Logger = log.New(g.lines, "", 0)
	return c
}

// Members returns every member seen and not forgotten, this node among them, by
// name.
func (g *Gossip) Members() []overlay.Member { return g.roster.members() }

// Changed receives after the list of members changed. It is for one consumer.
func (g *Gossip) Changed() <-chan struct{} { return g.roster.changed }

// Refused counts a message that whoever received it has no use for.
func (g *Gossip) Refused(cause Cause) { g.gate.count(cause) }

// Strangers returns how many packets and streams bore none of the cluster's keys.
func (g *Gossip) Strangers() uint64 { return g.lines.count() }

// Unheard returns what was dropped unread, by address and cause.
func (g *Gossip) Unheard() []Unheard { return g.gate.unheard() }

// Forget drops a member whose node is gone. One that is still alive stays.
func (g *Gossip) Forget(name string) { g.roster.forget(name) }

// SetSeeds replaces the addresses at which other members may be found, by their names.
func (g *Gossip) SetSeeds(seeds map[string][]netip.AddrPort) { g.roster.setSeeds(seeds) }

// Addr returns the address that the others know this member by.
func (g *Gossip) Addr() netip.AddrPort { return addrPort(g.list.LocalNode()) }

// SetRecord replaces this node's record and tells the others.
func (g *Gossip) SetRecord(ctx context.Context, record []byte) error {
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
	var delivering sync.WaitGroup
	delivering.Go(func() { g.deliver(ctx) })
	err := g.rejoin(ctx)
	delivering.Wait()
	if shutdown := g.list.Shutdown(); shutdown != nil {
		return errors.Join(err, fmt.Errorf("stop gossip: %w", shutdown))
	}
	return err
}
