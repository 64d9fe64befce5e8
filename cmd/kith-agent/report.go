package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"sync"

	"github.com/kithnet/kith/cmd/kith/status"
	"github.com/kithnet/kith/overlay"
	"github.com/kithnet/kith/overlay/gossip"
	"github.com/kithnet/kith/overlay/wireguard"
	"github.com/kithnet/kith/policy"
	policykube "github.com/kithnet/kith/policy/kube"
	"github.com/kithnet/kith/policy/ruleset"
)

// waitsFor says why this node does not enforce and serve yet; empty: it does.
func (a *agent) waitsFor() []string {
	var reasons []string
	if e := a.enforcer.Enforcement(); !e.Enforcing {
		reason := "policy is not in the kernel: waits for the API server's lists of nodes, namespaces, pods and policies"
		if e.Apply.Error != "" {
			reason = "policy is not in the kernel: " + e.Apply.Error
		}
		reasons = append(reasons, reason)
	}
	select {
	case <-a.meshed:
		if m := a.mesher.State(); !m.Up {
			reasons = append(reasons, "mesh is not up: "+cmp.Or(m.Error, a.refusedCIDR(), "waits for this node's pod CIDR (does the controller manager allocate node CIDRs?)"))
		}
	default:
		waits := "waits for this node's address and the gossip key"
		if o := a.obstacle.Load(); o != nil && *o != nil {
			waits = (*o).Error()
		}
		reasons = append(reasons, "mesh is not up: "+waits)
	}
	return reasons
}

// refusedCIDR says why this node was refused a pod CIDR, if it was.
func (a *agent) refusedCIDR() string {
	for _, p := range a.known.Grants().Problems {
		if p.Node == a.node && p.Kind != overlay.AddressRefused {
			return p.Detail
		}
	}
	return ""
}

func (a *agent) statusHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(a.report(r.Context())); err != nil {
			a.log.Debug("status not sent", "error", err)
		}
	})
}

func (a *agent) report(ctx context.Context) status.Report {
	e := a.enforcer.Enforcement()
	r := status.Report{
		Node: a.node, Version: version, Started: a.started, Reasons: a.waitsFor(),
		Identities: e.Counts.Identities, Policies: e.Counts.Policies, Subjects: e.Counts.Subjects, Attachments: e.Counts.Attachments,
		Apply: e.Apply, Problems: a.problems.list(),
	}
	r.Ready = len(r.Reasons) == 0
	for _, p := range a.known.Grants().Problems {
		r.Problems = append(r.Problems, p.String())
	}
	r.Problems = append(r.Problems, a.screen.Problems()...)
	r.Problems = append(r.Problems, a.keeper.Problems()...)
	r.Problems = append(r.Problems, a.learner.passed.Problems()...)
	r.Problems = append(r.Problems, a.order.Problems()...)
	r.Problems = append(r.Problems, a.firewalls.Problems()...)
	r.Problems = append(r.Problems, a.upkeep.Problems()...)
	a.reportTrust(&r)
	r.Device = status.Device{
		Name: ruleset.Devices[0], Kind: string(a.device.Kind()), Port: int(a.cfg.WireGuard.Port), PublicKey: a.public()[0].String(),
	}
	select {
	case <-a.meshed:
		a.reportMesh(ctx, &r)
	default:
	}
	return r
}

// reportTrust says what this node's word rests on, and whose it did not take.
func (a *agent) reportTrust(r *status.Report) {
	said, _ := a.speaker.Said()
	r.Claim = status.Claim{SigningKey: a.speaker.signer.Public().String(), Epoch: said.Epoch}
	for _, refused := range a.notary.Refused() {
		r.Refused = append(r.Refused, status.Refused{Node: refused.Node, Cause: string(refused.Cause), Count: refused.Count})
		if !refused.Cause.Stale() {
			r.Problems = append(r.Problems, fmt.Sprintf("%d claims of %s refused: %s", refused.Count, cmp.Or(refused.Node, "unknown nodes"), refused.Cause))
		}
	}
	r.Problems = append(r.Problems, a.notary.Problems()...)
	if keys, err := a.secret.Keys(); err == nil {
		r.Gossip.Keys = fingerprints(keys)
	}
	if problem := a.secret.Problem(); problem != "" {
		r.Problems = append(r.Problems, problem)
	}
	r.Problems = append(r.Problems, a.admission.Problems()...)
}

func (a *agent) reportMesh(ctx context.Context, r *status.Report) {
	m := a.mesher.State()
	r.Device.MTU = m.Mesh.Lanes[0].MTU
	r.Gossip.Strangers = a.gossip.Strangers()
	r.Gossip.Unheard = unheard(a.known.List(), a.gossip.Unheard())
	for _, u := range r.Gossip.Unheard {
		if u.Node != "" {
			r.Problems = append(r.Problems, fmt.Sprintf("%d packets or streams of %s dropped unread: %s", u.Count, u.Node, u.Cause))
		}
	}
	for _, p := range m.Problems {
		r.Problems = append(r.Problems, p.String())
	}
	slices.Sort(r.Problems)
	r.Members = members(a.known.List(), a.gossip.Members())
	statuses, err := a.device.Peers(ctx)
	if err != nil {
		r.Problems = append(r.Problems, err.Error())
	}
	lanes := a.lanes.State()
	r.Keys = status.Keys{
		Generation: lanes.Generation, Settled: lanes.Settled, Rotated: lanes.Rotated, Next: lanes.Next, WaitsFor: lanes.HeldBy,
	}
	r.Peers = peers(m.Mesh, statuses, lanes.Peers)
	for _, p := range a.prober.Paths() {
		r.Ways = append(r.Ways, status.Way{
			Node: p.Node, RoundTrip: p.RoundTrip, Loss: p.Loss, MTU: p.MTU, SilentSince: p.Silent, PeerRemade: p.Remade,
		})
	}
}

// peers is one entry for each node, by name.
func peers(mesh overlay.Mesh, statuses []wireguard.PeerStatus, lanes map[string]peerState) []status.Peer {
	byKey := make(map[overlay.Key]wireguard.PeerStatus, len(statuses))
	for _, s := range statuses {
		byKey[s.Key] = s
	}
	var out []status.Peer
	for i, p := range mesh.Lanes[0].Peers {
		state := lanes[p.Name]
		both := [overlay.Lanes]wireguard.PeerStatus{byKey[p.Key], byKey[mesh.Lanes[1].Peers[i].Key]}
		at := both[state.Lane]
		out = append(out, status.Peer{
			Node: p.Name, Lane: state.Lane, PresharedKey: string(state.Secret[state.Lane]),
			PublicKey: at.Key.String(), Endpoint: at.Endpoint, AllowedIPs: at.AllowedIPs, LastHandshake: at.LastHandshake,
			RxBytes: both[0].ReceivedBytes + both[1].ReceivedBytes, TxBytes: both[0].SentBytes + both[1].SentBytes,
		})
	}
	return out
}

// rotateHandler takes the wish for new keys in the whole mesh.
func (a *agent) rotateHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		select {
		case <-a.meshed:
		default:
			http.Error(w, "this node has not joined the mesh yet", http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(status.Rotation{Generation: a.lanes.Rotate()}); err != nil {
			a.log.Debug("answer not sent", "error", err)
		}
	})
}

// members lists every Node with what gossip says of it, and every member that has no Node.
func members(nodes []overlay.Node, seen []overlay.Member) []status.Member {
	all := map[string]status.Member{}
	for _, n := range nodes {
		m := status.Member{Node: n.Name, State: status.Unknown}
		if len(n.InternalIPs) > 0 {
			m.Address = n.InternalIPs[0]
		}
		all[n.Name] = m
	}
	for _, s := range seen {
		m := status.Member{Node: s.Name, State: status.Dead, Address: all[s.Name].Address}
		if s.Alive {
			m.State = status.Alive
		}
		if s.Address.IsValid() {
			m.Address = s.Address.Addr()
		}
		all[s.Name] = m
	}
	out := make([]status.Member, 0, len(all))
	for _, m := range all {
		out = append(out, m)
	}
	slices.SortFunc(out, func(x, y status.Member) int { return cmp.Compare(x.Node, y.Node) })
	return out
}

// unheard names the nodes whose addresses something was dropped from.
func unheard(nodes []overlay.Node, dropped []gossip.Unheard) []status.Unheard {
	names := map[netip.Addr]string{}
	for _, n := range nodes {
		for _, a := range n.InternalIPs {
			names[a] = n.Name
		}
	}
	counts := map[status.Unheard]uint64{} // without a count
	for _, u := range dropped {
		counts[status.Unheard{Node: names[u.From], Cause: string(u.Cause)}] += u.Count
	}
	var out []status.Unheard
	for u, n := range counts {
		u.Count = n
		out = append(out, u)
	}
	slices.SortFunc(out, func(x, y status.Unheard) int {
		return cmp.Or(cmp.Compare(x.Node, y.Node), cmp.Compare(x.Cause, y.Cause))
	})
	return out
}

// policyProblems is what could not be understood in policies.
type policyProblems struct {
	mu  sync.Mutex
	all map[policy.Name][]policykube.Problem
}

// replace says what is wrong with a policy now, and returns what was not wrong before.
func (p *policyProblems) replace(name policy.Name, problems []policykube.Problem) []policykube.Problem {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := make(map[policykube.Problem]bool, len(p.all[name]))
	for _, q := range p.all[name] {
		before[q] = true
	}
	if p.all == nil {
		p.all = map[policy.Name][]policykube.Problem{}
	}
	delete(p.all, name)
	if len(problems) > 0 {
		p.all[name] = problems
	}
	return slices.DeleteFunc(slices.Clone(problems), func(q policykube.Problem) bool { return before[q] })
}

func (p *policyProblems) list() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []string
	for _, problems := range p.all {
		for _, q := range problems {
			out = append(out, q.Error())
		}
	}
	slices.Sort(out)
	return out
}
