//go:build e2e

package e2e

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kithnet/kith/e2e/basics"
	"github.com/kithnet/kith/e2e/cluster"
)

const proxiedService = `
---
apiVersion: v1
kind: Service
metadata: {name: server, namespace: attacks}
spec: {type: NodePort, selector: {app: server}, ports: [{port: 80, targetPort: 8080, nodePort: 30180}]}
`

// TestOtherProxyMode: with kube-proxy in the mode in which it is not otherwise here, Services, node ports and host ports
// work, and policies see through them who is who.
func TestOtherProxyMode(t *testing.T) {
	usual, other := shared.Proxy, cluster.IPTables
	if usual == other {
		other = cluster.NFTables
	}
	t.Cleanup(func() {
		if err := shared.SetProxy(context.Background(), usual); err != nil {
			t.Error(err)
		}
	})
	if err := shared.SetProxy(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	t.Run("Services", func(t *testing.T) {
		t.Parallel()
		basics.Services(t, shared.Cluster)
	})
	t.Run("Policies", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		servicesUnderPolicy(ctx, t)
	})
}

// servicesUnderPolicy: the server takes from friends alone, which it knows by their own addresses, by whatever way they come.
func servicesUnderPolicy(ctx context.Context, t *testing.T) {
	a := newAttacks(ctx, t)
	tiersApply(ctx, t, proxiedService)
	service := a.kubectl(ctx, "get", "service", "server", "-o", "jsonpath={.spec.clusterIP}")
	ways := func(from string) map[string]string {
		return map[string]string{
			"the Service":         net.JoinHostPort(service, "80"),
			"its own node's port": net.JoinHostPort(nodeAddress(t, a.pods[from].node).String(), "30180"),
		}
	}
	for way, to := range ways("friend") {
		if got, want := a.seenAs(ctx, "friend", to, true), a.pods["friend"].address; got != want {
			t.Errorf("the friend (%s) comes to the server by %s as %s", want, way, got)
		}
	}
	var denied sync.WaitGroup
	for way, to := range ways("foe") {
		denied.Go(func() {
			if got := a.seenAs(ctx, "foe", to, false); got.IsValid() {
				t.Errorf("the foe reaches the server by %s, as %s", way, got)
			}
		})
	}
	for _, n := range shared.Members {
		denied.Go(func() {
			to := net.JoinHostPort(n.Addresses[0].String(), "30180")
			if out, err := shared.OutsideRun(ctx, "curl", "-sS", "-m", "3", "http://"+to+"/clientip"); err == nil {
				t.Errorf("who is outside reaches the server by %s, as %s", to, out)
			}
		})
	}
	denied.Wait()
}

func nodeAddress(t *testing.T, name string) netip.Addr {
	t.Helper()
	for _, n := range shared.Members {
		if n.Name == name {
			return n.Addresses[0]
		}
	}
	t.Fatalf("there is no node %s", name)
	return netip.Addr{}
}

// seenAs is the address by which the server sees a pod, if it answers: where it must, that may take kube-proxy a while.
func (a *attacks) seenAs(ctx context.Context, from, to string, must bool) netip.Addr {
	a.Helper()
	for end := time.Now().Add(hangs); ; time.Sleep(200 * time.Millisecond) {
		out, err := shared.Kubectl(ctx, "-n", attacksNamespace, "exec", from, "--", "curl", "-sS", "-m", "3", "http://"+to+"/clientip")
		if seen, bad := netip.ParseAddrPort(strings.TrimSpace(out)); err == nil && bad == nil {
			return seen.Addr()
		}
		if !must || time.Now().After(end) {
			return netip.Addr{}
		}
	}
}
