package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"

	"github.com/kithnet/kith/cmd/kith/manifest"
	"github.com/kithnet/kith/overlay"
	overlaykube "github.com/kithnet/kith/overlay/kube"
	"github.com/kithnet/kith/policy"
	"github.com/kithnet/kith/policy/ruleset"
)

// fakeUnderlay stands for the API server's nodes, gossip's members and the kernel's device.
type fakeUnderlay struct {
	mu                         sync.Mutex
	nodes                      []overlay.Node
	members                    []overlay.Member
	plans                      []string
	seeds                      map[string][]netip.AddrPort
	forgotten                  []string
	mtus                       map[string]int
	stuck                      []string
	have                       overlay.Mesh
	nodeEvent, member, touched chan struct{}
	spoken                     chan struct{}
	unkept                     error // of the lanes
}

func newFakeUnderlay() *fakeUnderlay {
	return &fakeUnderlay{nodeEvent: make(chan struct{}, 1), member: make(chan struct{}, 1), touched: make(chan struct{}, 1)}
}

type (
	fakeDirectory struct{ *fakeUnderlay }
	fakeRoster    struct{ *fakeUnderlay }
	fakeRegistry  struct{ *fakeUnderlay }
	fakeDevice    struct{ *fakeUnderlay }
	fakeLanes     struct{ *fakeUnderlay }
	fakeWays      struct{ *fakeUnderlay }
)

func (f fakeDirectory) List() []overlay.Node {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.nodes)
}
func (f fakeDirectory) Changed() <-chan struct{} { return f.nodeEvent }
func (f fakeRoster) Members() []overlay.Member {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.members)
}
func (f fakeRoster) Changed() <-chan struct{} { return f.member }
func (f fakeRoster) SetSeeds(seeds map[string][]netip.AddrPort) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seeds = seeds
}
func (f fakeRoster) Forget(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forgotten = append(f.forgotten, name)
}
func (f fakeRegistry) Changed() <-chan struct{} { return f.spoken }

// SetNodes returns a claim of every node, with its number as the key.
func (f fakeRegistry) SetNodes(nodes []overlay.Node) (out []overlay.Claim) {
	for _, n := range nodes {
		out = append(out, overlay.Claim{Node: n.Name, Keys: [overlay.Lanes]overlay.Key{{n.Name[1] - '0'}, {n.Name[1] - '0' + 10}}})
	}
	return out
}
func (f fakeDevice) Changed() <-chan struct{}                   { return f.touched }
func (f fakeDevice) Read(context.Context) (overlay.Mesh, error) { return f.have, nil }
func (f fakeWays) MTUs() map[string]int                         { return f.mtus }
func (f fakeWays) Changed() <-chan struct{}                     { return nil }
func (f fakeWays) Remake() []string                             { return f.stuck }
func (f fakeDevice) Apply(_ context.Context, p overlay.Plan) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.plans = append(f.plans, p.String())
	return nil
}

var (
	testKeys  = [overlay.Lanes]overlay.Key{{1}, {11}}
	testNodes = []overlay.Node{
		{Name: "n1", PodCIDRs: prefixes("10.244.1.0/24", "fd00:1::/64"), InternalIPs: addrs("192.0.2.1"), Addresses: addrs("192.0.2.1")},
		{Name: "n2", PodCIDRs: prefixes("10.244.2.0/24"), InternalIPs: addrs("192.0.2.2"), Addresses: addrs("192.0.2.2")},
	}
)

func prefixes(all ...string) (out []netip.Prefix) {
	for _, s := range all {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func addrs(all ...string) (out []netip.Addr) {
	for _, s := range all {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func (f fakeLanes) Step(context.Context, view) ([overlay.Lanes]overlay.Key, map[string]overlay.Path, error) {
	return testKeys, nil, f.unkept
}
func (fakeLanes) Changed() <-chan struct{} { return nil }

func testMesher(f *fakeUnderlay) *mesher {
	return &mesher{
		log: slog.New(slog.DiscardHandler), gossip: 7946,
		local: overlay.Local{Name: "n1", Keys: testKeys, Devices: ruleset.Devices, ListenPort: 51820, UnderlayMTU: 1500},
		nodes: fakeDirectory{f}, roster: fakeRoster{f}, claims: fakeRegistry{f}, device: fakeDevice{f}, ways: fakeWays{f}, lanes: fakeLanes{f},
		network: func([]overlay.Node) {}, moved: func() {},
	}
}

// TestMeshRestoredByEvent holds that a device changed by hand is brought back without polling.
func TestMeshRestoredByEvent(t *testing.T) {
	f := newFakeUnderlay()
	f.nodes = testNodes
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	done := make(chan error)
	m := testMesher(f)
	go func() { done <- m.run(ctx) }()
	for wait := 1; wait <= 2; wait++ {
		for {
			f.mu.Lock()
			n := len(f.plans)
			f.mu.Unlock()
			if n >= wait {
				break
			}
			if ctx.Err() != nil {
				t.Fatalf("%d plans applied, want %d", n, wait)
			}
			time.Sleep(time.Millisecond)
		}
		f.touched <- struct{}{}
	}
	if !m.State().Up {
		t.Errorf("state: %+v", m.State())
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestMeshStaysWithoutOwnNode holds that an established mesh is left alone while the node's own object is away.
func TestMeshStaysWithoutOwnNode(t *testing.T) {
	f := newFakeUnderlay()
	f.nodes = testNodes[1:]
	m := testMesher(f)
	if err := m.reconcile(t.Context()); err != nil || len(f.plans) != 0 || m.State().Up {
		t.Errorf("error %v, plans %v, up %v", err, f.plans, m.State().Up)
	}
}

// TestNodeListIsTheSecondSource holds that gossip hears of every node's address, and forgets the dead without a Node.
func TestNodeListIsTheSecondSource(t *testing.T) {
	f := newFakeUnderlay()
	f.nodes = slices.Clone(testNodes)
	for range 1000 { // those after the first few are not looked for
		f.nodes[1].InternalIPs = append(addrs("192.0.2.2"), f.nodes[1].InternalIPs...)
	}
	f.members = []overlay.Member{{Name: "n1", Alive: true}, {Name: "n2"}, {Name: "n3"}, {Name: "n4", Alive: true}}
	if err := testMesher(f).reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(slices.Repeat([]string{"192.0.2.2:7946"}, 8), texts(f.seeds["n2"])); diff != "" || len(f.seeds) != 1 {
		t.Errorf("seeds (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"n3"}, f.forgotten); diff != "" {
		t.Errorf("forgotten (-want +got):\n%s", diff)
	}
}

// TestDeadMemberKeepsItsPeer holds that what gossip says of a member's life changes nothing in the mesh.
func TestDeadMemberKeepsItsPeer(t *testing.T) {
	var plans [][]string
	for _, alive := range []bool{true, false} {
		f := newFakeUnderlay()
		f.nodes = testNodes
		f.members = []overlay.Member{{Name: "n1", Alive: true}, {Name: "n2", Alive: alive}}
		if err := testMesher(f).reconcile(t.Context()); err != nil {
			t.Fatal(err)
		}
		plans = append(plans, f.plans)
	}
	if diff := cmp.Diff(plans[0], plans[1]); diff != "" || len(plans[0]) != 1 {
		t.Errorf("plans (-alive +dead):\n%s", diff)
	}
}

// TestChangeOfKeysIsNoProblem: this node's claim that is under way to its Node object is told of only if it stays so.
func TestChangeOfKeysIsNoProblem(t *testing.T) {
	m, start := testMesher(newFakeUnderlay()), time.Unix(1000, 0)
	other := overlay.Problem{Kind: overlay.NoPodCIDR, Node: "n"}
	differs := overlay.Problem{Kind: overlay.OwnKeyDiffers, Node: "n"}
	for _, step := range []struct {
		after  time.Duration
		differ bool
		told   bool
	}{
		{0, true, false}, {roundTime - 1, true, false}, {roundTime, true, true}, {roundTime + 1, false, false},
		{roundTime + 2, true, false}, {2*roundTime + 2, true, true},
	} {
		problems, want := []overlay.Problem{other}, []overlay.Problem{other}
		if step.differ {
			problems = append(problems, differs)
		}
		if step.told {
			want = append(want, differs)
		}
		if got := m.lasting(problems, start.Add(step.after)); !slices.Equal(got, want) {
			t.Errorf("after %s: %v, want %v", step.after, got, want)
		}
	}
}

func texts[T interface{ String() string }](all []T) (out []string) {
	for _, v := range all {
		out = append(out, v.String())
	}
	return out
}

func TestNetwork(t *testing.T) {
	got := network("n1", testNodes, nil)
	want := []policy.Node{
		{Name: "n1", PodCIDRs: testNodes[0].PodCIDRs, Addresses: testNodes[0].InternalIPs, Mesh: addrs("10.244.1.1", "fd00:1::1")},
		{Name: "n2", PodCIDRs: testNodes[1].PodCIDRs, Addresses: testNodes[1].InternalIPs, Mesh: addrs("10.244.2.1")},
	}
	equal := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	equalPrefix := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
	if diff := cmp.Diff(want, got.Nodes, equal, equalPrefix); diff != "" || got.Node != "n1" {
		t.Errorf("node %q, nodes (-want +got):\n%s", got.Node, diff)
	}
}

// TestNodeIsTheSameOffline: `kith policy matrix` knows a Node by what the agent's rules know it by.
func TestNodeIsTheSameOffline(t *testing.T) {
	const text = `{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": {"zone": "z"}},
"spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "fd00:1::/64"]},
"status": {"addresses": [{"type": "ExternalIP", "address": "198.51.100.1"}, {"type": "InternalIP", "address": "192.0.2.1"},
{"type": "Hostname", "address": "n1"}, {"type": "InternalIP", "address": "2001:db8::1"}]}}`
	var node corev1.Node
	if err := json.Unmarshal([]byte(text), &node); err != nil {
		t.Fatal(err)
	}
	offline, err := manifest.Read(manifest.Source{Paths: []string{"-"}, Stdin: strings.NewReader(text)})
	if err != nil {
		t.Fatal(err)
	}
	online := network("n1", overlay.Grant(overlay.Bounds{}, []overlay.Node{overlaykube.Node(&node)}, nil).Nodes, nil).Nodes
	if diff := cmp.Diff(online, offline.Cluster.Nodes, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" || len(online[0].Addresses) != 3 {
		t.Errorf("the agent knows it by %v (-agent +offline):\n%s", online[0].Addresses, diff)
	}
}

// TestGuardKnowsFirst holds that the guard hears of a pod CIDR before the device leads there.
func TestGuardKnowsFirst(t *testing.T) {
	f := newFakeUnderlay()
	f.nodes = testNodes
	m := testMesher(f)
	heard := 0
	m.network = func(nodes []overlay.Node) {
		if len(nodes) != len(testNodes) || len(f.plans) > 0 {
			t.Errorf("heard of %d nodes after plans %v", len(nodes), f.plans)
		}
		heard++
	}
	if err := m.reconcile(t.Context()); err != nil || len(f.plans) != 1 || heard != 1 {
		t.Errorf("error %v, plans %v, heard %d times", err, f.plans, heard)
	}
}
