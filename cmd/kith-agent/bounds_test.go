package main

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/kithnet/kith/cmd/kith-agent/config"
	"github.com/kithnet/kith/cni/ipam"
	"github.com/kithnet/kith/cni/veth"
	"github.com/kithnet/kith/identity"
	identitykube "github.com/kithnet/kith/identity/kube"
	"github.com/kithnet/kith/overlay"
	overlaykube "github.com/kithnet/kith/overlay/kube"
	"github.com/kithnet/kith/policy/ruleset"
)

// apiNode is a Node as the API server has it, made at a time in seconds.
func apiNode(name string, created int64, address string, cidrs ...string) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.Unix(created, 0)},
		Spec:       corev1.NodeSpec{PodCIDRs: cidrs},
		Status:     corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: address}}},
	}
}

// grantingAgent is the part of n1's agent that hands nodes to the rest, beside an API server that has these.
func grantingAgent(t *testing.T, nodes ...*corev1.Node) *agent {
	t.Helper()
	client := fake.NewClientset()
	for _, n := range nodes {
		if err := client.Tracker().Add(n); err != nil {
			t.Fatal(err)
		}
	}
	log := slog.New(slog.DiscardHandler)
	live, err := overlaykube.New(client, "n1", log)
	if err != nil {
		t.Fatal(err)
	}
	store, err := ipam.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	a := &agent{
		log: log, node: "n1", cfg: config.Default(), client: client, nodes: live, store: store, links: veth.New(t.TempDir()),
		bounds: &bounds{log: log, node: "n1", told: map[overlay.Problem]bool{}}, enforcer: newEnforcer(log, nil), screen: newScreen(),
		networked: make(chan struct{}, 1), memorable: make(chan struct{}, 1), meshed: make(chan struct{}),
	}
	a.order = newOrder(log, a.enforcer, a.screen, orderSources{}, func() int { return len(a.known.List()) })
	a.bounds.learn(overlaykube.Cluster{Services: prefixes("10.96.0.0/12"), Servers: addrs("192.0.2.10")})
	a.known = newKnownNodes(live, nil, a.bounds.Get, newNotary(log, 7946))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- live.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
		_ = store.Close()
	})
	if err := live.WaitSynced(ctx); err != nil {
		t.Fatal(err)
	}
	return a
}

// table is what the enforcer was handed, compiled.
func (a *agent) handed(t *testing.T) string {
	t.Helper()
	c := ruleset.NewCompiler()
	for {
		select {
		case u := <-a.enforcer.updates:
			u.change(c)
		default:
			return c.Ruleset().String()
		}
	}
}

// TestNodeTakesNothingByItsCIDRs: whatever CIDR a new Node has that is somebody's, guard, masquerading, policy, addresses for
// pods and mesh stay as they are, and the agent says why.
func TestNodeTakesNothingByItsCIDRs(t *testing.T) {
	honest := []*corev1.Node{
		apiNode("n1", 1, "192.0.2.1", "10.244.1.0/24"), apiNode("n2", 2, "192.0.2.2", "10.244.2.0/24"), apiNode("n3", 3, "192.0.2.3", "10.244.3.0/24"),
	}
	without := grantingAgent(t, honest...)
	without.nodesChanged(without.known.List())
	want := without.handed(t)
	if !strings.Contains(want, "10.244.3.0-10.244.3.255") {
		t.Fatalf("the cluster's own CIDRs are not in the table:\n%s", want)
	}
	for _, cidr := range []string{
		"0.0.0.0/0", "192.0.2.0/24", "192.0.2.3/32", "10.96.0.10/32", "169.254.169.254/32", "10.244.0.0/16", "10.244.1.128/25", "127.0.0.0/8",
		"192.0.2.10/32", // the API server's
	} {
		t.Run(cidr, func(t *testing.T) {
			a := grantingAgent(t, append(slices.Clone(honest), apiNode("x", 9, "192.0.2.9", cidr))...)
			a.nodesChanged(a.known.List())
			got := a.handed(t)
			// The newcomer is a node, and known as one.
			got = strings.ReplaceAll(got, "\t\t\t192.0.2.9,\n", "")
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("the table changes: %s", diff)
			}
			problems := a.known.Grants().Problems
			if len(problems) != 1 || problems[0].Node != "x" || !strings.Contains(problems[0].Detail, "pod CIDR "+cidr+" refused: ") {
				t.Errorf("problems %v", problems)
			}
			mesh, _ := overlay.Compute(overlay.Local{Name: "n1", ListenPort: 51820, UnderlayMTU: 1500}, a.known.List(), nil, nil)
			if got := routed(mesh); !slices.Equal(got, []string{"10.244.2.0/24", "10.244.3.0/24"}) {
				t.Errorf("routes %v", got)
			}
		})
	}
}

func routed(m overlay.Mesh) (out []string) {
	for _, r := range m.Routes {
		out = append(out, r.CIDR.String())
	}
	return out
}

// TestOwnCIDRRefused: a node that is refused its pod CIDR gives none of its addresses to pods, and says why it does not serve.
func TestOwnCIDRRefused(t *testing.T) {
	a := grantingAgent(t, apiNode("n1", 9, "192.0.2.1", "192.0.2.0/24"), apiNode("n2", 2, "192.0.2.2", "10.244.2.0/24"))
	a.nodesChanged(a.known.List())
	if table := a.handed(t); strings.Contains(table, "192.0.2.0-") {
		t.Errorf("the table has the CIDR:\n%s", table)
	}
	if got := a.refusedCIDR(); !strings.Contains(got, "pod CIDR 192.0.2.0/24 refused: ") {
		t.Errorf("says %q", got)
	}
	if err := a.store.Available(); err == nil {
		t.Error("pods may have addresses")
	}
}

// TestRefusedCIDRIsNotVacated: a CIDR that was granted before it was known whose it is does not stay the cluster's.
func TestRefusedCIDRIsNotVacated(t *testing.T) {
	a := grantingAgent(t, apiNode("n1", 1, "192.0.2.1", "10.244.1.0/24"), apiNode("x", 9, "192.0.2.9", "10.96.0.0/24"))
	a.bounds.learn(overlaykube.Cluster{})
	a.nodesChanged(a.known.List())
	if table := a.handed(t); !strings.Contains(table, "10.96.0.0-10.96.0.255") {
		t.Fatalf("nothing is known of Services, and the CIDR is not granted:\n%s", table)
	}
	var v vacated
	before := network("n1", a.known.List(), nil)
	v.keep(before, time.Now(), anyCIDR)
	a.bounds.learn(overlaykube.Cluster{Services: prefixes("10.96.0.0/12")})
	nodes := a.known.List()
	n := v.keep(network("n1", nodes, nil), time.Now(), func(cidr netip.Prefix) bool { return a.bounds.Get().Fits(cidr, nodes) })
	if len(n.Vacated) > 0 {
		t.Errorf("vacated %v", n.Vacated)
	}
}

// TestKubeadmsRangeMustBeTheClusters: kubeadm's configuration refuses nobody where CIDRs are not allocated from it.
func TestKubeadmsRangeMustBeTheClusters(t *testing.T) {
	said := overlaykube.Cluster{Pods: prefixes("10.244.0.0/16"), Services: prefixes("10.96.0.0/12")}
	for name, of := range map[string]struct {
		cidrs []string
		binds bool
	}{
		"as it says":   {[]string{"10.244.1.0/24", "10.244.2.0/24", "8.8.8.0/24"}, true},
		"this node's":  {[]string{"10.1.1.0/24", "10.244.2.0/24", "10.244.3.0/24"}, false},
		"most nodes'":  {[]string{"10.244.1.0/24", "10.1.2.0/24", "10.1.3.0/24"}, false},
		"nobody's yet": {nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			var nodes []*corev1.Node
			for i, cidr := range of.cidrs {
				nodes = append(nodes, apiNode([]string{"n1", "n2", "n3"}[i], int64(i), "192.0.2."+string(rune('1'+i)), cidr))
			}
			got := grantingAgent(t, nodes...).plausible(said)
			if binds := len(got.Pods) > 0; binds != of.binds || len(got.Services) != 1 {
				t.Errorf("bounds %v", got)
			}
		})
	}
}

// TestStatusOfAnothersAddress: a pod that states another node's address, or is on no node, has none of it, whether nodes or pods
// are known first, and keeps no pod of this node waiting for an address.
func TestStatusOfAnothersAddress(t *testing.T) {
	put := func(name, node, address string) identitykube.PodChange {
		return identitykube.PodChange{Put: []identity.Pod{{Namespace: "a", Name: name, UID: name, Node: node, Labels: map[string]string{"name": name}, Addresses: addrs(address)}}}
	}
	pods := []identitykube.PodChange{put("honest", "n2", "10.244.2.5"), put("liar", "n1", "10.244.2.5"), put("nowhere", "", "10.244.2.6"), put("mirror", "n2", "10.244.1.7")}
	for name, nodesFirst := range map[string]bool{"nodes first": true, "pods first": false} {
		t.Run(name, func(t *testing.T) {
			a := grantingAgent(t, apiNode("n1", 1, "192.0.2.1", "10.244.1.0/24"), apiNode("n2", 2, "192.0.2.2", "10.244.2.0/24"))
			if nodesFirst {
				a.nodesChanged(a.known.List())
			}
			for _, p := range pods {
				a.podsChanged(p)
			}
			if !nodesFirst {
				a.nodesChanged(a.known.List())
			}
			c := ruleset.NewCompiler()
			if nodesFirst {
				(<-a.enforcer.updates).change(c)
			}
			a.enforcer.inbox.drain(c)
			if !nodesFirst {
				(<-a.enforcer.updates).change(c)
			}
			for address, claimed := range map[string]bool{"10.244.2.5": true, "10.244.2.6": false, "10.244.1.7": false} {
				mine := ruleset.Attachment{Pod: identity.PodKey{Namespace: "a", Name: "mine"}, Addresses: addrs(address)}
				if got := c.Claimed(mine); got != claimed {
					t.Errorf("%s is another's: %t", address, got)
				}
			}
			if c.Claimed(ruleset.Attachment{Pod: identity.PodKey{Namespace: "a", Name: "honest"}, Addresses: addrs("10.244.2.5")}) {
				t.Error("a liar has the address of a pod of another node")
			}
			problems := a.screen.Problems()
			if len(problems) != 3 || !strings.HasPrefix(problems[0], "pod a/liar states the addresses [10.244.2.5] and is on node n1") {
				t.Errorf("problems %q", problems)
			}
		})
	}
}

func TestNameServers(t *testing.T) {
	got := nameServers("# nameserver 192.0.2.9\nsearch example\nnameserver 192.0.2.53\nnameserver fe80::1%eth0\n nameserver\t2001:db8::53 x\nnameserver nonsense\nnameserver\n")
	if want := addrs("192.0.2.53", "fe80::1", "2001:db8::53"); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
