package ruleset

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
)

// TestMemoryPerPod holds everything that is kept of a remote pod, which a rule names, to less than a kilobyte.
func TestMemoryPerPod(t *testing.T) {
	const pods, limit = 10_000, 1024
	in := coffee()
	in.Policies = []policy.Policy{{
		Namespace: "coffee", Name: "all", Subject: selector(t, "*"),
		Ingress: isolate(policy.Rule{AllPorts: true, Peers: []policy.Peer{{Namespaces: selector(t, "*"), Pods: selector(t, "*")}}}),
	}}
	c := NewCompiler()
	c.SetNetwork(in.Network)
	c.ReplaceNamespaces(in.Namespaces)
	c.ReplacePods(in.Pods)
	c.ReplacePolicies(in.Policies)
	c.ReplaceAttachments(in.Attachments)
	c.Commit()
	before := heap()
	for i := range pods {
		labels := map[string]string{"app": fmt.Sprint("app", i%50), "pod-template-hash": fmt.Sprint(i % 100)}
		if i%5 == 0 {
			labels["statefulset.kubernetes.io/pod-name"] = fmt.Sprint("pod-", i)
		}
		c.PutPod(identity.Pod{
			Namespace: "coffee", Name: fmt.Sprintf("application-5d4f8c7b9-%05d", i), UID: fmt.Sprintf("e0a1c5f2-0000-4000-8000-%012x", i),
			Labels: labels, Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 200, byte(i >> 8), byte(i)})},
		})
	}
	if tx := c.Commit(); len(tx.AddElements) < pods {
		t.Errorf("%d elements for %d pods that a rule names", len(tx.AddElements), pods)
	}
	if got := (heap() - before) / pods; got > limit {
		t.Errorf("%d bytes for each pod, want at most %d", got, limit)
	} else {
		t.Logf("%d bytes for each pod", got)
	}
	runtime.KeepAlive(c)
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
