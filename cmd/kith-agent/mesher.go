package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/kithnet/kith/overlay"
	"github.com/kithnet/kith/policy"
	"github.com/kithnet/kith/policy/ruleset"
)

// device is the kernel's side of the mesh.
type device interface {
	Read(context.Context) (overlay.Mesh, error)
	Apply(context.Context, overlay.Plan) error
	Changed() <-chan struct{}
}

// directory is the API server's side of the mesh, roster is gossip's, registry what nodes say of themselves.
type (
	directory interface {
		List() []overlay.Node
		Changed() <-chan struct{}
	}
	roster interface {
		Members() []overlay.Member
		Changed() <-chan struct{}
		SetSeeds(map[string][]netip.AddrPort)
		Forget(name string)
	}
	registry interface {
		SetNodes([]overlay.Node) []overlay.Claim
		Changed() <-chan struct{}
	}
)

// ways is what the probes through the tunnel find out.
type ways interface {
	MTUs() map[string]int
	Remake() []string
	Changed() <-chan struct{}
}

// traffic says how to send to each node, and which keys are this node's own. What it says beside an error holds, too: it
// is of what is on disk.
type traffic interface {
	Step(context.Context, view) ([overlay.Lanes]overlay.Key, map[string]overlay.Path, error)
	Changed() <-chan struct{}
}

// mesher keeps the mesh device as overlay.Compute wants it. It waits for events of nodes, members and device, and
// applies differences.
type mesher struct {
	log    *slog.Logger
	local  overlay.Local
	gossip uint16 // port
	nodes  directory
	roster roster
	claims registry
	device device
	ways   ways
	lanes  traffic
	// network hears of the nodes before the device does: the guard knows a pod CIDR before packets can come from it.
	network func([]overlay.Node)
	moved   func() // told after each attempt

	differs time.Time // since when the Node object has had another claim of this node than its own; zero: it has not

	mu      sync.Mutex
	current meshState
}

// roundTime is how long a claim of this node may take to its Node object and back.
const roundTime = 30 * time.Second

// meshState is what the mesher tells about itself.
type meshState struct {
	Mesh     overlay.Mesh
	Up       bool // the device is as wanted
	Error    string
	Problems []overlay.Problem
}

// State says where the mesher stands.
func (m *mesher) State() meshState {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.current
}

// MTU is the packet size of pods' interfaces.
func (m *mesher) MTU() int { return m.State().Mesh.Lanes[0].MTU }

func (m *mesher) run(ctx context.Context) error {
	delay := time.Duration(0)
	var retry <-chan time.Time
	for {
		if err := m.reconcile(ctx); err != nil {
			delay = min(max(2*delay, firstRetry), lastRetry)
			retry = time.After(delay)
		} else {
			delay, retry = 0, nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-m.nodes.Changed():
		case <-m.roster.Changed():
		case <-m.claims.Changed():
		case <-m.device.Changed():
		case <-m.ways.Changed():
		case <-m.lanes.Changed():
		case <-retry:
		}
	}
}

func (m *mesher) reconcile(ctx context.Context) error {
	nodes, members := m.nodes.List(), m.roster.Members()
	claims := m.claims.SetNodes(nodes)
	m.network(nodes)
	m.follow(nodes, members)
	v := view{now: time.Now(), nodes: nodes, members: members, claims: claims}
	paths, unkept, err := m.look(ctx, &v)
	want, problems := overlay.Compute(m.local, nodes, claims, paths)
	problems = m.lasting(problems, v.now)
	if err == nil {
		err = errors.Join(m.apply(ctx, v.have, want, problems), unkept)
	}
	m.tell(want, problems, err)
	m.moved()
	return err
}

// look reads the device, and asks how to send to each node now. A disk that keeps nothing more does not keep the mesh as
// it was.
func (m *mesher) look(ctx context.Context, v *view) (paths map[string]overlay.Path, unkept, err error) {
	if v.have, err = m.device.Read(ctx); err != nil {
		return nil, nil, fmt.Errorf("read mesh device: %w", err)
	}
	m.local.Keys, paths, unkept = m.lanes.Step(ctx, *v)
	if unkept != nil {
		unkept = fmt.Errorf("decide on lanes: %w", unkept)
	}
	return paths, unkept, nil
}

// apply leaves the mesh alone while this node's own Node object is away: an established mesh stays as it is.
func (m *mesher) apply(ctx context.Context, have, want overlay.Mesh, problems []overlay.Problem) error {
	for _, p := range problems {
		if p.Kind == overlay.OwnNodeMissing {
			return nil
		}
	}
	plan := overlay.Diff(have, want.Within(m.ways.MTUs(), have.Routes))
	for _, node := range m.ways.Remake() {
		m.log.Warn("nothing comes back from a node that gossip calls alive: its peer is made anew", "node", node)
		plan.Steps = append(plan.Steps, want.Remake(node).Steps...)
	}
	if plan.Empty() {
		return nil
	}
	m.log.Debug("mesh changes", "plan", plan.String())
	if err := m.device.Apply(ctx, plan); err != nil {
		return fmt.Errorf("change mesh device: %w", err)
	}
	return nil
}

// lasting leaves out what each change of keys brings for a moment: this node's new claim is under way.
func (m *mesher) lasting(problems []overlay.Problem, now time.Time) []overlay.Problem {
	differs := func(p overlay.Problem) bool { return p.Kind == overlay.OwnKeyDiffers }
	switch {
	case !slices.ContainsFunc(problems, differs):
		m.differs = time.Time{}
	case m.differs.IsZero():
		m.differs = now
	}
	if now.Sub(m.differs) >= roundTime {
		return problems
	}
	return slices.DeleteFunc(problems, differs)
}

// follow makes the Node list the second source of gossip addresses, and forgets members without a Node.
func (m *mesher) follow(nodes []overlay.Node, members []overlay.Member) {
	known := map[string]bool{}
	seeds := map[string][]netip.AddrPort{}
	for _, n := range nodes {
		known[n.Name] = true
		if n.Name == m.local.Name {
			continue
		}
		for _, a := range n.Underlay() {
			seeds[n.Name] = append(seeds[n.Name], netip.AddrPortFrom(a, m.gossip))
		}
	}
	m.roster.SetSeeds(seeds)
	for _, member := range members {
		if !known[member.Name] && !member.Alive {
			m.roster.Forget(member.Name)
		}
	}
}

func (m *mesher) tell(want overlay.Mesh, problems []overlay.Problem, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	told := map[overlay.Problem]bool{}
	for _, p := range m.current.Problems {
		told[p] = true
	}
	for _, p := range problems {
		if !told[p] {
			m.log.Warn("mesh problem", "kind", p.Kind, "node", p.Node, "problem", p.Detail)
		}
	}
	before := m.current.Error
	m.current = meshState{Mesh: want, Problems: problems, Up: err == nil && len(want.Lanes[0].Addresses) > 0}
	if err != nil {
		m.current.Error = err.Error()
		if m.current.Error != before {
			m.log.Error("mesh not as wanted", "error", err)
		}
	}
}

// network is what the compiler needs to know of the nodes.
func network(self string, nodes []overlay.Node, noMasquerade []netip.Prefix) ruleset.Network {
	n := ruleset.Network{Node: self, NoMasquerade: noMasquerade}
	for _, node := range nodes {
		n.Nodes = append(n.Nodes, policy.Node{
			Name: node.Name, Labels: node.Labels, PodCIDRs: node.PodCIDRs,
			Addresses: node.Addresses, Mesh: overlay.MeshAddresses(node.PodCIDRs),
		})
	}
	return n
}
