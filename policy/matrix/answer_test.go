package matrix

import (
	"fmt"
	"net/netip"
	"testing"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
)

// TestAnswersAreBounded: however many kinds of pods there are, few answers are remembered, and none is another's.
func TestAnswersAreBounded(t *testing.T) {
	c := policy.Cluster{Namespaces: []identity.Namespace{{Name: "n"}}}
	var ends []End
	for i := range 30 {
		p := identity.Pod{Namespace: "n", Name: fmt.Sprint("p", i), Labels: map[string]string{"kind": fmt.Sprint(i)}, Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})}}
		c.Pods = append(c.Pods, p)
		ends = append(ends, End{Name: p.Key().String(), Namespace: "n", Labels: p.Labels, Addresses: p.Addresses})
		from := policy.Peer{OwnNamespace: true, Pods: labels.SelectorFromSet(labels.Set{"kind": fmt.Sprint((i + 1) % 30)})}
		c.Policies = append(c.Policies, policy.Policy{
			Namespace: "n", Name: p.Name, Subject: labels.SelectorFromSet(p.Labels),
			Ingress: &policy.Rules{{Peers: []policy.Peer{from}, AllPorts: true}},
		})
	}
	m := New(c)
	m.most = 100
	cells := 0
	for cell := range m.Cells(ends, ends, []Port{{identity.TCP, 80}, {identity.UDP, 53}}) {
		if cells++; len(m.answers) > m.most {
			t.Fatalf("%d answers are remembered", len(m.answers))
		}
		if want := policy.Decide(c, cell.Flow); cell.Verdict() != want {
			t.Fatalf("%v: %+v, want %+v", cell.Flow, cell.Verdict(), want)
		}
	}
	if cells != 30*30*2 {
		t.Errorf("%d cells", cells)
	}
}
