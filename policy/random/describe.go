package random

import (
	"fmt"
	"strings"

	"github.com/kithnet/kith/policy"
	"k8s.io/apimachinery/pkg/labels"
)

// Describe is a cluster for people.
func Describe(c policy.Cluster) string {
	var b strings.Builder
	for _, n := range c.Nodes {
		fmt.Fprintf(&b, "node %s %v %v mesh %v\n", n.Name, n.Labels, n.Addresses, n.Mesh)
	}
	for _, n := range c.Namespaces {
		fmt.Fprintf(&b, "namespace %s %v\n", n.Name, n.Labels)
	}
	for _, p := range c.Pods {
		fmt.Fprintf(&b, "pod %s %v %v %v created %d\n", p.Key(), p.Addresses, p.Labels, p.Ports, p.Created.Unix())
	}
	for _, a := range c.Answers {
		fmt.Fprintf(&b, "%s was told that %s is %s\n", a.Pod, a.Name, a.Address)
	}
	for _, p := range c.Policies {
		fmt.Fprintf(&b, "policy %s for %s\n", p.Key(), words(p.Subject))
		if p.Tier != policy.NetworkPolicy {
			fmt.Fprintf(&b, "  %s %d, of namespaces %s\n", p.Tier, p.Priority, words(p.Namespaces))
		}
		for _, d := range []policy.Direction{policy.Ingress, policy.Egress} {
			if rules := p.In(d); rules != nil {
				fmt.Fprintf(&b, "  %s\n", d)
				describeRules(&b, *rules)
			}
		}
	}
	return b.String()
}

func describeRules(b *strings.Builder, rules policy.Rules) {
	for i, r := range rules {
		var peers []string
		if r.AllPeers {
			peers = append(peers, "anybody")
		}
		for _, p := range r.Peers {
			switch {
			case p.Block != nil:
				peers = append(peers, fmt.Sprintf("%s except %v", p.Block.CIDR, p.Block.Except))
			case len(p.Domains) > 0:
				peers = append(peers, fmt.Sprintf("domains %v", p.Domains))
			case p.Nodes != nil:
				peers = append(peers, "nodes "+words(p.Nodes))
			case p.OwnNamespace:
				peers = append(peers, "pods "+words(p.Pods)+" here")
			default:
				peers = append(peers, "pods "+words(p.Pods)+" of namespaces "+words(p.Namespaces))
			}
		}
		fmt.Fprintf(b, "    %d: %s %s; all ports %t, ports %v\n", i, r.Action, strings.Join(peers, " or "), r.AllPorts, r.Ports)
	}
}

func words(s labels.Selector) string {
	if s == nil {
		return "{nothing}"
	}
	return "{" + s.String() + "}"
}
