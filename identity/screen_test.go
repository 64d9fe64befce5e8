package identity_test

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/kithnet/kith/identity"
)

func homes() map[string][]netip.Prefix {
	return map[string][]netip.Prefix{
		"n1": {netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:1::/64")},
		"n2": {netip.MustParsePrefix("10.244.2.0/24")},
	}
}

func onNode(name, node string, addresses ...string) identity.Pod {
	p := identity.Pod{Namespace: "a", Name: name, UID: name, Node: node}
	for _, a := range addresses {
		p.Addresses = append(p.Addresses, netip.MustParseAddr(a))
	}
	return p
}

// TestAddressesOutsideOfTheNodeDoNotCount: a pod has what its own node was granted, whoever writes its status, and nothing
// without a node; in any order of nodes and pods.
func TestAddressesOutsideOfTheNodeDoNotCount(t *testing.T) {
	for name, of := range map[string]struct{ stated, counts identity.Pod }{
		"its node's":              {onNode("p", "n1", "10.244.1.5", "fd00:1::5"), onNode("p", "n1", "10.244.1.5", "fd00:1::5")},
		"another node's":          {onNode("p", "n1", "10.244.2.5"), onNode("p", "n1")},
		"one of both":             {onNode("p", "n1", "10.244.2.5", "fd00:1::5"), onNode("p", "n1", "fd00:1::5")},
		"nobody's":                {onNode("p", "n1", "192.0.2.7"), onNode("p", "n1")},
		"without a node":          {onNode("p", "", "10.244.1.5"), onNode("p", "")},
		"on a node that is not":   {onNode("p", "n9", "10.244.1.5"), onNode("p", "n9")},
		"of a family it has not":  {onNode("p", "n2", "fd00:1::5"), onNode("p", "n2")},
		"without an address, yet": {onNode("p", "n1"), onNode("p", "n1")},
	} {
		t.Run(name, func(t *testing.T) {
			known, unknown := identity.NewScreen(), identity.NewScreen()
			known.SetHomes(homes())
			got := known.Pod(of.stated)
			late := unknown.Pod(of.stated)
			if len(late.Addresses) > 0 {
				t.Errorf("believed before any node is known: %v", late.Addresses)
			}
			for _, p := range unknown.SetHomes(homes()) {
				late = p
			}
			for _, got := range []identity.Pod{got, late} {
				if diff := cmp.Diff(of.counts, got, cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
					t.Error(diff)
				}
			}
			if again := known.SetHomes(homes()); len(again) > 0 {
				t.Errorf("the same nodes change %v", again)
			}
		})
	}
}

// TestDoubts: who is doubted is said while the pod is there, and not before its node is known.
func TestDoubts(t *testing.T) {
	s := identity.NewScreen()
	s.Pods([]identity.Pod{onNode("early", "n9", "10.244.9.5"), onNode("honest", "n1", "10.244.1.5"), onNode("liar", "n1", "10.244.2.5"), onNode("nowhere", "", "10.244.1.6")})
	s.SetHomes(homes())
	doubted := func() (names []string) {
		for _, p := range s.Doubted() {
			names = append(names, p.Name)
		}
		return names
	}
	if diff := cmp.Diff([]string{"liar", "nowhere"}, doubted()); diff != "" {
		t.Error(diff)
	}
	s.Forget(identity.PodKey{Namespace: "a", Name: "nowhere"})
	s.Pod(onNode("liar", "n1", "10.244.1.7"))
	if names := doubted(); len(names) > 0 {
		t.Errorf("still doubted: %v", names)
	}
	if changed := s.SetHomes(map[string][]netip.Prefix{"n9": {netip.MustParsePrefix("10.244.9.0/24")}}); len(changed) != 1 || changed[0].Name != "early" || len(changed[0].Addresses) != 1 {
		t.Errorf("its node came: %v", changed)
	}
}

// TestScreenedTableDoesNotDependOnOrder feeds a table nodes and pods in many orders.
func TestScreenedTableDoesNotDependOnOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 9))
	pods := []identity.Pod{
		onNode("honest", "n2", "10.244.2.5"), onNode("liar", "n1", "10.244.2.5", "10.244.1.9"), onNode("nowhere", "", "10.244.1.9"),
		onNode("nobody's", "n3", "10.244.1.8"),
	}
	for range 200 {
		s, table := identity.NewScreen(), identity.NewTable()
		table.PutNamespace(identity.Namespace{Name: "a"})
		events := []func(){func() {
			for _, p := range s.SetHomes(homes()) {
				table.PutPod(p)
			}
		}}
		for _, p := range pods {
			p.Labels = map[string]string{"name": p.Name}
			events = append(events, func() { table.PutPod(s.Pod(p)) })
		}
		r.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
		for _, e := range events {
			e()
		}
		for address, want := range map[string]string{"10.244.2.5": "honest", "10.244.1.9": "liar", "10.244.1.8": ""} {
			got := ""
			if id := table.Lookup(netip.MustParseAddr(address)); id != nil {
				got = id.Labels().Get("name")
			}
			if got != want {
				t.Fatalf("%s is %q, want %q", address, got, want)
			}
		}
	}
}
