package kube

import (
	"fmt"
	"regexp"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	policyv1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
)

// clusterRule is a rule of either direction; an ingress peer is an egress peer with fewer fields.
type clusterRule struct {
	name      string
	action    policyv1alpha2.ClusterNetworkPolicyRuleAction
	peers     []policyv1alpha2.ClusterNetworkPolicyEgressPeer
	protocols []policyv1alpha2.ClusterNetworkPolicyProtocol
}

// TranslateCluster is the policy of the model that a ClusterNetworkPolicy means. Where there are problems, the result
// lets through less than the object may have meant, never more: "For Accept rules, fail closed means: treat the rule as
// matching no traffic. For Deny and Pass rules, fail closed means: treat the rule as a 'Deny all' rule." A policy whose
// subject or tier is in doubt holds for all pods that it may mean; there it accepts nothing, and denies what it passes.
func TranslateCluster(cnp *policyv1alpha2.ClusterNetworkPolicy) (policy.Policy, []Problem) {
	t := translation{policy: policy.Name{Name: cnp.Name}}
	p := policy.Policy{Name: cnp.Name, Tier: t.tier(cnp.Spec.Tier), Priority: cnp.Spec.Priority}
	p.Namespaces, p.Subject = t.clusterSubject(cnp.Spec.Subject)
	doubt := len(t.problems) > 0
	var ingress, egress []clusterRule
	for _, r := range cnp.Spec.Ingress {
		rule := clusterRule{name: r.Name, action: r.Action, protocols: r.Protocols}
		for _, from := range r.From {
			rule.peers = append(rule.peers, policyv1alpha2.ClusterNetworkPolicyEgressPeer{Namespaces: from.Namespaces, Pods: from.Pods})
		}
		ingress = append(ingress, rule)
	}
	for _, r := range cnp.Spec.Egress {
		egress = append(egress, clusterRule{r.Name, r.Action, r.To, r.Protocols})
	}
	p.Ingress = t.clusterRules("spec.ingress", "from", ingress)
	p.Egress = t.clusterRules("spec.egress", "to", egress)
	if doubt {
		harden(p.Ingress)
		harden(p.Egress)
	}
	return p, t.problems
}

func harden(rules *policy.Rules) {
	if rules == nil {
		return
	}
	for i, r := range *rules {
		switch r.Action {
		case policy.Accept:
			(*rules)[i] = policy.Rule{Name: r.Name}
		case policy.Pass:
			(*rules)[i].Action = policy.Deny
		}
	}
}

func (t *translation) tier(tier policyv1alpha2.Tier) policy.Tier {
	switch tier {
	case policyv1alpha2.AdminTier:
		return policy.Admin
	case policyv1alpha2.BaselineTier:
		return policy.Baseline
	}
	t.problem("spec.tier", "use Admin or Baseline", "%q is not a tier: what the policy denies is denied before all others", tier)
	return policy.Admin
}

// clusterSubject: when it cannot be known which pods are meant, it is all.
func (t *translation) clusterSubject(s policyv1alpha2.ClusterNetworkPolicySubject) (namespaces, pods labels.Selector) {
	before := len(t.problems)
	switch {
	case s.Namespaces != nil && s.Pods != nil:
		t.problem("spec.subject", "choose one", "namespaces and pods are both set")
	case s.Namespaces != nil:
		namespaces, _ = t.selector("spec.subject.namespaces", s.Namespaces)
		pods = labels.Everything()
	case s.Pods != nil:
		namespaces, pods = t.namespacedPod("spec.subject.pods", s.Pods)
	default:
		t.problem("spec.subject", "set namespaces or pods", "the subject is empty, or selects in a way that is not known here")
	}
	if len(t.problems) > before {
		return labels.Everything(), labels.Everything()
	}
	return namespaces, pods
}

func (t *translation) namespacedPod(field string, p *policyv1alpha2.NamespacedPod) (namespaces, pods labels.Selector) {
	namespaces, _ = t.selector(field+".namespaceSelector", &p.NamespaceSelector)
	pods, _ = t.selector(field+".podSelector", &p.PodSelector)
	return namespaces, pods
}

// clusterRules: "CNPs with no ingress rules do not affect ingress traffic", and so with egress.
func (t *translation) clusterRules(field, peers string, from []clusterRule) *policy.Rules {
	if len(from) == 0 {
		return nil
	}
	rules := make(policy.Rules, len(from))
	for i, r := range from {
		rules[i] = t.clusterRule(fmt.Sprintf("%s[%d]", field, i), peers, r)
	}
	return &rules
}

// clusterRule keeps a rule with a problem in its place, closed.
func (t *translation) clusterRule(field, peers string, r clusterRule) policy.Rule {
	before := len(t.problems)
	rule := policy.Rule{Name: r.name, Action: t.action(field+".action", r.action), AllPorts: len(r.protocols) == 0}
	if len(r.peers) == 0 {
		t.problem(field+"."+peers, "name who is meant", "the list is empty")
	}
	for i, p := range r.peers {
		rule.Peers = append(rule.Peers, t.clusterPeer(fmt.Sprintf("%s.%s[%d]", field, peers, i), p)...)
	}
	for i, p := range r.protocols {
		field := fmt.Sprintf("%s.protocols[%d]", field, i)
		if p.DestinationNamedPort != "" && !podsOnly(rule.Peers) {
			t.problem(field+".destinationNamedPort", "make two rules of it", "networks, nodes and domain names have no named ports")
		}
		rule.Ports = append(rule.Ports, t.clusterProtocol(field, p)...)
	}
	if len(t.problems) == before && rule.Action != policy.Accept && rule.NamesDomains() {
		t.problem(field+".action", "use Accept, and deny the rest in a rule behind it", "domain names are only for rules that accept")
	}
	switch {
	case len(t.problems) == before:
		return rule
	case rule.Action == policy.Accept:
		return policy.Rule{Name: r.name}
	}
	return policy.Rule{Name: r.name, Action: policy.Deny, AllPeers: true, AllPorts: true}
}

func podsOnly(peers []policy.Peer) bool {
	for _, p := range peers {
		if !p.OfPods() {
			return false
		}
	}
	return true
}

func (t *translation) action(field string, a policyv1alpha2.ClusterNetworkPolicyRuleAction) policy.Action {
	switch a {
	case policyv1alpha2.ClusterNetworkPolicyRuleActionAccept:
		return policy.Accept
	case policyv1alpha2.ClusterNetworkPolicyRuleActionDeny:
		return policy.Deny
	case policyv1alpha2.ClusterNetworkPolicyRuleActionPass:
		return policy.Pass
	}
	t.problem(field, "use Accept, Deny or Pass", "%q is not an action", a)
	return policy.Deny
}

// clusterPeer: "Exactly one of the fields must be set for a given peer. If an implementation sees no fields are set then
// it can infer that the deployed CRD is of an incompatible version with an unknown field."
func (t *translation) clusterPeer(field string, p policyv1alpha2.ClusterNetworkPolicyEgressPeer) []policy.Peer {
	set := 0
	for _, is := range []bool{p.Namespaces != nil, p.Pods != nil, p.Nodes != nil, len(p.Networks) > 0, len(p.DomainNames) > 0} {
		if is {
			set++
		}
	}
	switch {
	case set == 0:
		t.problem(field, "set one field", "the entry is empty, or selects in a way that is not known here")
	case set > 1:
		t.problem(field, "make several entries of it", "several fields stand in one entry")
	case p.Namespaces != nil:
		return []policy.Peer{{Namespaces: t.peerSelector(field+".namespaces", p.Namespaces), Pods: labels.Everything()}}
	case p.Pods != nil:
		namespaces, pods := t.namespacedPod(field+".pods", p.Pods)
		return []policy.Peer{{Namespaces: namespaces, Pods: pods}}
	case p.Nodes != nil:
		return []policy.Peer{{Nodes: t.peerSelector(field+".nodes", p.Nodes)}}
	case len(p.DomainNames) > 0:
		return []policy.Peer{{Domains: t.domains(field+".domainNames", p.DomainNames)}}
	}
	var peers []policy.Peer
	for i, cidr := range p.Networks {
		peers = append(peers, policy.Peer{Block: &policy.Block{CIDR: t.prefix(fmt.Sprintf("%s.networks[%d]", field, i), string(cidr))}})
	}
	return peers
}

// maxDomain is how long a name may be: sets in the kernel bear it in theirs.
const maxDomain = 240

// domainName is the API's pattern, without the characters that it has by mistake (A-z).
var domainName = regexp.MustCompile(`^([a-z0-9_]([-a-z0-9_]*[a-z0-9])?\.)+[a-z0-9_]([-a-z0-9_]*[a-z0-9])?$`)

func (t *translation) domains(field string, names []policyv1alpha2.DomainName) []policy.Domain {
	out := make([]policy.Domain, len(names))
	for i, name := range names {
		out[i] = policy.MakeDomain(string(name))
		below := strings.TrimPrefix(string(out[i]), "*.")
		if len(below) > maxDomain || !domainName.MatchString(below) {
			t.problem(fmt.Sprintf("%s[%d]", field, i), "use a name such as example.com or *.example.com", "%q is not a domain name", name)
		}
	}
	return out
}

func (t *translation) peerSelector(field string, s *metav1.LabelSelector) labels.Selector {
	sel, _ := t.selector(field, s)
	return sel
}

// clusterProtocol: a port name stands for the ports of that name, whatever their protocol.
func (t *translation) clusterProtocol(field string, p policyv1alpha2.ClusterNetworkPolicyProtocol) []policy.Port {
	var out []policy.Port
	add := func(field string, protocol identity.Protocol, port *policyv1alpha2.Port) {
		first, last := t.clusterPort(field, port)
		out = append(out, policy.Port{Protocol: protocol, First: first, Last: last})
	}
	if p.TCP != nil {
		add(field+".tcp", identity.TCP, p.TCP.DestinationPort)
	}
	if p.UDP != nil {
		add(field+".udp", identity.UDP, p.UDP.DestinationPort)
	}
	if p.SCTP != nil {
		add(field+".sctp", identity.SCTP, p.SCTP.DestinationPort)
	}
	fields := len(out)
	if name := p.DestinationNamedPort; name != "" {
		fields++
		for _, protocol := range []identity.Protocol{identity.TCP, identity.UDP, identity.SCTP} {
			out = append(out, policy.Port{Protocol: protocol, Name: name})
		}
	}
	if fields != 1 {
		t.problem(field, "set one of tcp, udp, sctp and destinationNamedPort", "%d known fields are set", fields)
	}
	return out
}

// clusterPort: the API wants every field that there is to say something, so that an empty one says something unknown.
func (t *translation) clusterPort(field string, p *policyv1alpha2.Port) (first, last uint16) {
	field += ".destinationPort"
	switch {
	case p == nil:
		t.problem(field, "set it", "there is no destinationPort")
	case (p.Number == 0) == (p.Range == nil):
		t.problem(field, "set number or range", "one of number and range must be set")
	case p.Range == nil && (p.Number < 1 || p.Number > 65535):
		t.problem(field+".number", "use 1 to 65535", "%d is not a port", p.Number)
	case p.Range == nil:
		return uint16(p.Number), uint16(p.Number)
	case p.Range.Start < 1 || p.Range.End > 65535 || p.Range.Start >= p.Range.End:
		t.problem(field+".range", "use 1 to 65535, and an end above the start", "%d to %d is not a range of ports", p.Range.Start, p.Range.End)
	default:
		return uint16(p.Range.Start), uint16(p.Range.End)
	}
	return 0, 0
}
