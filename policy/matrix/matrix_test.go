package matrix_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
	"github.com/kithnet/kith/policy/matrix"
	"github.com/kithnet/kith/policy/random"
)

// oddities are what a cluster may have for a moment, and what random ones lack.
func oddities(r *rand.Rand, c *policy.Cluster) {
	for i := range c.Policies {
		tier(r, &c.Policies[i])
	}
	some := func() *identity.Pod { return &c.Pods[r.IntN(len(c.Pods))] }
	switch r.IntN(8) {
	case 0:
		some().Addresses = append(some().Addresses, c.Nodes[0].Mesh...)
	case 1:
		some().Addresses = append(some().Addresses, c.Nodes[1].Addresses[0])
	case 2:
		some().Namespace = "unknown"
	case 3:
		c.Nodes[1].Mesh = c.Nodes[0].Mesh
	case 4:
		c.Nodes[1].PodCIDRs = c.Nodes[0].PodCIDRs
	}
}

// tier makes a ClusterNetworkPolicy of some of the NetworkPolicies.
func tier(r *rand.Rand, p *policy.Policy) {
	if p.Tier != policy.NetworkPolicy || r.IntN(2) == 0 {
		return
	}
	p.Tier, p.Priority = policy.Tier(1+r.IntN(2)), r.Int32N(3)
	p.Namespace, p.Namespaces = "", labels.Everything()
	for _, rules := range []*policy.Rules{p.Ingress, p.Egress} {
		if rules == nil {
			continue
		}
		for i := range *rules {
			rule := &(*rules)[i]
			rule.Action, rule.Name = policy.Action(r.IntN(3)), "rule"
			if r.IntN(4) == 0 {
				rule.Peers = append(rule.Peers, policy.Peer{Nodes: labels.Everything()})
			}
		}
	}
}

// ends are all addresses of a cluster, and some outside of it.
func ends(c policy.Cluster) []matrix.End {
	var out []matrix.End
	for _, p := range c.Pods {
		out = append(out, matrix.End{Name: p.Key().String(), Namespace: p.Namespace, Labels: p.Labels, Addresses: p.Addresses})
	}
	address := func(all ...netip.Addr) {
		for _, a := range all {
			out = append(out, matrix.End{Name: a.String(), Addresses: []netip.Addr{a}})
		}
	}
	for _, n := range c.Nodes {
		address(n.Addresses...)
		address(n.Mesh...)
	}
	address(netip.MustParseAddr("203.0.113.7"), netip.MustParseAddr("203.0.113.130"), netip.MustParseAddr("10.244.1.24"), netip.MustParseAddr("2001:db8::7"))
	return out
}

// TestMatrixIsDecide: every cell of random clusters is what Decide says about its flow, to the word.
func TestMatrixIsDecide(t *testing.T) {
	ports := []matrix.Port{{Protocol: identity.TCP, Number: 80}, {Protocol: identity.UDP, Number: 53}, {Protocol: 1}}
	cells, twice, hairpins := 0, 0, 0
	for seed := range uint64(60) {
		r := random.New(seed)
		c := random.Cluster(r)
		c.Answers = nil
		oddities(r, &c)
		all := ends(c)
		m := matrix.New(c)
		for cell := range m.Cells(all, all, ports) {
			cells++
			if cell.Family != "" {
				twice++
			}
			if other, ok := m.Hairpin(cell); ok {
				hairpins++
				if want := policy.Decide(c, other.Flow); !other.Flow.Hairpin || other.Verdict() != want || other.Allowed == cell.Allowed {
					t.Fatalf("seed %d, %s by a Service (-Decide +matrix):\n%s", seed, cell.From.Name, cmp.Diff(want, other.Verdict()))
				}
			}
			want := policy.Decide(c, cell.Flow)
			if got := cell.Verdict(); got != want || cell.Allowed != want.Allowed {
				t.Fatalf("seed %d, %s to %s, %v (-Decide +matrix):\n%s", seed, cell.From.Name, cell.To.Name, cell.Flow, cmp.Diff(want, got))
			}
		}
	}
	if cells < 10_000 || twice == 0 || hairpins == 0 {
		t.Errorf("%d cells, %d of two families, %d by a Service: too few", cells, twice, hairpins)
	}
}

// TestTwin: an end that stands for several pods is asked about with another of them, to itself only.
func TestTwin(t *testing.T) {
	addr := netip.MustParseAddr
	web := matrix.End{Name: "a/web", Namespace: "a", Addresses: []netip.Addr{addr("10.0.0.1"), addr("fd00::1")}, Twin: []netip.Addr{addr("10.0.0.2"), addr("fd00::2")}}
	db := matrix.End{Name: "a/db", Namespace: "a", Addresses: []netip.Addr{addr("10.0.0.3")}}
	c := policy.Cluster{
		Namespaces: []identity.Namespace{{Name: "a"}},
		Pods: []identity.Pod{
			{Namespace: "a", Name: "web", Addresses: web.Addresses}, {Namespace: "a", Name: "web (another)", Addresses: web.Twin}, {Namespace: "a", Name: "db", Addresses: db.Addresses},
		},
		Policies: []policy.Policy{{Namespace: "a", Name: "deny", Subject: labels.Everything(), Ingress: &policy.Rules{}}},
	}
	one, other := web, web
	one.Twin, other.Addresses, other.Twin = nil, web.Twin, nil
	for _, tt := range []struct {
		from, to matrix.End
		flow     string
		allowed  bool
	}{
		{web, web, "10.0.0.1 10.0.0.2", false}, {web, db, "10.0.0.1 10.0.0.3", false}, {db, web, "10.0.0.3 10.0.0.1", false}, {db, db, "10.0.0.3 10.0.0.3", true},
		{one, web, "10.0.0.1 10.0.0.2", false}, {web, one, "10.0.0.2 10.0.0.1", false}, {one, one, "10.0.0.1 10.0.0.1", true}, {other, web, "10.0.0.2 10.0.0.1", false},
	} {
		cells := matrix.New(c).Between(&tt.from, &tt.to, matrix.Port{Protocol: identity.TCP, Number: 80})
		if flow := fmt.Sprint(cells[0].Flow.Source, " ", cells[0].Flow.Destination); len(cells) != 1 || flow != tt.flow || cells[0].Allowed != tt.allowed {
			t.Errorf("%s to %s: %s %v, want %s %v", tt.from.Name, tt.to.Name, flow, cells[0].Allowed, tt.flow, tt.allowed)
		}
	}
}

// TestGroupsAreAlike: all members of a group reach, and are reached by, the same.
func TestGroupsAreAlike(t *testing.T) {
	port := matrix.Port{Protocol: identity.TCP, Number: 80}
	grouped := 0
	for seed := range uint64(100) {
		r := random.New(seed)
		c := random.Replicated(r)
		m, all := matrix.New(c), ends(c)
		for _, others := range [][]matrix.End{all, all[:len(c.Pods)]} {
			for _, g := range m.Groups(all, others) {
				for i := range g.Ends[1:] {
					grouped++
					alike(t, m, [2]*matrix.End{&g.Ends[0], &g.Ends[i+1]}, others, port)
				}
			}
		}
	}
	if grouped == 0 {
		t.Error("nothing was grouped")
	}
}

func alike(t *testing.T, m *matrix.Matrix, pair [2]*matrix.End, others []matrix.End, port matrix.Port) {
	t.Helper()
	for i := range others {
		other := &others[i]
		if samePod(m, other, pair[0]) || samePod(m, other, pair[1]) {
			continue
		}
		for _, way := range []func(e *matrix.End) []matrix.Cell{
			func(e *matrix.End) []matrix.Cell { return m.Between(e, other, port) },
			func(e *matrix.End) []matrix.Cell { return m.Between(other, e, port) },
		} {
			a, b := way(pair[0]), way(pair[1])
			if !slices.EqualFunc(a, b, func(a, b matrix.Cell) bool { return a.Allowed == b.Allowed && a.Family == b.Family }) {
				t.Fatalf("%s and %s differ towards %s", pair[0].Name, pair[1].Name, other.Name)
			}
		}
	}
}

// samePod: through whichever of their addresses.
func samePod(m *matrix.Matrix, a, b *matrix.End) bool {
	for _, x := range a.Addresses {
		for _, y := range b.Addresses {
			p, isPod := m.Owner(x)
			if q, _ := m.Owner(y); x == y || isPod && p == q {
				return true
			}
		}
	}
	return false
}

func TestGroupNames(t *testing.T) {
	end := func(namespace, name, app string, i int) matrix.End {
		return matrix.End{Name: namespace + "/" + name, Namespace: namespace, Labels: map[string]string{"app": app}, Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})}}
	}
	all := []matrix.End{end("a", "web-1", "web", 1), end("a", "web-2", "web", 2), end("a", "db", "db", 3), end("b", "web-1", "web", 4), end("b", "x", "web", 5)}
	var c policy.Cluster
	for _, e := range all {
		c.Pods = append(c.Pods, identity.Pod{Namespace: e.Namespace, Name: e.Name[2:], Labels: e.Labels, Addresses: e.Addresses})
	}
	c.Namespaces = []identity.Namespace{{Name: "a"}, {Name: "b"}}
	var got []string
	for _, g := range matrix.New(c).Groups(all, all) {
		got = append(got, fmt.Sprint(g.Name, len(g.Ends)))
	}
	if diff := cmp.Diff([]string{"a/web-*2", "a/db1", "b/*2"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestPorts(t *testing.T) {
	tcp := func(first, last uint16) policy.Port {
		return policy.Port{Protocol: identity.TCP, First: first, Last: last}
	}
	c := policy.Cluster{
		Pods: []identity.Pod{{Ports: []identity.NamedPort{{Name: "dns", Protocol: identity.UDP, Number: 5353}, {Name: "dns", Protocol: identity.TCP, Number: 1}}}},
		Policies: []policy.Policy{
			{Ingress: &policy.Rules{{Ports: []policy.Port{tcp(80, 80), tcp(0, 65535), {Protocol: identity.UDP, Name: "dns"}}}}},
			{Egress: &policy.Rules{{Ports: []policy.Port{tcp(80, 90), tcp(53, 53)}}}},
		},
	}
	if got := fmt.Sprint(matrix.Ports(c)); got != "[53/TCP 80/TCP 5353/UDP]" {
		t.Error(got)
	}
}

func TestParsePort(t *testing.T) {
	for in, want := range map[string]string{"80": "80/TCP", " 53/udp": "53/UDP", "9/SCTP": "9/SCTP", "0": "", "65536": "", "x": "", "80/": "", "80/ICMP": "", "": ""} {
		p, err := matrix.ParsePort(in)
		if (err != nil) != (want == "") || err == nil && p.String() != want {
			t.Errorf("%q: %v, %v, want %q", in, p, err, want)
		}
	}
}

// big is a cluster as large as they are checked: ten thousand pods of five hundred kinds, a thousand policies.
func big(t testing.TB) (policy.Cluster, []matrix.End) {
	t.Helper()
	selector := func(app int) labels.Selector {
		return labels.SelectorFromSet(labels.Set{"app": fmt.Sprint("app", app)})
	}
	var c policy.Cluster
	for i := range 50 {
		c.Namespaces = append(c.Namespaces, identity.Namespace{Name: fmt.Sprint("ns", i), Labels: map[string]string{"team": fmt.Sprint(i % 7)}})
	}
	for i := range 10_000 {
		c.Pods = append(c.Pods, identity.Pod{
			Namespace: fmt.Sprint("ns", i%50), Name: fmt.Sprint("pod", i), UID: fmt.Sprint(i), Created: time.Unix(int64(i), 0),
			Labels: map[string]string{"app": fmt.Sprint("app", i/50%10)}, Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 244, byte(i >> 8), byte(i)})},
		})
	}
	for i := range 1_000 {
		c.Policies = append(c.Policies, policy.Policy{
			Namespace: fmt.Sprint("ns", i%50), Name: fmt.Sprint("p", i), Subject: selector(i / 50 % 10),
			Ingress: &policy.Rules{{Peers: []policy.Peer{{Namespaces: labels.Everything(), Pods: selector(i % 10)}}, AllPorts: true}},
		})
	}
	return c, ends(c)[:10_000]
}

// BenchmarkMatrix: ten thousand pods against the two hundred of a namespace.
func BenchmarkMatrix(b *testing.B) {
	c, all := big(b)
	to := slices.DeleteFunc(slices.Clone(all), func(e matrix.End) bool { return e.Namespace != "ns7" })
	port := []matrix.Port{{Protocol: identity.TCP, Number: 80}}
	for b.Loop() {
		n := 0
		for range matrix.New(c).Cells(all, to, port) {
			n++
		}
		b.ReportMetric(float64(n), "cells")
	}
}
