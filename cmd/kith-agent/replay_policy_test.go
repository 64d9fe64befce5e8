package main

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy/ruleset"
	"github.com/kithnet/kith/policy/ruleset/walk"
)

// TestEmptyListIsNotAllowAll is CVE-2025-64715: a list that resolved to nothing was read as no restriction.
func TestEmptyListIsNotAllowAll(t *testing.T) {
	for name, ingress := range map[string]string{
		"no rules":               `[]`,
		"a selector of nobody":   `[{from: [{podSelector: {matchLabels: {app: nobody}}}]}]`,
		"a namespace of nobody":  `[{from: [{namespaceSelector: {matchLabels: {team: green}}}]}]`,
		"a port name of nobody":  `[{ports: [{port: nosuch}]}]`,
		"a block all cut out of": `[{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/9, 10.128.0.0/9]}}]}]`,
	} {
		t.Run(name, func(t *testing.T) {
			play(t, pods+`
---
kind: NetworkPolicy
metadata: {namespace: a, name: p}
spec: {podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress], ingress: `+ingress+`}
`).denies("10.244.1.10 > 10.244.1.11 TCP 80", "10.244.2.10 > 10.244.1.11 TCP 80", "203.0.113.1 > 10.244.1.11 TCP 80", "fd00:2::10 > fd00:1::11 UDP 53")
		})
	}
	for name, ingress := range map[string]string{"an empty rule": `[{}]`, "empty lists in a rule": `[{from: [], ports: []}]`} {
		t.Run(name, func(t *testing.T) {
			play(t, pods+`
---
kind: NetworkPolicy
metadata: {namespace: a, name: p}
spec: {podSelector: {}, ingress: `+ingress+`}
`).allows("10.244.2.10 > 10.244.1.11 TCP 80", "203.0.113.1 > 10.244.1.11 ICMP 0")
		})
	}
}

// TestPodLabelsForgeNoNamespace is CVE-2023-39347: labels that a pod's owner may set changed what else the pod was.
func TestPodLabelsForgeNoNamespace(t *testing.T) {
	play(t, pods+`
---
kind: Pod
metadata:
  namespace: b
  name: forger
  labels:
    app: forger
    team: red
    kubernetes.io/metadata.name: a
    io.kubernetes.pod.namespace: a
    io.cilium.k8s.namespace.labels.team: red
    kith.network/namespace: a
status: {podIPs: [{ip: 10.244.2.66}]}
---
kind: NetworkPolicy
metadata: {namespace: a, name: by-name}
spec: {podSelector: {matchLabels: {app: db}}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: a}}}]}]}
---
kind: NetworkPolicy
metadata: {namespace: a, name: by-label}
spec: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: red}}, podSelector: {}}]}]}
---
kind: NetworkPolicy
metadata: {namespace: a, name: by-both}
spec: {podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: red}}, podSelector: {matchLabels: {app: forger}}}]}]}
`).denies("10.244.2.66 > 10.244.1.11 TCP 80", "10.244.2.66 > 10.244.1.10 TCP 80")
}

// TestOneEndsYesIsNotTheOthers is CVE-2022-0567: an egress policy of the sender switched the receiver's ingress off.
func TestOneEndsYesIsNotTheOthers(t *testing.T) {
	play(t, pods+`
---
kind: NetworkPolicy
metadata: {namespace: a, name: web-may-send}
spec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{}]}
---
kind: NetworkPolicy
metadata: {namespace: a, name: db-takes-nothing}
spec: {podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress]}
---
kind: NetworkPolicy
metadata: {namespace: b, name: web-takes-nothing}
spec: {podSelector: {}, policyTypes: [Ingress]}
`).denies("10.244.1.10 > 10.244.1.11 TCP 80", "10.244.1.10 > 10.244.2.10 TCP 80", "fd00:1::10 > fd00:1::11 TCP 80")
}

// TestSameNodeIsNoWayRound: both pods are on one node, and their packets never leave it.
func TestSameNodeIsNoWayRound(t *testing.T) {
	play(t, pods+`
---
kind: NetworkPolicy
metadata: {namespace: a, name: p}
spec: {podSelector: {matchLabels: {app: db}}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}}]}]}
`).denies("10.244.1.10 > 10.244.1.11 TCP 80", "fd00:1::10 > fd00:1::11 UDP 53")
}

// TestEndPortIsNotIgnored: KEP-2079, also by those that see the first port only.
func TestEndPortIsNotIgnored(t *testing.T) {
	r := play(t, pods+`
---
kind: NetworkPolicy
metadata: {namespace: a, name: p}
spec: {podSelector: {matchLabels: {app: db}}, ingress: [{ports: [{port: 8000, endPort: 8100}]}]}
`)
	r.allows("10.244.2.10 > 10.244.1.11 TCP 8000", "10.244.2.10 > 10.244.1.11 TCP 8050", "10.244.2.10 > 10.244.1.11 TCP 8100")
	r.denies("10.244.2.10 > 10.244.1.11 TCP 7999", "10.244.2.10 > 10.244.1.11 TCP 8101", "10.244.2.10 > 10.244.1.11 UDP 8050")
}

// TestExceptDoesNotLeak: what one block leaves out stays out, until another block of the rule has it.
func TestExceptDoesNotLeak(t *testing.T) {
	const block = pods + `
---
kind: NetworkPolicy
metadata: {namespace: a, name: p}
spec: {podSelector: {matchLabels: {app: db}}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.244.2.0/25, 10.9.0.0/16]}}]}]}
`
	r := play(t, block)
	r.allows("10.244.1.10 > 10.244.1.11 TCP 80", "10.8.255.255 > 10.244.1.11 TCP 80", "10.10.0.0 > 10.244.1.11 TCP 80")
	r.denies("10.244.2.10 > 10.244.1.11 TCP 80", "10.9.0.0 > 10.244.1.11 TCP 80", "10.9.255.255 > 10.244.1.11 TCP 80", "11.0.0.0 > 10.244.1.11 TCP 80")
	play(t, block+`
---
kind: NetworkPolicy
metadata: {namespace: a, name: q}
spec: {podSelector: {matchLabels: {app: db}}, ingress: [{from: [{ipBlock: {cidr: 10.9.7.0/24}}]}]}
`).allows("10.9.7.1 > 10.244.1.11 TCP 80")
}

// TestRulesAreNotMerged: whom one rule names and what another opens are not one permission.
func TestRulesAreNotMerged(t *testing.T) {
	r := play(t, pods+`
---
kind: NetworkPolicy
metadata: {namespace: a, name: p}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress:
    - {from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 80}]}
    - {from: [{namespaceSelector: {matchLabels: {team: blue}}}], ports: [{port: 443}]}
---
kind: NetworkPolicy
metadata: {namespace: a, name: q}
spec: {podSelector: {matchLabels: {app: db}}, ingress: [{from: [{ipBlock: {cidr: 203.0.113.0/24}}], ports: [{port: 22}]}]}
`)
	r.allows("10.244.1.10 > 10.244.1.11 TCP 80", "10.244.2.10 > 10.244.1.11 TCP 443", "203.0.113.1 > 10.244.1.11 TCP 22")
	r.denies("10.244.1.10 > 10.244.1.11 TCP 443", "10.244.2.10 > 10.244.1.11 TCP 80", "10.244.1.10 > 10.244.1.11 TCP 22", "203.0.113.1 > 10.244.1.11 TCP 80")
}

// TestICMPIsNoWayRound: a policy of ports leaves ICMP closed, one without ports opens it.
func TestICMPIsNoWayRound(t *testing.T) {
	r := play(t, pods+`
---
kind: NetworkPolicy
metadata: {namespace: a, name: p}
spec: {podSelector: {matchLabels: {app: db}}, ingress: [{ports: [{port: 1, endPort: 65535}, {port: 1, endPort: 65535, protocol: UDP}]}]}
---
kind: NetworkPolicy
metadata: {namespace: a, name: q}
spec: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: db}}}]}]}
`)
	r.denies("10.244.2.10 > 10.244.1.11 ICMP 0", "fd00:2::10 > fd00:1::11 ICMPv6 0", "10.244.2.10 > 10.244.1.10 ICMP 0")
	r.allows("10.244.1.11 > 10.244.1.10 ICMP 0")
}

// TestReusedAddressHasNoOldIdentity: a new pod with a gone one's address is only what it is itself, on its own node and
// on others, in whichever order the events come.
func TestReusedAddressHasNoOldIdentity(t *testing.T) {
	const policy = `
---
kind: NetworkPolicy
metadata: {namespace: b, name: p}
spec: {podSelector: {}, ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: db}}}]}]}
`
	r := play(t, pods+policy)
	r.allows("10.244.1.11 > 10.244.2.10 TCP 80")
	in := walk.Input(r.cluster, "node2")
	old := in.Pods[1]
	fresh := identity.Pod{
		Namespace: "a", Name: "fresh", UID: "fresh", Created: time.Unix(1, 0), Labels: map[string]string{"app": "web"},
		Addresses: []netip.Addr{old.Addresses[0]},
	}
	for name, events := range map[string][]func(*ruleset.Compiler){
		"in order":   {func(c *ruleset.Compiler) { c.DeletePod(old.Key()) }, func(c *ruleset.Compiler) { c.PutPod(fresh) }},
		"turned":     {func(c *ruleset.Compiler) { c.PutPod(fresh) }, func(c *ruleset.Compiler) { c.DeletePod(old.Key()) }},
		"never gone": {func(c *ruleset.Compiler) { c.PutPod(fresh) }},
	} {
		t.Run(name, func(t *testing.T) {
			c := ruleset.NewCompiler()
			c.SetNetwork(in.Network)
			c.ReplaceNamespaces(in.Namespaces)
			c.ReplacePods(in.Pods)
			c.ReplacePolicies(in.Policies)
			c.ReplaceAttachments(in.Attachments)
			for _, event := range events {
				event(c)
			}
			packet := walk.Packet{
				In: ruleset.Devices[0], Out: in.Attachments[0].Interface, Source: old.Addresses[0], Destination: netip.MustParseAddr("10.244.2.10"),
				Protocol: 6, TCPFlags: 2, Ports: &walk.Ports{Source: 40000, Destination: 80},
				Conn: walk.Conn{State: ruleset.StateNew, Original: old.Addresses[0], Reply: netip.MustParseAddr("10.244.2.10")},
			}
			if got, err := walk.Hook(c.Ruleset(), "forward", packet); err != nil || !got.Dropped {
				t.Errorf("delivered (%v)", err)
			}
		})
	}
}

// TestEndingPodSendsNothingInClear is CVE-2025-32793: while a pod ended, what it still sent left the node in clear.
// Whatever is known of it, its packets leave by the mesh or not at all.
func TestEndingPodSendsNothingInClear(t *testing.T) {
	r := play(t, pods)
	in := walk.Input(r.cluster, "node1")
	for name, attachments := range map[string][]ruleset.Attachment{"attached": in.Attachments, "gone": nil} {
		t.Run(name, func(t *testing.T) {
			in.Attachments = attachments
			rules := ruleset.Compile(in)
			for _, to := range []string{"10.244.2.10", "10.244.2.99"} {
				packet := walk.Packet{Out: "eth0", Source: netip.MustParseAddr("10.244.1.10"), Destination: netip.MustParseAddr(to), Protocol: 17, Ports: &walk.Ports{Source: 1, Destination: 2}}
				if got, err := walk.Hook(rules, "postrouting", packet); err != nil || !got.Dropped {
					t.Errorf("to %s: leaves in clear (%v)", to, err)
				}
			}
			away := walk.Packet{Out: "eth0", Source: netip.MustParseAddr("10.244.1.10"), Destination: netip.MustParseAddr("203.0.113.1"), Protocol: 17}
			if got, err := walk.Hook(rules, "postrouting", away); err != nil || !got.Dropped {
				t.Errorf("out of the cluster: leaves under the pod's address (%v)", err)
			}
		})
	}
}

// TestPrioritiesDoNotWrapRound is CVE-2026-25804: with many priorities, a rule came to stand where another belonged.
func TestPrioritiesDoNotWrapRound(t *testing.T) {
	var manifests strings.Builder
	manifests.WriteString(pods)
	for priority := 0; priority <= 1000; priority += 8 {
		action := "Deny"
		if priority > 0 {
			action = "Accept"
		}
		fmt.Fprintf(&manifests, `
---
kind: ClusterNetworkPolicy
metadata: {name: p%d}
spec:
  tier: Admin
  priority: %d
  subject: {namespaces: {matchLabels: {team: red}}}
  ingress: [{action: %s, from: [{namespaces: {}}]}]
`, priority, priority, action)
	}
	play(t, manifests.String()).denies("10.244.1.10 > 10.244.1.11 TCP 80", "10.244.2.10 > 10.244.1.11 UDP 53", "fd00:2::10 > fd00:1::11 TCP 80")
}
