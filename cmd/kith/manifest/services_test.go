package manifest

import (
	"fmt"
	"testing"
)

// TestServices: their addresses of all kinds, and the pods behind them; what is wrong in one is passed over. A node's
// address stays the node's.
func TestServices(t *testing.T) {
	found := mustRead(t, `
{apiVersion: v1, kind: Pod, metadata: {name: a, labels: {app: a, x: z}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: b, namespace: other, labels: {app: a}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: h, labels: {app: a}}, spec: {hostNetwork: true}}
---
{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {selector: {app: a}, clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, "fd00::1"], externalIPs: [192.0.2.1]}, status: {loadBalancer: {ingress: [{ip: 192.0.2.2}, {ip: 192.0.2.3}]}}}
---
{apiVersion: v1, kind: Node, metadata: {name: node}, status: {addresses: [{type: InternalIP, address: 192.0.2.3}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: headless}, spec: {selector: {app: a}, clusterIP: None}}
---
{apiVersion: v1, kind: Service, metadata: {name: foreign, namespace: other}, spec: {clusterIP: 10.96.0.2}}
---
{apiVersion: v1, kind: Service, metadata: [], spec: {clusterIP: {}}}
`)
	const want = "[{default/a [10.96.0.1 10.96.0.1 fd00::1 192.0.2.1 192.0.2.2] [default/a default/h]} {other/foreign [10.96.0.2] []}]"
	if got := fmt.Sprint(found.Services); got != want {
		t.Errorf("services %s, want %s", got, want)
	}
}
