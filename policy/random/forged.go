package random

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
)

// Forged puts the cluster's pods on the nodes of their addresses, and adds others, newer and on another node or on none, whose
// statuses name addresses of these nodes' pods, known and not.
func Forged(r *rand.Rand, c policy.Cluster) []identity.Pod {
	s := source{r}
	pods := make([]identity.Pod, 0, 2*len(c.Pods))
	for _, p := range c.Pods {
		for _, n := range c.Nodes {
			if len(p.Addresses) > 0 && hosts(n, p.Addresses[0]) {
				p.Node = n.Name
			}
		}
		pods = append(pods, p)
	}
	for i := range 1 + s.IntN(len(c.Pods)) {
		victim := pick(s, pods[:len(c.Pods)])
		p := identity.Pod{
			Namespace: pick(s, c.Namespaces).Name, Name: fmt.Sprintf("forged%d", i), UID: fmt.Sprintf("f%d", i),
			Created: time.Unix(2000, 0), Labels: s.labels("app", "role"), Ports: victim.Ports, Addresses: victim.Addresses,
		}
		if s.IntN(3) > 0 {
			p.Node = pick(s, c.Nodes).Name
		}
		if p.Node == victim.Node {
			p.Node = ""
		}
		pods = append(pods, p)
	}
	return pods
}
