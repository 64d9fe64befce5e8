package main

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/kithnet/kith/overlay"
	"github.com/kithnet/kith/overlay/preshared"
	"github.com/kithnet/kith/overlay/rotation"
	"github.com/kithnet/kith/overlay/wireguard"
)

// The narrow sides of the parts that lanes join.
type (
	keyring interface {
		Public() ([overlay.Lanes]overlay.Key, uint32)
		Label(generation uint32) error
		Renew() error
		Rotated() (time.Time, error)
	}
	handshakes interface {
		Peers(context.Context) ([]wireguard.PeerStatus, error)
	}
)

// lanes decides on which lane this node sends to each other node, when its keys change, and what each two nodes keep
// secret. The mesher asks it before each change of the device.
type lanes struct {
	log      *slog.Logger
	self     string
	keys     keyring
	say      func(func(*overlay.Claim)) error
	peers    handshakes
	letters  *letterbox
	secrets  *secrets
	rotation *rotation.Rotation
	every    time.Duration // from one generation to the next; 0: only by hand
	again    *time.Timer
	changed  chan struct{}

	mu     sync.Mutex
	byHand uint32 // the generation that somebody asked for
	state  laneState
}

// laneState is what lanes tells about itself.
type laneState struct {
	Generation, Settled uint32
	Rotated, Next       time.Time
	HeldBy              []string
	Peers               map[string]peerState
}

// peerState is how this node stands with another.
type peerState struct {
	Lane   int
	Secret [overlay.Lanes]secretState
}

// view is what one decision rests on.
type view struct {
	now     time.Time
	nodes   []overlay.Node
	members []overlay.Member
	claims  []overlay.Claim
	have    overlay.Mesh
	shook   map[overlay.Key]time.Time
}

// hold is how long all nodes must have been settled before one gives a lane new keys, soon the time from one look at
// the lanes to the next while something is under way, later otherwise.
const (
	holdKeys  = 3 * time.Second
	soon      = 500 * time.Millisecond
	later     = 10 * time.Second
	stale     = 180 * time.Second // a handshake that carries no more
	mailEvery = 50 * time.Millisecond
)

// openLanes makes the lanes of an agent that has joined gossip.
func (a *agent) openLanes() error {
	self, ok := a.self()
	if !ok {
		return fmt.Errorf("node %s is not known", a.node)
	}
	a.lanes = &lanes{
		log: a.log, self: a.node, keys: a.keys, say: a.speaker.Say, peers: a.device, every: a.cfg.WireGuard.Rotation,
		rotation: rotation.New(holdKeys), again: time.NewTimer(soon), changed: make(chan struct{}, 1),
		letters: newLetterbox(a.node, self.UID, a.gossip.Refused),
	}
	a.lanes.secrets = newSecrets(a.log, preshared.Self{
		Name: a.node, UID: self.UID, Sign: a.speaker.signer.Sign, Willing: a.cfg.WireGuard.PresharedKeys,
	}, a.folder, a.gossip)
	return nil
}

// Rotate asks for new keys in the whole mesh, and returns the generation that they will be.
func (l *lanes) Rotate() uint32 {
	_, generation := l.keys.Public()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.byHand = max(l.byHand, generation+1)
	nudge(l.changed)
	return l.byHand
}

// State says where the lanes stand.
func (l *lanes) State() laneState {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

// Changed receives when it is time for the next Step. It is for one consumer.
func (l *lanes) Changed() <-chan struct{} { return l.changed }

// run turns what comes from others, and the time, into signals. Letters are taken as they come, and one signal told of all
// that come within mailEvery.
func (l *lanes) run(ctx context.Context) error {
	var mail <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.again.C:
			nudge(l.changed)
		case <-mail:
			mail = nil
			nudge(l.changed)
		case message := <-l.secrets.mail.Received():
			if l.letters.put(message, time.Now()) && mail == nil {
				mail = time.After(mailEvery)
			}
		}
	}
}

// Step takes what has come from others, decides, does what concerns the own keys, and returns those and how to send to
// each node. With an error, too, all of that is on disk: what could not be kept there is not used.
func (l *lanes) Step(ctx context.Context, v view) ([overlay.Lanes]overlay.Key, map[string]overlay.Path, error) {
	paths, moving, err := l.step(ctx, v)
	// After an error it is the caller who tries again.
	if moving && err == nil {
		l.again.Reset(soon)
	} else {
		l.again.Reset(later)
	}
	keys, _ := l.keys.Public()
	return keys, paths, err
}

func (l *lanes) step(ctx context.Context, v view) (map[string]overlay.Path, bool, error) {
	statuses, err := l.peers.Peers(ctx)
	if err != nil {
		l.log.Debug("handshakes not read", "error", err)
	}
	v.shook = make(map[overlay.Key]time.Time, len(statuses))
	for _, s := range statuses {
		v.shook[s.Key] = s.LastHandshake
	}
	uid := ""
	for _, n := range v.nodes {
		if n.Name == l.self {
			uid = n.UID
			l.secrets.agreements.SetUID(uid)
		}
	}
	others := l.others(v)
	l.letters.know(uid, others)
	unagreed := l.secrets.step(v.now, others, l.letters.take(mailAtOnce))
	in := l.input(v, others)
	d := l.rotation.Decide(in)
	unsaid := l.act(in, d)
	if unsaid != nil {
		d.Lanes = stay(d.Lanes, others)
	}
	l.tell(in, d, others)
	paths := make(map[string]overlay.Path, len(others))
	for _, o := range others {
		paths[o.Name] = overlay.Path{Lane: d.Lanes[o.Name], Preshared: l.secrets.keys(o)}
	}
	return paths, d.Moving || l.secrets.open(others) || !l.letters.empty(), errors.Join(unagreed, unsaid)
}

// stay leaves routes where they are: a node that could not say that it moves would move where others give new keys.
func stay(decided map[string]int, others []other) map[string]int {
	lanes := maps.Clone(decided)
	for _, o := range others {
		if o.lane >= 0 {
			lanes[o.Name] = o.lane
		}
	}
	return lanes
}

func (l *lanes) input(v view, others []other) rotation.Input {
	_, generation := l.keys.Public()
	in := rotation.Input{Now: v.now, Generation: generation, Due: l.due(v.now, generation)}
	for _, o := range others {
		p := rotation.Peer{Name: o.Name, Alive: o.alive, Generation: o.claim.Generation, Settled: o.claim.Settled, Lane: o.lane}
		for lane := range overlay.Lanes {
			p.Agreed[lane] = l.secrets.settled(o, lane)
			p.Handshake[lane] = l.secrets.shook(o, lane, v.now)
		}
		in.Peers = append(in.Peers, p)
	}
	return in
}

// due says that the schedule or somebody wants a new generation.
func (l *lanes) due(now time.Time, generation uint32) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byHand > generation {
		return true
	}
	next := l.next(generation)
	return !next.IsZero() && now.After(next)
}

// next is when the schedule wants the next generation: nodes differ by up to a tenth, so that one goes first.
func (l *lanes) next(generation uint32) time.Time {
	rotated, err := l.keys.Rotated()
	if err != nil || l.every == 0 {
		return time.Time{}
	}
	h := fnv.New32a()
	h.Write([]byte{byte(generation), byte(generation >> 8)})
	h.Write([]byte(l.self))
	return rotated.Add(l.every - l.every/10*time.Duration(h.Sum32()%1000)/1000)
}

// act changes the own keys on disk, then says so; the device follows in the same round.
func (l *lanes) act(in rotation.Input, d rotation.Decision) error {
	switch d.Action {
	case rotation.Relabel:
		l.log.Info("keys take part in a later generation", "from", in.Generation, "to", d.Generation)
		if err := l.keys.Label(d.Generation); err != nil {
			return err
		}
	case rotation.Renew:
		l.log.Info("idle lane gets new keys", "generation", in.Generation+1)
		if err := l.keys.Renew(); err != nil {
			return err
		}
	}
	keys, generation := l.keys.Public()
	return l.say(func(c *overlay.Claim) { c.Keys, c.Generation, c.Settled = keys, generation, d.Settled })
}

func (l *lanes) tell(in rotation.Input, d rotation.Decision, others []other) {
	_, generation := l.keys.Public()
	state := laneState{Generation: generation, Settled: d.Settled, HeldBy: d.HeldBy, Peers: make(map[string]peerState, len(others))}
	state.Rotated, _ = l.keys.Rotated()
	for _, o := range others {
		state.Peers[o.Name] = peerState{Lane: d.Lanes[o.Name], Secret: l.secrets.states(o)}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	state.Next = l.next(generation)
	if len(d.HeldBy) > 0 && !slices.Equal(d.HeldBy, l.state.HeldBy) {
		l.log.Info("new keys wait for nodes", "generation", in.Generation+1, "nodes", d.HeldBy)
	}
	l.state = state
}

// other is another node as a decision sees it.
type other struct {
	overlay.Node
	party preshared.Other
	claim overlay.Claim
	own   uint32 // this node's generation
	alive bool
	lane  int // of its routes; -1: it has none
	have  [overlay.Lanes]overlay.Preshared
	shook [overlay.Lanes]time.Time // by the keys and the secret that the lane has
	fresh [overlay.Lanes]bool
}

// others are the nodes with a claim. Whoever has shaken hands of late lives, whatever gossip says.
func (l *lanes) others(v view) []other {
	own, generation := l.keys.Public()
	alive := make(map[string]bool, len(v.members))
	for _, m := range v.members {
		alive[m.Name] = m.Alive
	}
	claims := make(map[string]overlay.Claim, len(v.claims))
	for _, c := range v.claims {
		claims[c.Node] = c
	}
	routes := make(map[netip.Prefix]int, len(v.have.Routes))
	for _, r := range v.have.Routes {
		routes[r.CIDR] = r.Lane
	}
	peers := v.byKey()
	var out []other
	for _, n := range v.nodes {
		claim, claimed := claims[n.Name]
		if n.Name == l.self || !claimed {
			continue
		}
		o := other{Node: n, claim: claim, own: generation, alive: alive[n.Name], lane: laneOf(n, routes)}
		o.party = preshared.Other{Name: n.Name, UID: n.UID, Own: own, Keys: claim.Keys, Signing: claim.Signing}
		for lane, key := range claim.Keys {
			p, ok := peers[lane][key]
			if !ok || v.have.Lanes[lane].Key != own[lane] {
				continue
			}
			o.have[lane] = p.Preshared
			if p.Preshared == l.secrets.keys(o)[lane] {
				o.shook[lane] = v.shook[key]
				o.fresh[lane] = !o.shook[lane].IsZero() && v.now.Sub(o.shook[lane]) < stale
			}
			o.party.InUse[lane] = o.lane == lane && o.fresh[lane]
		}
		o.alive = o.alive || o.fresh[0] || o.fresh[1]
		out = append(out, o)
	}
	slices.SortFunc(out, func(a, b other) int { return a.Created.Compare(b.Created) })
	return out
}

func (v view) byKey() (out [overlay.Lanes]map[overlay.Key]overlay.Peer) {
	for lane := range out {
		out[lane] = make(map[overlay.Key]overlay.Peer, len(v.have.Lanes[lane].Peers))
		for _, p := range v.have.Lanes[lane].Peers {
			out[lane][p.Key] = p
		}
	}
	return out
}

func laneOf(n overlay.Node, routes map[netip.Prefix]int) int {
	for _, cidr := range n.PodCIDRs {
		if lane, ok := routes[cidr]; ok {
			return lane
		}
	}
	return -1
}
