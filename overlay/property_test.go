package overlay

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// randomNodes draws a small cluster in which claims collide often.
func randomNodes(r *rand.Rand) ([]Node, []Claim) {
	var nodes []Node
	var claims []Claim
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		if r.IntN(5) == 0 {
			continue
		}
		n := Node{Name: name, Created: time.Unix(int64(r.IntN(3)), 0), InternalIPs: addrs(fmt.Sprintf("172.18.0.%d", r.IntN(9)+1))}
		for range r.IntN(4) {
			n.Requested = append(n.Requested, netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/%d", r.IntN(6), 22+r.IntN(3))).Masked())
		}
		if r.IntN(3) > 0 {
			n.Requested = append(n.Requested, netip.MustParsePrefix(fmt.Sprintf("fd00:0:0:%d::/64", r.IntN(6))))
		}
		nodes = append(nodes, n)
		if r.IntN(6) > 0 {
			c := Claim{Node: name, Keys: keys(byte('a' + r.IntN(6)))}
			if r.IntN(2) == 0 {
				c.Endpoints = endpoints("9.9.9.9:9")
			}
			claims = append(claims, c)
		}
	}
	return Grant(Bounds{Self: "a"}, nodes, nil).Nodes, claims
}

func randomPaths(r *rand.Rand) map[string]Path {
	paths := map[string]Path{}
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		paths[name] = Path{Lane: r.IntN(Lanes), Preshared: [Lanes]Preshared{{byte(r.IntN(2))}, {byte(r.IntN(2))}}}
	}
	return paths
}

func TestOrderOfInputDoesNotMatter(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		nodes, claims := randomNodes(r)
		paths := randomPaths(r)
		want, problems := Compute(local(), nodes, claims, paths)
		for range 5 {
			r.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
			r.Shuffle(len(claims), func(i, j int) { claims[i], claims[j] = claims[j], claims[i] })
			got, again := Compute(local(), nodes, claims, paths)
			if diff := diffMesh(want, got); diff != "" || !slices.Equal(problems, again) {
				t.Fatalf("shuffled input changes the mesh: %s\nproblems %v\nand %v", diff, problems, again)
			}
			if plan := Diff(want, got); !plan.Empty() {
				t.Fatalf("resync makes a plan:\n%s", plan)
			}
		}
	}
}

func TestNobodyHoldsAnothersAddress(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		nodes, claims := randomNodes(r)
		m, _ := Compute(local(), nodes, claims, randomPaths(r))
		held := slices.Clone(m.Unreachable)
		for lane := range m.Lanes {
			held := held
			for _, p := range m.Lanes[lane].Peers {
				for _, cidr := range p.AllowedIPs {
					if i := slices.IndexFunc(held, cidr.Overlaps); i >= 0 {
						t.Fatalf("lane %d: %s of %s overlaps %s", lane, cidr, p.Name, held[i])
					}
					held = append(held, cidr)
				}
			}
		}
	}
}

// TestPlanLeadsToTheWantedMesh takes plans on a model of the kernel and watches what passes on the way.
func TestPlanLeadsToTheWantedMesh(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 1000 {
		nodes, claims := randomNodes(r)
		have, _ := Compute(local(), nodes, claims, randomPaths(r))
		nodes, claims = randomNodes(r)
		want, _ := Compute(local(), nodes, claims, randomPaths(r))
		if r.IntN(4) == 0 {
			have = Mesh{Unreachable: have.Unreachable}
		}
		k := newKernel(have)
		plan := Diff(have, want)
		for _, step := range plan.Steps {
			k.take(t, step)
			k.mustHold(t, have, want, plan)
		}
		if left := Diff(k.read(), want); !left.Empty() {
			t.Fatalf("after\n%s\nthere is left\n%s", plan, left)
		}
		// What Diff does not see, it leaves: the secrets are compared without it.
		if got := secrets(k.read()); !maps.Equal(got, secrets(want)) {
			t.Fatalf("after\n%s\npreshared keys %v, want %v", plan, got, secrets(want))
		}
	}
}

// secrets are all preshared keys, by their peers.
func secrets(m Mesh) map[string]byte {
	out := map[string]byte{}
	for i, lane := range m.Lanes {
		for _, p := range lane.Peers {
			out[fmt.Sprint(i, p.Key)] = p.Preshared[0]
		}
	}
	return out
}

// kernel is what WireGuard and the routing table do with the steps.
type kernel struct {
	mesh  Mesh
	lanes [Lanes]kernelLane
}

type kernelLane struct {
	allowed map[netip.Prefix]Key
	peers   map[Key]Peer
}

func newKernel(m Mesh) *kernel {
	k := &kernel{mesh: m}
	for i, lane := range m.Lanes {
		k.lanes[i] = kernelLane{allowed: make(map[netip.Prefix]Key), peers: make(map[Key]Peer)}
		for _, p := range lane.Peers {
			k.lanes[i].peers[p.Key] = p
			for _, cidr := range p.AllowedIPs {
				k.lanes[i].allowed[cidr] = p.Key
			}
		}
		k.mesh.Lanes[i].Addresses = slices.Clone(lane.Addresses)
	}
	k.mesh.Routes, k.mesh.Unreachable = slices.Clone(m.Routes), slices.Clone(m.Unreachable)
	return k
}

func (k *kernel) take(t *testing.T, step Step) {
	t.Helper()
	switch s := step.(type) {
	case SetPeer:
		lane := k.lanes[s.Lane]
		p, exists := lane.peers[s.Key]
		if exists == s.New {
			t.Fatalf("%s: exists is %t", s, exists)
		}
		p.Key = s.Key
		if s.New {
			p.Preshared = s.Preshared
		} else if !s.Preshared.IsZero() {
			t.Fatalf("%s: a session without it stays", s)
		}
		if s.Endpoint.IsValid() {
			p.Endpoint = s.Endpoint
		}
		if s.Keepalive != nil {
			p.Keepalive = *s.Keepalive
		}
		lane.peers[s.Key] = p
		for _, cidr := range s.Allow {
			lane.allowed[cidr] = s.Key
		}
	case DropAllowed:
		for _, cidr := range s.CIDRs {
			delete(k.lanes[s.Lane].allowed, cidr)
		}
	case RemovePeer:
		delete(k.lanes[s.Lane].peers, s.Key)
		for cidr, holder := range k.lanes[s.Lane].allowed {
			if holder == s.Key {
				delete(k.lanes[s.Lane].allowed, cidr)
			}
		}
	default:
		k.takeLink(t, step)
	}
}

func (k *kernel) takeLink(t *testing.T, step Step) {
	t.Helper()
	m := &k.mesh
	switch s := step.(type) {
	case CreateDevice:
		m.Lanes[s.Lane].Device = local().Devices[s.Lane]
	case SetKey:
		if len(k.lanes[s.Lane].peers) > 0 {
			t.Fatalf("%s: peers keep their handshakes", s)
		}
		m.Lanes[s.Lane].Key = s.Key
	case SetPort:
		m.Lanes[s.Lane].ListenPort = s.Port
	case SetMTU:
		m.Lanes[s.Lane].MTU = s.MTU
	case SetUp:
		m.Lanes[s.Lane].Up = true
	case AddAddress:
		m.Lanes[s.Lane].Addresses = append(m.Lanes[s.Lane].Addresses, s.Addr)
	case RemoveAddress:
		m.Lanes[s.Lane].Addresses = slices.DeleteFunc(m.Lanes[s.Lane].Addresses, func(a netip.Addr) bool { return a == s.Addr })
	case SetRoute:
		k.clear(s.Route.CIDR)
		m.Routes = append(m.Routes, s.Route)
	case AddUnreachable:
		k.clear(s.CIDR)
		m.Unreachable = append(m.Unreachable, s.CIDR)
	case RemoveRoute:
		m.Routes = slices.DeleteFunc(m.Routes, func(r Route) bool { return r.CIDR == s.CIDR && r.Lane == s.Lane })
	case RemoveUnreachable:
		k.clear(s.CIDR)
	default:
		t.Fatalf("unknown step %T", step)
	}
}

func (k *kernel) clear(cidr netip.Prefix) {
	k.mesh.Routes = slices.DeleteFunc(k.mesh.Routes, func(r Route) bool { return r.CIDR == cidr })
	k.mesh.Unreachable = slices.DeleteFunc(k.mesh.Unreachable, func(p netip.Prefix) bool { return p == cidr })
}

func (k *kernel) read() Mesh {
	m := k.mesh
	for i, lane := range k.lanes {
		m.Lanes[i].Peers = nil
		for _, p := range lane.peers {
			p.AllowedIPs = nil
			for cidr, holder := range lane.allowed {
				if holder == p.Key {
					p.AllowedIPs = append(p.AllowedIPs, cidr)
				}
			}
			m.Lanes[i].Peers = append(m.Lanes[i].Peers, p)
		}
	}
	m.Sort()
	return m
}

// mustHold checks between two steps: what is allowed before and after is allowed meanwhile, and what is routed
// (into a device or nowhere) before and after stays so.
func (k *kernel) mustHold(t *testing.T, have, want Mesh, plan Plan) {
	t.Helper()
	both := func(a, b []netip.Prefix) (out []netip.Prefix) {
		for _, p := range a {
			if slices.Contains(b, p) {
				out = append(out, p)
			}
		}
		return out
	}
	for i, lane := range k.lanes {
		for _, cidr := range both(allowedIn(have.Lanes[i]), allowedIn(want.Lanes[i])) {
			if _, ok := lane.allowed[cidr]; !ok && !resets(have.Lanes[i], want.Lanes[i], cidr) {
				t.Fatalf("%s is allowed to nobody on lane %d on the way of\n%s", cidr, i, plan)
			}
		}
	}
	now := slices.Concat(cidrs(k.mesh.Routes), k.mesh.Unreachable)
	closed := func(m Mesh) []netip.Prefix { return slices.Concat(cidrs(m.Routes), m.Unreachable) }
	for _, cidr := range both(closed(have), closed(want)) {
		if !slices.Contains(now, cidr) {
			t.Fatalf("%s is open on the way of\n%s", cidr, plan)
		}
	}
}

// resets says that the peer which has the CIDR is made anew for another preshared key: nobody sends to it on that lane.
func resets(have, want Lane, cidr netip.Prefix) bool {
	for _, p := range have.Peers {
		for _, q := range want.Peers {
			if p.Key == q.Key && p.Preshared != q.Preshared && slices.Contains(p.AllowedIPs, cidr) {
				return true
			}
		}
	}
	return false
}

func allowedIn(l Lane) (out []netip.Prefix) {
	for _, p := range l.Peers {
		out = append(out, p.AllowedIPs...)
	}
	return out
}

func BenchmarkComputeAndDiff(b *testing.B) {
	var nodes []Node
	var claims []Claim
	for i := range 1000 {
		var k Key
		k[0], k[1], k[2] = byte(i), byte(i>>8), 1
		nodes = append(nodes, Node{
			Name:        fmt.Sprintf("n%d", i),
			PodCIDRs:    prefixes(fmt.Sprintf("10.%d.%d.0/24", i>>8, i&255)),
			InternalIPs: addrs(fmt.Sprintf("172.18.%d.%d", i>>8, i&255)),
		})
		claims = append(claims, Claim{Node: nodes[i].Name, Keys: [Lanes]Key{k, {31: 1, 0: k[0], 1: k[1]}}})
	}
	have, _ := Compute(local(), nodes, claims, nil)
	for b.Loop() {
		want, _ := Compute(local(), nodes, claims, nil)
		if plan := Diff(have, want); !plan.Empty() {
			b.Fatal(plan)
		}
	}
}
