package main

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	policyv1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"
	"sigs.k8s.io/yaml"

	"github.com/kithnet/kith/identity"
	identitykube "github.com/kithnet/kith/identity/kube"
	"github.com/kithnet/kith/overlay"
	"github.com/kithnet/kith/policy"
	policykube "github.com/kithnet/kith/policy/kube"
	"github.com/kithnet/kith/policy/ruleset/walk"
)

// The tests of this file play the mistakes of other policy engines again, from the manifests a person would apply to
// what the nodes' rules do with the packets. The stage mistakes of `make test` puts each into
// Kith and sees its test fail.

// replay is a cluster of two nodes, 10.244.1.0/24 and 10.244.2.0/24 with fd00:1::/64 and fd00:2::/64.
type replay struct {
	*testing.T
	cluster policy.Cluster
	paths   *walk.Paths
}

// play reads manifests: Namespaces, Pods, NetworkPolicies and ClusterNetworkPolicies.
func play(t *testing.T, manifests string) *replay {
	t.Helper()
	r := &replay{T: t}
	for i := 1; i <= 2; i++ {
		node := overlay.Node{Name: fmt.Sprint("node", i), PodCIDRs: prefixes(fmt.Sprintf("10.244.%d.0/24", i), fmt.Sprintf("fd00:%d::/64", i)), InternalIPs: addrs(fmt.Sprint("172.18.0.", i))}
		r.cluster.Nodes = append(r.cluster.Nodes, network(node.Name, []overlay.Node{node}, nil).Nodes...)
	}
	for _, document := range strings.Split(manifests, "\n---\n") {
		r.read([]byte(document))
	}
	r.paths = walk.Compile(r.cluster)
	return r
}

func (r *replay) read(document []byte) {
	r.Helper()
	var kind metav1.TypeMeta
	r.must(yaml.Unmarshal(document, &kind))
	switch kind.Kind {
	case "Namespace":
		var n corev1.Namespace
		r.must(yaml.UnmarshalStrict(document, &n))
		space, err := identitykube.Namespace(&n)
		r.must(err)
		r.cluster.Namespaces = append(r.cluster.Namespaces, space)
	case "Pod":
		var p corev1.Pod
		r.must(yaml.UnmarshalStrict(document, &p))
		pod, err := identitykube.Pod(&p)
		r.must(err)
		r.cluster.Pods = append(r.cluster.Pods, pod)
	case "NetworkPolicy":
		var np networkingv1.NetworkPolicy
		r.must(yaml.UnmarshalStrict(document, &np))
		p, problems := policykube.Translate(&np)
		for _, problem := range problems {
			r.Error(problem)
		}
		r.cluster.Policies = append(r.cluster.Policies, p)
	case "ClusterNetworkPolicy":
		var cnp policyv1alpha2.ClusterNetworkPolicy
		r.must(yaml.UnmarshalStrict(document, &cnp))
		p, problems := policykube.TranslateCluster(&cnp)
		for _, problem := range problems {
			r.Error(problem)
		}
		r.cluster.Policies = append(r.cluster.Policies, p)
	default:
		r.Fatalf("no manifest: %s", document)
	}
}

func (r *replay) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func (r *replay) allows(flows ...string) { r.Helper(); r.expect(flows, true) }

func (r *replay) denies(flows ...string) { r.Helper(); r.expect(flows, false) }

// expect takes flows such as "10.244.1.10 > 10.244.2.10 TCP 80". Specification and rules must both say so.
func (r *replay) expect(flows []string, want bool) {
	r.Helper()
	for _, text := range flows {
		flow := r.flow(text)
		verdict := policy.Decide(r.cluster, flow)
		delivered, trace, err := r.paths.Flow(flow)
		if err != nil || delivered != want || verdict.Allowed != want {
			r.Errorf("%s: delivered %t (%s, %v), specification %+v; want %t", text, delivered, trace, err, verdict, want)
		}
	}
}

func (r *replay) flow(text string) policy.Flow {
	r.Helper()
	var src, dst, protocol string
	var f policy.Flow
	if _, err := fmt.Sscanf(text, "%s > %s %s %d", &src, &dst, &protocol, &f.Port); err != nil {
		r.Fatalf("flow %q: %v", text, err)
	}
	f.Source, f.Destination = netip.MustParseAddr(src), netip.MustParseAddr(dst)
	f.Protocol = map[string]identity.Protocol{"TCP": identity.TCP, "UDP": identity.UDP, "SCTP": identity.SCTP, "ICMP": 1, "ICMPv6": 58}[protocol]
	return f
}

const spaces = `
kind: Namespace
metadata: {name: a, labels: {kubernetes.io/metadata.name: a, team: red}}
---
kind: Namespace
metadata: {name: b, labels: {kubernetes.io/metadata.name: b, team: blue}}
`

// pods are web and db in namespace a, on one node, and web in namespace b, on the other.
const pods = spaces + `
---
kind: Pod
metadata: {namespace: a, name: web, labels: {app: web}}
spec: {containers: [{name: c, ports: [{name: http, containerPort: 80}]}]}
status: {podIPs: [{ip: 10.244.1.10}, {ip: "fd00:1::10"}]}
---
kind: Pod
metadata: {namespace: a, name: db, labels: {app: db}}
status: {podIPs: [{ip: 10.244.1.11}, {ip: "fd00:1::11"}]}
---
kind: Pod
metadata: {namespace: b, name: web, labels: {app: web}}
status: {podIPs: [{ip: 10.244.2.10}, {ip: "fd00:2::10"}]}
`
