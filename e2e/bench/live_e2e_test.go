//go:build e2e

package bench

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kithnet/kith/e2e/cluster"
	"github.com/kithnet/kith/e2e/parts"
	"github.com/kithnet/kith/e2e/window"
)

const (
	livePolicies = 1000
	liveChanges  = 100
	liveSpace    = "live"
	liveWait     = 20 * time.Second
)

// BenchmarkPolicyToLive is how long after the API server's answer to a new policy the last datagram passes that the
// policy denies, on connections that are open, in a cluster with 1,000 policies; and after its deletion until the first
// passes again. There are connections of UDP and of TCP, between pods of one node and between nodes; the slowest counts.
// A TCP connection that was cut goes on when it may, after its sender's retransmission timeout: that time is the
// sender's, and only UDP tells when the way was open.
func BenchmarkPolicyToLive(b *testing.B) {
	l := &live{B: b, Cluster: openCluster(b), ends: map[netip.Addr]*window.End{}}
	l.prepare()
	for b.Loop() {
		var cut, open []time.Duration
		for range liveChanges {
			cut = append(cut, l.change(denied))
			open = append(open, l.change(allowed))
		}
		report := func(name string, s window.Spread) {
			b.Logf("%s: %s", name, s)
			b.ReportMetric(float64(s.P50.Microseconds())/1000, name+"_p50_ms")
			b.ReportMetric(float64(s.P99.Microseconds())/1000, name+"_p99_ms")
		}
		report("cut", window.SpreadOf(cut))
		report("open", window.SpreadOf(open))
	}
	b.Logf("datagrams of a flow were apart by %s", l.lab.Pace())
	b.ReportMetric(0, "ns/op")
}

// live is a cluster with open connections to a pod.
type live struct {
	*testing.B
	*cluster.Cluster
	client kubernetes.Interface
	lab    *window.Lab
	flows  []*window.Flow // of datagrams
	tcp    []*window.Flow

	mu   sync.Mutex
	ends map[netip.Addr]*window.End
}

func (l *live) prepare() {
	l.Helper()
	ctx := l.Context()
	config, err := clientcmd.BuildConfigFromFlags("", l.Kubeconfig())
	must(l.B, "read kubeconfig", err)
	config.QPS, config.Burst = 500, 500
	l.client, err = kubernetes.NewForConfig(config)
	must(l.B, "make client", err)
	for _, n := range l.Members {
		root, err := l.Root(n.Name)
		must(l.B, "find node", err)
		must(l.B, "watch pods", window.Spy(ctx, window.Site{Node: n.Name, Root: root, Family: unix.AF_INET}, l.found))
	}
	l.Cleanup(func() {
		if _, err := l.Kubectl(context.Background(), "delete", "namespace", liveSpace, "--timeout=300s"); err != nil {
			l.Error(err)
		}
	})
	here, there := l.Members[0].Name, l.Members[1].Name
	must(l.B, "make pods", l.Apply(ctx, "apiVersion: v1\nkind: Namespace\nmetadata: {name: "+liveSpace+"}\n---\n"+
		livePod("receiver", here)+livePod("local", here)+livePod("remote", there)))
	for i := range livePolicies {
		_, err := l.client.NetworkingV1().NetworkPolicies(liveSpace).Create(ctx, livePolicy(i), metav1.CreateOptions{})
		must(l.B, "make policy", err)
	}
	receiver := l.end("receiver")
	l.lab = window.Start(ctx, time.Millisecond)
	for _, name := range []string{"local", "remote"} {
		f, err := l.lab.Flow(l.end(name), receiver)
		must(l.B, "start flow", err)
		l.flows = append(l.flows, f)
		l.opens(f)
		f, err = l.lab.Stream(l.end(name), receiver)
		must(l.B, "open connection", err)
		l.tcp = append(l.tcp, f)
		l.opens(f)
	}
}

func (l *live) found(e *window.End) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ends[e.Address] = e
}

// end waits for a pod.
func (l *live) end(name string) *window.End {
	l.Helper()
	for began := time.Now(); time.Since(began) < 6*liveWait; time.Sleep(200 * time.Millisecond) {
		p, err := l.client.CoreV1().Pods(liveSpace).Get(l.Context(), name, metav1.GetOptions{})
		must(l.B, "read pod", err)
		a, _ := netip.ParseAddr(p.Status.PodIP)
		l.mu.Lock()
		e := l.ends[a]
		l.mu.Unlock()
		if e != nil {
			return e
		}
	}
	l.Fatalf("pod %s does not come up", name)
	return nil
}

func livePod(name, node string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %[1]s, namespace: %[2]s, labels: {role: %[1]s}}
spec:
  nodeName: %[3]s
  terminationGracePeriodSeconds: 0
  tolerations: [{operator: Exists}]
  containers: [{name: pause, image: "%[4]s"}]
---
`, name, liveSpace, node, parts.PauseImage)
}

// livePolicy: each tenth selects the receiver too, so that all of them are in its rules.
func livePolicy(i int) *networkingv1.NetworkPolicy {
	p := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("p%d", i)}}
	p.Spec.PodSelector.MatchLabels = map[string]string{"role": fmt.Sprintf("app%d", i)}
	if i%10 == 0 {
		p.Spec.PodSelector.MatchLabels = map[string]string{"role": "receiver"}
	}
	p.Spec.Ingress = from(fmt.Sprintf("client%d", i))
	if i == 0 {
		p.Spec.Ingress = from("local", "remote")
	}
	return p
}

func from(roles ...string) []networkingv1.NetworkPolicyIngressRule {
	var peers []networkingv1.NetworkPolicyPeer
	for _, role := range roles {
		peers = append(peers, networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"role": role}}})
	}
	return []networkingv1.NetworkPolicyIngressRule{{From: peers}}
}

// change has the one policy that allows the flows deny or allow them, and says how long it took.
func (l *live) change(state expected) time.Duration {
	l.Helper()
	p := livePolicy(0)
	if state == denied {
		p.Spec.Ingress = nil
	}
	_, err := l.client.NetworkingV1().NetworkPolicies(liveSpace).Update(l.Context(), p, metav1.UpdateOptions{})
	must(l.B, "change policy", err)
	answered := time.Now()
	all := slices.Concat(l.flows, l.tcp)
	for _, f := range all {
		f.Mark(answered)
	}
	slowest := time.Duration(0)
	for _, f := range all {
		switch {
		case state == denied:
			slowest = max(slowest, l.cut(f, answered).Sub(answered))
		case slices.Contains(l.flows, f):
			slowest = max(slowest, l.opens(f).Sub(answered))
		default:
			l.opens(f)
		}
	}
	return slowest
}

// expected is what a policy makes of the flows.
type expected string

const (
	denied  expected = "denied"
	allowed expected = "allowed"
)

// opens returns when the first datagram arrived.
func (l *live) opens(f *window.Flow) time.Time {
	l.Helper()
	for began := time.Now(); time.Since(began) < liveWait; time.Sleep(time.Millisecond) {
		if c := f.Count(); c.Delivered > 0 {
			return c.First
		}
	}
	l.Fatalf("%s: no datagram passes", f)
	return time.Time{}
}

// cut returns when the last datagram that passed after a change was sent; if none did, when the change was.
func (l *live) cut(f *window.Flow, change time.Time) time.Time {
	l.Helper()
	const quiet = 200 * time.Millisecond
	for last := change; time.Since(change) < liveWait; time.Sleep(5 * time.Millisecond) {
		if c := f.Count(); c.LastSent.After(last) {
			last = c.LastSent
		}
		if time.Since(last) > quiet {
			return last
		}
	}
	l.Fatalf("%s: datagrams still pass", f)
	return time.Time{}
}
