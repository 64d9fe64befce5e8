package manifest

import (
	"fmt"
	"hash/maphash"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"go.yaml.in/yaml/v3"

	identitykube "github.com/kithnet/kith/identity/kube"
	"github.com/kithnet/kith/overlay"
	overlaykube "github.com/kithnet/kith/overlay/kube"
	"github.com/kithnet/kith/policy"
	policykube "github.com/kithnet/kith/policy/kube"
)

// place is where an object stands.
type place struct {
	file   string
	found  bool // in a folder
	node   *yaml.Node
	before int    // how many lines are before those that the node counts
	name   string // kind and name, once they are known
}

// reader gathers what the documents say.
type reader struct {
	home       string // the namespace of what names none
	unnamed    int    // how many name none
	mistakes   []error
	fields     map[reflect.Type]map[string][]int
	seen       map[string]seenObject // by objectKey
	seed       maphash.Seed          // of the objects' digests
	again      int                   // objects that were there before, the same to the letter
	idleRules  []string              // directions of policies that have rules and are left out of their types
	cluster    policy.Cluster
	pods       []pod
	workloads  []workload
	services   []service
	scaled     map[string]bool // objectKey of what autoscalers make several pods of
	limits     *limits
	late       []string          // pods whose addresses newer ones have
	others     []string          // where in folders what is no object is
	passedOver map[string]int    // kinds
	newer      map[string]string // fields that are not known, by kind → where first
}

func newReader(namespace string) *reader {
	return &reader{
		home: namespace, fields: map[reflect.Type]map[string][]int{}, seed: maphash.MakeSeed(), seen: map[string]seenObject{}, scaled: map[string]bool{},
		passedOver: map[string]int{}, newer: map[string]string{},
	}
}

func (r *reader) fail(at place, field, problem string) {
	r.failLine(at, lineOf(at.node, field), field, problem)
}

func (r *reader) failLine(at place, line int, field, problem string) {
	r.mistakes = append(r.mistakes, &Mistake{File: at.file, Line: at.before + max(line, 1), Object: at.name, Field: field, Problem: problem})
}

// document reads an object or a list of them.
func (r *reader) document(at place, preset metav1.TypeMeta) {
	if at.node.Tag != "!!null" || preset.APIVersion != "" {
		r.object(at, preset)
	}
}

// object reads an object. preset is what its list says of its type, if it does not say so itself.
func (r *reader) object(at place, preset metav1.TypeMeta) {
	if at.node.Kind == yaml.AliasNode {
		r.fail(at, "", "is an alias: write the object out")
		return
	}
	if at.node.Kind != yaml.MappingNode {
		r.noManifest(at, "", "is "+shown(at.node)+", want an object")
		return
	}
	t := metav1.TypeMeta{APIVersion: text(at.node, "apiVersion"), Kind: text(at.node, "kind")}
	if t == (metav1.TypeMeta{}) {
		t = preset
	}
	_, items := child(at.node, "items")
	if !strings.HasSuffix(t.Kind, "List") {
		items = nil
	}
	named := at
	named.name = nameOf(at.node, t.Kind)
	r.unique(named, items)
	switch {
	case t.Kind == "" && t.APIVersion == "" && at.found:
		r.passedOver["documents without kind"]++
	case t.Kind == "":
		r.noManifest(at, "kind", "is missing")
	case t.APIVersion == "":
		r.noManifest(at, "apiVersion", "is missing")
	case items != nil:
		inside, _ := isList(t)
		r.list(at, items, inside)
	case t == (metav1.TypeMeta{APIVersion: "v1", Kind: "List"}) || isPolicy(strings.TrimSuffix(t.Kind, "List")) && strings.HasSuffix(t.Kind, "List"):
		r.fail(at, "items", "is missing")
	default:
		r.kind(at, t)
	}
}

// nameOf is an object's kind and name for messages.
func nameOf(node *yaml.Node, kind string) string {
	_, meta := child(node, "metadata")
	if meta == nil || kind == "" {
		return kind
	}
	return strings.TrimSuffix(kind+" "+strings.TrimPrefix(text(meta, "namespace")+"/"+text(meta, "name"), "/"), " ")
}

// noManifest refuses what is no object, but passes over what lies in a folder: patches, and values for templates.
func (r *reader) noManifest(at place, field, problem string) {
	policy := strings.Contains(text(at.node, "apiVersion"), "networking.k8s.io") || strings.HasSuffix(text(at.node, "kind"), "NetworkPolicy")
	if !at.found || policy || isPolicy(text(at.node, "kind")) {
		r.fail(at, field, problem)
		return
	}
	r.others = append(r.others, fmt.Sprintf("%s:%d", at.file, at.before+at.node.Line))
}

func (r *reader) list(at place, items *yaml.Node, preset metav1.TypeMeta) {
	if items.Kind != yaml.SequenceNode && items.Tag != "!!null" {
		r.fail(at, "items", "is "+shown(items)+", want a list written out")
		return
	}
	for _, item := range items.Content {
		r.object(place{file: at.file, node: item, before: at.before}, preset)
	}
}

// text is the value of a field that holds text.
func text(node *yaml.Node, field string) string {
	if _, value := child(node, field); value != nil && follow(value).Tag == "!!str" {
		return follow(value).Value
	}
	return ""
}

// kind reads an object of a kind that decides, and passes over the others.
func (r *reader) kind(at place, t metav1.TypeMeta) {
	group, version, _ := strings.Cut(t.APIVersion, "/")
	if decides(t, group) && isTemplate(at.node) {
		r.fail(at, "", templateProblem)
		return
	}
	switch {
	case t.APIVersion == "v1" && t.Kind == "Namespace":
		r.namespace(at)
	case t.APIVersion == "v1" && t.Kind == "Pod":
		r.pod(at)
	case t.APIVersion == "v1" && t.Kind == "Node":
		r.node(at)
	case t.APIVersion == "networking.k8s.io/v1" && t.Kind == "NetworkPolicy":
		r.networkPolicy(at)
	case group == policykube.ClusterGroup && slices.Contains(policykube.ClusterVersions(), version) && t.Kind == "ClusterNetworkPolicy":
		r.clusterNetworkPolicy(at)
	case group == "kustomize.config.k8s.io":
		r.mistakes = append(r.mistakes, kustomizationMistake(at.file))
	case isPolicy(t.Kind) || group == "policy.networking.k8s.io" || group == "networking.k8s.io" && !slices.Contains(otherNetworking(), t.Kind):
		at.name = t.Kind
		r.fail(at, "apiVersion", fmt.Sprintf("%s %s is not a policy that Kith knows: %s", t.APIVersion, t.Kind, knownPolicies))
	case t.APIVersion == "v1" && t.Kind == "Service":
		r.service(at)
	case group == "autoscaling" && t.Kind == "HorizontalPodAutoscaler":
		r.autoscaler(at)
	case isWorkload(t):
		r.workload(at, t.Kind)
	default:
		r.passedOver[t.Kind]++
	}
}

// otherNetworking are the kinds of networking.k8s.io that no policy looks at. What else is in that group is a policy's kind
// written wrong.
func otherNetworking() []string {
	return []string{"Ingress", "IngressClass", "IPAddress", "ServiceCIDR"}
}

// decides says whether an object of this type is read.
func decides(t metav1.TypeMeta, group string) bool {
	return strings.HasSuffix(group, "networking.k8s.io") || isPolicy(t.Kind) || isWorkload(t) ||
		t.APIVersion == "v1" && slices.Contains([]string{"Namespace", "Pod", "Node"}, t.Kind)
}

const knownPolicies = "it knows networking.k8s.io/v1 NetworkPolicy and policy.networking.k8s.io/v1beta1 or v1alpha2 ClusterNetworkPolicy"

// take decodes an object strictly, except below the fields in open, and says whether it can be used. One that was there
// before, the same to the letter, cannot, and is no mistake.
func (r *reader) take(at *place, kind string, to metav1.Object, open ...string) bool {
	before := len(r.mistakes)
	at.name = nameOf(at.node, kind)
	d := decoder{
		fields: r.fields, open: open,
		fail: func(line int, field, problem string) { r.failLine(*at, line, field, problem) },
		unknown: func(line int, field string) {
			field = kind + " " + withoutIndex(field)
			if _, whole := to.(*workloadObject); !whole && r.newer[field] == "" {
				r.newer[field] = fmt.Sprintf("%s:%d", at.file, at.before+line)
			}
		},
	}
	d.decode(at.node, to)
	again := r.metadata(*at, kind, to, before)
	return !again && len(r.mistakes) == before
}

// withoutIndex makes spec.containers[].image of spec.containers[3].image.
func withoutIndex(field string) string {
	return step.ReplaceAllStringFunc(field, func(s string) string {
		if strings.HasPrefix(s, "[") {
			return "[]"
		}
		return s
	})
}

// metadata checks what the API server would, but for fields of which a mistake since is known already. It says whether
// the same object, to the letter, was there before.
func (r *reader) metadata(at place, kind string, o metav1.Object, since int) (again bool) {
	_, makesPods := o.(*workloadObject)
	generated := makesPods && o.GetName() == "" && o.GetGenerateName() != ""
	if generated {
		o.SetName(strings.TrimRight(o.GetGenerateName(), "-")) // the API server puts a word behind it
	}
	if o.GetName() == "" {
		if !r.isKnown("metadata.name", since) {
			r.fail(at, "metadata.name", "is missing")
		}
		return false
	}
	if problems := validation.IsDNS1123Subdomain(o.GetName()); len(problems) > 0 {
		r.fail(at, "metadata.name", problems[0])
	}
	r.setNamespace(kind, o)
	if problems := validation.IsDNS1123Label(o.GetNamespace()); o.GetNamespace() != "" && len(problems) > 0 {
		r.fail(at, "metadata.namespace", problems[0])
	}
	r.labels(at, o.GetLabels())
	here := seenObject{where: fmt.Sprintf("%s:%d", at.file, at.before+at.node.Line), digest: digest(r.seed, at.node)}
	key := objectKey(kind, o.GetNamespace(), o.GetName())
	first, twice := r.seen[key]
	switch {
	case !twice || generated:
		r.seen[key] = here
	case first.digest == here.digest:
		r.again++
		return true
	default:
		r.fail(at, "", "is given already at "+first.where)
	}
	return false
}

// isKnown says whether a mistake since is one of a field, or of what is in it or around it.
func (r *reader) isKnown(field string, since int) bool {
	return slices.ContainsFunc(r.mistakes[since:], func(err error) bool {
		m, ok := err.(*Mistake)
		return ok && m.Field != "" && (isBelow(field, m.Field) || isBelow(m.Field, field))
	})
}

func objectKey(kind, namespace, name string) string { return kind + " " + namespace + "/" + name }

// setNamespace gives what names no namespace the one that kubectl would, and takes it from what is in none.
func (r *reader) setNamespace(kind string, o metav1.Object) {
	switch {
	case kind == "Namespace" || kind == "Node" || kind == "ClusterNetworkPolicy":
		o.SetNamespace("")
	case o.GetNamespace() == "":
		r.unnamed++
		o.SetNamespace(r.home)
	}
}

func (r *reader) labels(at place, labels map[string]string) {
	_, meta := child(at.node, "metadata")
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		problems := append(validation.IsQualifiedName(key), validation.IsValidLabelValue(labels[key])...)
		if len(problems) == 0 {
			continue
		}
		line := at.node.Line
		if _, all := child(meta, "labels"); all != nil {
			if name, _ := child(all, key); name != nil {
				line = name.Line
			}
		}
		r.failLine(at, line, "metadata.labels", fmt.Sprintf("%s=%q: %s", key, labels[key], problems[0]))
	}
}

func (r *reader) namespace(at place) {
	var o corev1.Namespace
	if !r.take(&at, "Namespace", &o, "spec", "status") {
		return
	}
	ns, err := identitykube.Namespace(&o)
	if err != nil {
		r.fail(at, "", err.Error())
		return
	}
	r.cluster.Namespaces = append(r.cluster.Namespaces, ns)
}

func (r *reader) node(at place) {
	var o corev1.Node
	if !r.take(&at, "Node", &o, "spec", "status") {
		return
	}
	// What is not an address the agent leaves out, which nobody would see here.
	for i, cidr := range o.Spec.PodCIDRs {
		r.prefix(at, fmt.Sprintf("spec.podCIDRs[%d]", i), cidr)
	}
	if len(o.Spec.PodCIDRs) == 0 && o.Spec.PodCIDR != "" {
		r.prefix(at, "spec.podCIDR", o.Spec.PodCIDR)
	}
	for i, a := range o.Status.Addresses {
		if a.Type == corev1.NodeInternalIP || a.Type == corev1.NodeExternalIP {
			r.address(at, fmt.Sprintf("status.addresses[%d].address", i), a.Address, nil)
		}
	}
	// One manifest does not say which nodes there are: what it asks for is taken as granted.
	n := overlaykube.Node(&o)
	r.cluster.Nodes = append(r.cluster.Nodes, policy.Node{
		Name: n.Name, Labels: n.Labels, PodCIDRs: n.Requested, Addresses: slices.Concat(n.InternalIPs, n.ExternalIPs),
		Mesh: overlay.MeshAddresses(n.Requested),
	})
}

func (r *reader) prefix(at place, field, s string) {
	if _, err := netip.ParsePrefix(s); err != nil {
		r.fail(at, field, fmt.Sprintf("%q is not an address range: write one like 10.244.1.0/24", s))
	}
}

func (r *reader) address(at place, field, s string, to []netip.Addr) []netip.Addr {
	a, err := netip.ParseAddr(s)
	if err != nil {
		r.fail(at, field, fmt.Sprintf("%q is not an address", s))
		return to
	}
	return append(to, a.Unmap())
}
