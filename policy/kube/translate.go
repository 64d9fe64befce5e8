package kube

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
)

// Problem is a part of a policy that cannot be understood, and what to do about it.
type Problem struct {
	Policy  policy.Name
	Field   string
	Message string
	Fix     string
}

func (p Problem) Error() string {
	kind := "network policy"
	if p.Policy.Namespace == "" {
		kind = "cluster network policy"
	}
	return fmt.Sprintf("%s %s: %s: %s; %s", kind, p.Policy, p.Field, p.Message, p.Fix)
}

// Translate is the policy of the model that an API object means. Where there are problems, the result allows less than
// the object may have meant, never more.
func Translate(np *networkingv1.NetworkPolicy) (policy.Policy, []Problem) {
	t := translation{policy: policy.Name{Namespace: np.Namespace, Name: np.Name}}
	p := policy.Policy{Namespace: np.Namespace, Name: np.Name, Subject: t.subject(np.Spec.PodSelector)}
	ingress, egress := t.types(np.Spec)
	unclear := len(t.problems) > 0
	in := make(policy.Rules, t.count("ingress", len(np.Spec.Ingress)))
	for i, r := range np.Spec.Ingress[:len(in)] {
		in[i] = t.rule(fmt.Sprintf("spec.ingress[%d]", i), "from", r.From, r.Ports)
	}
	out := make(policy.Rules, t.count("egress", len(np.Spec.Egress)))
	for i, r := range np.Spec.Egress[:len(out)] {
		out[i] = t.rule(fmt.Sprintf("spec.egress[%d]", i), "to", r.To, r.Ports)
	}
	// Rules of a direction that the policy leaves out are without effect; the API server checks them all the same.
	if ingress {
		p.Ingress = &in
	}
	if egress {
		p.Egress = &out
	}
	if unclear {
		allowNothing(p.Ingress, p.Egress)
	}
	return p, t.problems
}

// count is how many of a direction's rules are read.
func (t *translation) count(direction string, rules int) int {
	if rules <= policy.MaxRules {
		return rules
	}
	t.problem(fmt.Sprintf("spec.%s[%d]", direction, policy.MaxRules), "make several policies of it",
		"a direction of a policy has at most %d rules: this one and those behind it allow nothing", policy.MaxRules)
	return policy.MaxRules
}

// allowNothing is for a policy that isolates more than it may have meant to: a rule would add to what other policies
// allow to pods that it did not mean.
func allowNothing(directions ...*policy.Rules) {
	for _, rules := range directions {
		if rules != nil {
			clear(*rules)
		}
	}
}

// translation gathers the problems of one policy.
type translation struct {
	policy   policy.Name
	problems []Problem
}

func (t *translation) problem(field, fix, format string, args ...any) {
	t.problems = append(t.problems, Problem{t.policy, field, fmt.Sprintf(format, args...), fix})
}

// subject: when it cannot be known which pods are meant, it is all of the namespace.
func (t *translation) subject(s metav1.LabelSelector) labels.Selector {
	if sel, ok := t.selector("spec.podSelector", &s); ok {
		return sel
	}
	return labels.Everything()
}

// types: "If this field is not specified, it will default based on the existence of ingress or egress rules; policies
// that contain an egress section are assumed to affect egress, and all policies (whether or not they contain an
// ingress section) are assumed to affect ingress."
func (t *translation) types(s networkingv1.NetworkPolicySpec) (ingress, egress bool) {
	if len(s.PolicyTypes) == 0 {
		return true, len(s.Egress) > 0
	}
	for i, typ := range s.PolicyTypes {
		switch typ {
		case networkingv1.PolicyTypeIngress:
			ingress = true
		case networkingv1.PolicyTypeEgress:
			egress = true
		default:
			t.problem(fmt.Sprintf("spec.policyTypes[%d]", i), "use Ingress or Egress", "%q is not a policy type: both directions are isolated", typ)
			ingress, egress = true, true
		}
	}
	return ingress, egress
}

// rule: a rule with any problem becomes the zero Rule, which allows nothing. It keeps its place, so that the others
// keep their index.
func (t *translation) rule(field, peers string, from []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort) policy.Rule {
	before := len(t.problems)
	r := policy.Rule{AllPeers: len(from) == 0, AllPorts: len(ports) == 0}
	for i, p := range from {
		r.Peers = append(r.Peers, t.peer(fmt.Sprintf("%s.%s[%d]", field, peers, i), p))
	}
	for i, p := range ports {
		r.Ports = append(r.Ports, t.port(fmt.Sprintf("%s.ports[%d]", field, i), p))
	}
	if len(t.problems) > before {
		return policy.Rule{}
	}
	return r
}

func (t *translation) peer(field string, p networkingv1.NetworkPolicyPeer) policy.Peer {
	switch {
	case p.IPBlock != nil && (p.PodSelector != nil || p.NamespaceSelector != nil):
		t.problem(field, "make two entries of it", "ipBlock and a selector stand in one entry")
		return policy.Peer{}
	case p.IPBlock != nil:
		return policy.Peer{Block: t.block(field+".ipBlock", *p.IPBlock)}
	case p.PodSelector == nil && p.NamespaceSelector == nil:
		t.problem(field, "give it a podSelector, a namespaceSelector or an ipBlock", "the entry is empty")
		return policy.Peer{}
	}
	// "If podSelector is not set, all pods in the namespaces selected; if namespaceSelector is not set, the pods of the
	// policy's own namespace."
	peer := policy.Peer{OwnNamespace: p.NamespaceSelector == nil, Pods: labels.Everything()}
	if p.PodSelector != nil {
		peer.Pods, _ = t.selector(field+".podSelector", p.PodSelector)
	}
	if p.NamespaceSelector != nil {
		peer.Namespaces, _ = t.selector(field+".namespaceSelector", p.NamespaceSelector)
	}
	return peer
}

func (t *translation) selector(field string, s *metav1.LabelSelector) (labels.Selector, bool) {
	sel, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		t.problem(field+wrongIn(s), "correct the selector", "%v", err)
		return nil, false
	}
	return sel, true
}

// wrongIn is the first part of a selector that is none alone.
func wrongIn(s *metav1.LabelSelector) string {
	for _, key := range slices.Sorted(maps.Keys(s.MatchLabels)) {
		if _, err := metav1.LabelSelectorAsSelector(&metav1.LabelSelector{MatchLabels: map[string]string{key: s.MatchLabels[key]}}); err != nil {
			return ".matchLabels." + key
		}
	}
	for i, e := range s.MatchExpressions {
		if _, err := metav1.LabelSelectorAsSelector(&metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{e}}); err != nil {
			return fmt.Sprintf(".matchExpressions[%d]", i)
		}
	}
	return ""
}

func (t *translation) block(field string, b networkingv1.IPBlock) *policy.Block {
	out := &policy.Block{CIDR: t.prefix(field+".cidr", b.CIDR)}
	for i, e := range b.Except {
		field := fmt.Sprintf("%s.except[%d]", field, i)
		except := t.prefix(field, e)
		if except.IsValid() && out.CIDR.IsValid() && !(out.CIDR.Bits() <= except.Bits() && out.CIDR.Contains(except.Addr())) {
			t.problem(field, "name a part of "+b.CIDR, "%s does not lie in %s", e, b.CIDR)
		}
		out.Except = append(out.Except, except)
	}
	return out
}

func (t *translation) prefix(field, s string) netip.Prefix {
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Addr().Is4In6() {
		t.problem(field, "write an address range like 10.0.0.0/8 or fd00::/8", "%q is not an address range", s)
		return netip.Prefix{}
	}
	return p.Masked()
}

func (t *translation) port(field string, p networkingv1.NetworkPolicyPort) policy.Port {
	out := policy.Port{Protocol: identity.TCP}
	if p.Protocol != nil {
		out.Protocol = t.protocol(field+".protocol", *p.Protocol)
	}
	switch {
	case p.Port == nil && p.EndPort != nil:
		t.problem(field+".endPort", "set port to where the range begins", "there is an endPort and no port")
	case p.Port == nil:
		out.First, out.Last = 0, 65535
	case p.Port.Type == intstr.String && p.EndPort != nil:
		t.problem(field+".endPort", "give port as a number, or leave endPort out", "a range cannot begin with the name %q", p.Port.StrVal)
	case p.Port.Type == intstr.String && p.Port.StrVal == "":
		t.problem(field+".port", "give a port's name or number", "the name is empty")
	case p.Port.Type == intstr.String && len(validation.IsValidPortName(p.Port.StrVal)) > 0:
		t.problem(field+".port", "give a number, or a name", "%q is no port's name: %s", p.Port.StrVal, validation.IsValidPortName(p.Port.StrVal)[0])
	case p.Port.Type == intstr.String:
		out.Name = p.Port.StrVal
	default:
		out.First, out.Last = t.portRange(field, p.Port.IntVal, p.EndPort)
	}
	return out
}

func (t *translation) protocol(field string, p corev1.Protocol) identity.Protocol {
	switch p {
	case corev1.ProtocolTCP:
		return identity.TCP
	case corev1.ProtocolUDP:
		return identity.UDP
	case corev1.ProtocolSCTP:
		return identity.SCTP
	}
	t.problem(field, "use TCP, UDP or SCTP", "%q is not a protocol that a policy can name", p)
	return 0
}

func (t *translation) portRange(field string, first int32, end *int32) (uint16, uint16) {
	last := first
	if end != nil {
		last = *end
	}
	switch {
	case first < 1 || first > 65535:
		t.problem(field+".port", "use 1 to 65535", "%d is not a port", first)
	case last > 65535:
		t.problem(field+".endPort", "use at most 65535", "%d is not a port", last)
	case last < first:
		t.problem(field+".endPort", fmt.Sprintf("use at least %d", first), "%d is below port %d", last, first)
	default:
		return uint16(first), uint16(last)
	}
	return 0, 0
}
