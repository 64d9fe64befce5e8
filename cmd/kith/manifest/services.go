package manifest

import (
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/kithnet/kith/policy"
	"github.com/kithnet/kith/policy/matrix"
)

// Service is what stands before pods. No policy sees its addresses: the nodes put a pod's in their place before any
// decides.
type Service struct {
	Name      string // its namespace/name
	Addresses []netip.Addr
	Pods      []string // the names of those behind it
}

// service is a Service as it was read. It decides nothing: what is wrong in it is passed over.
type service struct {
	Metadata struct {
		Namespace string `yaml:"namespace"`
		Name      string `yaml:"name"`
	} `yaml:"metadata"`
	Spec struct {
		Selector    map[string]string `yaml:"selector"`
		ClusterIP   string            `yaml:"clusterIP"`
		ClusterIPs  []string          `yaml:"clusterIPs"`
		ExternalIPs []string          `yaml:"externalIPs"`
	} `yaml:"spec"`
	Status struct {
		LoadBalancer struct {
			Ingress []struct {
				IP string `yaml:"ip"`
			} `yaml:"ingress"`
		} `yaml:"loadBalancer"`
	} `yaml:"status"`
}

func (r *reader) service(at place) {
	r.passedOver["Service"]++
	var s service
	if err := at.node.Decode(&s); err != nil {
		return
	}
	if s.Metadata.Namespace == "" {
		s.Metadata.Namespace = r.home
	}
	r.services = append(r.services, s)
}

// behind are the Services with an address that no node has besides, and which ends are behind each.
func (r *reader) behind(ends []matrix.End) []Service {
	var out []Service
	for _, s := range r.services {
		found := Service{Name: s.Metadata.Namespace + "/" + s.Metadata.Name}
		all := append([]string{s.Spec.ClusterIP}, slices.Concat(s.Spec.ClusterIPs, s.Spec.ExternalIPs)...)
		for _, ingress := range s.Status.LoadBalancer.Ingress {
			all = append(all, ingress.IP)
		}
		for _, text := range all {
			if a, err := netip.ParseAddr(text); err == nil && !r.isNode(a.Unmap()) {
				found.Addresses = append(found.Addresses, a.Unmap())
			}
		}
		selector := labels.SelectorFromSet(s.Spec.Selector)
		for _, e := range ends {
			if len(s.Spec.Selector) > 0 && e.Namespace == s.Metadata.Namespace && selector.Matches(labels.Set(e.Labels)) {
				found.Pods = append(found.Pods, e.Name)
			}
		}
		if len(found.Addresses) > 0 {
			out = append(out, found)
		}
	}
	slices.SortFunc(out, func(a, b Service) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func (r *reader) isNode(a netip.Addr) bool {
	return slices.ContainsFunc(r.cluster.Nodes, func(n policy.Node) bool { return slices.Contains(n.Addresses, a) })
}
