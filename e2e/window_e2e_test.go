//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kithnet/kith/e2e/cluster"
	"github.com/kithnet/kith/e2e/parts"
	"github.com/kithnet/kith/e2e/window"
)

const (
	windowStarts    = 240
	windowBatch     = 24
	windowKills     = 50
	windowFlips     = 50
	windowReuses    = 50
	windowRest      = 300 * time.Millisecond
	windowNamespace = "window"
	// settled is how long a change may take on a machine that is busy with other things. Within it a flow that the
	// change forbids may still pass. What changes really take is printed, and held by the benchmark PolicyToLive.
	settled = 2 * time.Second
	// patience is how long an allowed datagram may be waited for.
	patience = 60 * time.Second
)

// TestNoOpenWindow sends a datagram a millisecond on many flows, from each pod's first instant, and counts those
// delivered that policy denies, while pods start, agents die, labels change, addresses are used again, the API server
// is away, Kith is upgraded, and a namespace ends with its policies.
//
// Wrong is a delivered datagram of a flow that was denied both before and after whatever happens meanwhile, at any
// time; and, after a change that denies what was allowed, one sent later than the time settled after the API server's
// answer to the change. For a pod that starts there is no before: from the moment its network namespace exists, policy
// and labels decide as the API server has them. Which flows are allowed does not depend on the address: a datagram that
// meets another pod than it was sent to, because the address changed hands, counts for its own flow.
//
// The twin: how long the first allowed datagram takes after ADD returned to the container runtime, by the kernel's clock of
// both. Told are two times: when the first arrived, and when the last that was lost before it was sent. They differ by the
// way, and by how late this test was itself with the next. The first is told also from when the agent had done its part,
// which is earlier: other plugins of the chain follow it.
func TestNoOpenWindow(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Minute) // nine were needed on two cores with nothing else to do
	defer cancel()
	w := newWindow(ctx, t, time.Millisecond)
	t.Run("Starts", func(t *testing.T) { w.in(t).starts(ctx) })
	t.Run("Kills", func(t *testing.T) { w.in(t).kills(ctx) })
	t.Run("Flips", func(t *testing.T) { w.in(t).flips(ctx) })
	t.Run("APIAway", func(t *testing.T) { w.in(t).apiAway(ctx) })
	t.Run("Upgrade", func(t *testing.T) { w.in(t).upgrade(ctx) })
	t.Run("NamespaceEnds", func(t *testing.T) { w.in(t).namespaceEnds(ctx) })
	t.Logf("datagrams of a flow were apart by %s", w.lab.Pace())
}

// windows is the test's cluster: all Ends by address, and standing pods of each role on each node.
type windows struct {
	*testing.T
	client kubernetes.Interface
	lab    *window.Lab
	ends   *ends
	peers  map[string]map[string]*window.End // by role and node
	names  map[*window.End]string
	used   map[netip.Addr]bool
}

// ends are the newest Ends by address.
type ends struct {
	mu        sync.Mutex
	byAddress map[netip.Addr]*window.End
	watchers  []chan *window.End
}

func (e *ends) add(end *window.End) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.byAddress[end.Address] = end
	for _, w := range e.watchers {
		w <- end
	}
}

func (e *ends) at(a netip.Addr) *window.End {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.byAddress[a]
}

// watch returns all Ends to come.
func (e *ends) watch() <-chan *window.End {
	e.mu.Lock()
	defer e.mu.Unlock()
	c := make(chan *window.End, 1000)
	e.watchers = []chan *window.End{c}
	return c
}

func (w *windows) in(t *testing.T) *windows {
	c := *w
	c.T = t
	return &c
}

func (w *windows) must(what string, err error) {
	w.Helper()
	if err != nil {
		w.Fatalf("%s: %v", what, err)
	}
}

// newWindow makes standing pods; the datagrams of their flows are apart by period.
func newWindow(ctx context.Context, t *testing.T, period time.Duration) *windows {
	t.Helper()
	w := &windows{T: t, lab: window.Start(ctx, period), ends: &ends{byAddress: map[netip.Addr]*window.End{}}, used: map[netip.Addr]bool{}, names: map[*window.End]string{}}
	config, err := clientcmd.BuildConfigFromFlags("", shared.Kubeconfig())
	w.must("read kubeconfig", err)
	config.QPS, config.Burst = 500, 500
	w.client, err = kubernetes.NewForConfig(config)
	w.must("make client", err)
	for _, n := range shared.Members {
		root, err := shared.Root(n.Name)
		w.must("find node", err)
		w.must("watch pods", window.Spy(ctx, window.Site{Node: n.Name, Root: root, Family: family()}, w.ends.add))
	}
	t.Cleanup(func() {
		_, err := shared.Kubectl(context.Background(), "delete", "namespace", windowNamespace, "window-flip", "window-end",
			"--ignore-not-found", "--timeout=120s")
		if err != nil {
			t.Error(err)
		}
	})
	w.must("make namespaces and policies", shared.Apply(ctx, windowManifests))
	waitServiceAccounts(ctx, t, windowNamespace, "window-flip")
	w.peers = w.standing(ctx)
	return w
}

// family is that of the nodes' first addresses.
func family() int {
	if shared.Stack == cluster.DualIPv6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

// Roles: targets take from friends and send to friends, guarded and servers; guarded take from friends, servers from
// targets, zoned from namespaces in the zone. Nobody isolates friends and foes.
const windowManifests = `
apiVersion: v1
kind: Namespace
metadata: {name: window}
---
apiVersion: v1
kind: Namespace
metadata: {name: window-flip, labels: {zone: inside}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: target, namespace: window}
spec:
  podSelector: {matchLabels: {role: target}}
  policyTypes: [Ingress, Egress]
  ingress: [{from: [{podSelector: {matchLabels: {role: friend}}}]}]
  egress: [{to: [{podSelector: {matchExpressions: [{key: role, operator: In, values: [friend, guarded, server]}]}}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: guarded, namespace: window}
spec:
  podSelector: {matchLabels: {role: guarded}}
  ingress: [{from: [{podSelector: {matchLabels: {role: friend}}}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: server, namespace: window}
spec:
  podSelector: {matchLabels: {role: server}}
  ingress: [{from: [{podSelector: {matchLabels: {role: target}}}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: zoned, namespace: window}
spec:
  podSelector: {matchLabels: {role: zoned}}
  ingress: [{from: [{namespaceSelector: {matchLabels: {zone: inside}}}]}]
---
`

// standing makes a pod of each role on each node.
func (w *windows) standing(ctx context.Context) map[string]map[string]*window.End {
	w.Helper()
	peers := map[string]map[string]*window.End{}
	var made []*corev1.Pod
	for _, role := range []string{"friend", "foe", "guarded", "server", "zoned", "target"} {
		peers[role] = map[string]*window.End{}
		for _, n := range shared.Members {
			made = append(made, w.create(ctx, windowNamespace, role, n.Name))
		}
	}
	peers["flip"] = map[string]*window.End{}
	for _, n := range shared.Members {
		made = append(made, w.create(ctx, "window-flip", "flip", n.Name))
	}
	for _, p := range made {
		e := w.end(ctx, p)
		peers[p.Labels["role"]][p.Spec.NodeName], w.names[e] = e, p.Name
	}
	return peers
}

// create makes a pod that does nothing: all it has is its network.
func (w *windows) create(ctx context.Context, namespace, role, node string) *corev1.Pod {
	w.Helper()
	now := int64(0)
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: role + "-", Namespace: namespace, Labels: map[string]string{"role": role}},
		Spec: corev1.PodSpec{
			NodeName: node, TerminationGracePeriodSeconds: &now,
			Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
			Containers:  []corev1.Container{{Name: "pause", Image: parts.PauseImage}},
		},
	}
	if role == "ending" {
		// It hears no signal, and so stays until its time is over.
		*p.Spec.TerminationGracePeriodSeconds = 5
		p.Spec.Containers[0] = corev1.Container{Name: "shell", Image: parts.BusyboxImage, Command: []string{"sh", "-c", "trap '' TERM; sleep 3600"}}
	}
	p, err := w.client.CoreV1().Pods(namespace).Create(ctx, p, metav1.CreateOptions{})
	w.must("make pod", err)
	return p
}

// end waits until the API server knows a pod's address, and returns its End.
func (w *windows) end(ctx context.Context, p *corev1.Pod) *window.End {
	w.Helper()
	for {
		now, err := w.client.CoreV1().Pods(p.Namespace).Get(ctx, p.Name, metav1.GetOptions{})
		w.must("read pod", err)
		if a, err := netip.ParseAddr(now.Status.PodIP); err == nil {
			if e := w.ends.at(a); e != nil {
				return e
			}
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// probe is the flows of one pair of roles, and what policy says of them.
type probe struct {
	*window.Flow
	kind    string
	allowed bool
}

func (w *windows) flow(from, to *window.End, kind string, allowed bool) probe {
	w.Helper()
	f, err := w.lab.Flow(from, to)
	w.must("start flow", err)
	return probe{f, kind, allowed}
}

// around is all flows between a target and the standing pods of one node.
func (w *windows) around(target *window.End, node string) []probe {
	w.Helper()
	where := "remote"
	if target.Node == node {
		where = "local"
	}
	peer := func(role string) *window.End { return w.peers[role][node] }
	return []probe{
		w.flow(peer("friend"), target, "friend → target, "+where, true),
		w.flow(target, peer("friend"), "target → friend, "+where, true),
		w.flow(target, peer("server"), "target → server, "+where, true),
		w.flow(peer("foe"), target, "foe → target, "+where, false),
		w.flow(target, peer("foe"), "target → foe, "+where, false),
		w.flow(target, peer("guarded"), "target → guarded, "+where, false),
	}
}

// judge reports what was delivered wrongly, and returns how many datagrams of denied flows were tried.
func (w *windows) judge(probes []probe) (tried int) {
	w.Helper()
	for _, p := range probes {
		c := p.Count()
		switch {
		case p.allowed:
		case c.Delivered > 0:
			w.Errorf("%s: %d of %d denied datagrams delivered, %s: the first %s after its pod had an address", p.kind,
				c.Delivered, c.Sent, p.Flow, c.First.Sub(later(p.From.Born, p.To.Born)).Round(time.Millisecond))
		default:
			tried += c.Sent
		}
	}
	return tried
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func stop(probes []probe) {
	for _, p := range probes {
		p.Stop()
	}
}

// started is a pod that started, with the flows around it.
type started struct {
	pod      string
	end      *window.End
	probes   []probe
	returned time.Time // ADD
}

func (s started) reached() bool {
	for _, p := range s.probes {
		if p.allowed && p.Count().Delivered == 0 {
			return false
		}
	}
	return true
}

// starts makes one pod after the other, all at once would be more work than a small machine does in the time that is
// measured, and lets them go a few at a time, so that addresses come back: a node has few. For the same reason it waits
// until those are gone.
func (w *windows) starts(ctx context.Context) {
	var all []started
	tried, reused := 0, 0
	for n := range windowStarts {
		s := w.start(ctx, n)
		if w.used[s.end.Address] {
			reused++
		}
		w.used[s.end.Address] = true
		tried += w.judge(s.probes)
		w.must("leave pod", s.end.Close())
		all = append(all, s)
		if len(all)%windowBatch == 0 {
			w.remove(ctx, all[len(all)-windowBatch:])
			w.Logf("%d of %d pods started", len(all), windowStarts)
		}
	}
	w.Logf("%d pods started, %d addresses used again, %d denied datagrams tried", windowStarts, reused, tried)
	if family() == unix.AF_INET6 {
		w.Logf("a node has too many IPv6 addresses for one to come back: address reuse is tried on clusters of IPv4 only")
	} else if reused < windowReuses {
		w.Errorf("%d addresses were used again, want %d", reused, windowReuses)
	}
	w.firstRight(all)
}

// remove returns when the pods are gone.
func (w *windows) remove(ctx context.Context, pods []started) {
	w.Helper()
	args := []string{"-n", windowNamespace, "delete", "pod", "--timeout=120s"}
	for _, s := range pods {
		args = append(args, s.pod)
	}
	_, err := shared.Kubectl(ctx, args...)
	w.must("delete pods", err)
}

// start makes a pod, on the nodes in turn, and runs flows around it as soon as it appears, until all that are allowed
// have got through and a while more. Every third has its peers on its own node.
func (w *windows) start(ctx context.Context, n int) started {
	w.Helper()
	node := func(i int) string { return shared.Members[i%len(shared.Members)].Name }
	found := w.ends.watch()
	pod := w.create(ctx, windowNamespace, "target", node(n))
	select {
	case e := <-found:
		s := started{pod: pod.Name, end: e, probes: w.around(e, node(n+n/len(shared.Members)))}
		for end := time.Now().Add(patience); time.Now().Before(end) && !s.reached(); {
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(windowRest)
		stop(s.probes)
		var err error
		s.returned, err = e.Returned(ctx)
		w.must("learn when ADD returned", err)
		return s
	case <-time.After(2 * patience):
		w.Fatalf("pod %s has no network after %s", pod.Name, 2*patience)
		return started{}
	}
}

// firstRight says how long after ADD the first datagram of each allowed flow arrived, and until when they were lost.
func (w *windows) firstRight(pods []started) {
	w.Helper()
	answered := w.answered()
	first, lost := map[string][]time.Duration{}, map[string][]time.Duration{}
	var early, chain []time.Duration
	for _, s := range pods {
		at, ok := answered[s.pod]
		if !ok {
			w.Errorf("no agent says when it answered for pod %s", s.pod)
		}
		chain = append(chain, s.returned.Sub(at))
		for _, p := range s.probes {
			c := p.Count()
			switch {
			case !p.allowed:
			case c.Delivered == 0:
				w.Errorf("%s: %s: no allowed datagram arrived", p.kind, p.Flow)
			default:
				early = append(early, max(0, c.First.Sub(at)))
				for _, kind := range []string{p.kind, "all"} {
					first[kind] = append(first[kind], max(0, c.First.Sub(s.returned)))
					lost[kind] = append(lost[kind], max(0, c.Lost.Sub(s.returned)))
				}
			}
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(first)) {
		w.Logf("first allowed datagram after ADD returned, %s: %s; the last lost before: %s", kind, window.SpreadOf(first[kind]), window.SpreadOf(lost[kind]))
	}
	w.Logf("first allowed datagram after the agent had done its part of ADD: %s; ADD returned later by %s", window.SpreadOf(early), window.SpreadOf(chain))
}

// answered is when the agents had done their part of ADD, by pod.
func (w *windows) answered() map[string]time.Time {
	w.Helper()
	all := map[string]time.Time{}
	for _, n := range shared.Members {
		root, err := shared.Root(n.Name)
		w.must("find node", err)
		times, err := window.Answered(root, windowNamespace)
		w.must("read when agents answered", err)
		maps.Copy(all, times)
	}
	return all
}

// all is the flows around every standing target, from its own node and another.
func (w *windows) all() []probe {
	w.Helper()
	var probes []probe
	for i, n := range shared.Members {
		target := w.peers["target"][n.Name]
		probes = append(probes, w.around(target, n.Name)...)
		probes = append(probes, w.around(target, shared.Members[(i+1)%len(shared.Members)].Name)...)
	}
	return probes
}

// during lets the standing flows run while something happens: none that is denied gets through, none that is allowed
// ends.
func (w *windows) during(what func()) {
	w.Helper()
	probes := w.all()
	defer stop(probes)
	time.Sleep(time.Second)
	for _, p := range probes {
		p.Mark(time.Now())
	}
	what()
	tried := w.judge(probes)
	sent, lost, gap := 0, 0, time.Duration(0)
	for _, p := range probes {
		if c := p.Count(); p.allowed {
			sent, lost, gap = sent+c.Sent, lost+c.Sent-c.Delivered, max(gap, c.Gap)
		}
		p.Mark(time.Now())
	}
	w.Logf("%d denied datagrams tried; %d of %d allowed ones lost, longest gap %s", tried, lost, sent, gap.Round(time.Millisecond))
	for _, p := range probes {
		for began := time.Now(); p.allowed && p.Count().Delivered == 0; time.Sleep(10 * time.Millisecond) {
			if time.Since(began) > patience {
				w.Errorf("%s: %s: an allowed flow has ended", p.kind, p.Flow)
				break
			}
		}
	}
	w.judge(probes)
}

func (w *windows) kills(ctx context.Context) {
	w.during(func() {
		killed := 0
		for killed < windowKills {
			for _, n := range shared.Members {
				w.kill(n.Name)
				killed++
			}
			// At another moment of its life each time.
			time.Sleep(rand.N(2 * time.Second))
		}
		w.Logf("%d agents killed", killed)
	})
	w.rollout(ctx)
}

// kill ends a node's agent, the next one if the last has not come back yet, and waits until it is gone.
func (w *windows) kill(node string) {
	w.Helper()
	for began := time.Now(); time.Since(began) < patience; time.Sleep(50 * time.Millisecond) {
		pids, err := shared.Processes(node, "kith-agent")
		w.must("find agent", err)
		if len(pids) == 0 || shared.Kill(node, "kith-agent") != nil {
			continue
		}
		for time.Since(began) < patience {
			if now, err := shared.Processes(node, "kith-agent"); err == nil && !slices.Contains(now, pids[0]) {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	w.Fatalf("no agent runs on %s", node)
}

// rollout waits for all agents. The API server may not know yet that one which it calls ready has just ended.
func (w *windows) rollout(ctx context.Context) {
	w.Helper()
	for _, n := range shared.Members {
		for began := time.Now(); ; time.Sleep(100 * time.Millisecond) {
			r, err := report(n.Name)
			if err == nil && r.Ready {
				break
			}
			if time.Since(began) > recovered {
				w.Fatalf("%s: the agent is not ready: %q (%v)", n.Name, r.Reasons, err)
			}
		}
	}
	_, err := shared.Kubectl(ctx, "-n", "kith-system", "rollout", "status", "daemonset/kith", "--timeout=180s")
	w.must("wait for agents", err)
}

// flips changes labels of senders, or of their namespace, and sees when receivers on every node follow.
func (w *windows) flips(ctx context.Context) {
	var closing, opening []time.Duration
	for i := range windowFlips {
		allow := i%2 == 1
		flips, never := w.flipFlows(i)
		for _, p := range flips {
			p.allowed = !allow
			w.awaitState(p, !allow)
		}
		w.flip(ctx, i, allow)
		answered := time.Now()
		for _, p := range flips {
			p.Mark(answered)
		}
		for _, p := range flips {
			w.awaitState(p, allow)
			c := p.Count()
			if allow {
				opening = append(opening, c.First.Sub(answered))
			} else if took := max(0, c.LastSent.Sub(answered)); c.Delivered == 0 {
				closing = append(closing, 0)
			} else if closing = append(closing, took); took > settled {
				w.Errorf("%s: denied datagrams were delivered until %s after the change", p.Flow, took)
			}
		}
		w.judge(never)
		stop(append(flips, never...))
	}
	w.Logf("%d label changes: what they deny was cut after %s", windowFlips, window.SpreadOf(closing))
	w.Logf("%d label changes: what they allow passed after %s", windowFlips, window.SpreadOf(opening))
}

// flipFlows is the flows that a change decides, on their own node and another, and one that stays denied.
func (w *windows) flipFlows(i int) (flips, never []probe) {
	w.Helper()
	here, there := shared.Members[i/2%len(shared.Members)].Name, shared.Members[(i/2+1)%len(shared.Members)].Name
	sender, receiver := w.peers["friend"], "guarded"
	if i%4 >= 2 {
		sender, receiver = w.peers["flip"], "zoned"
	}
	return []probe{
			w.flow(sender[here], w.peers[receiver][here], receiver, false),
			w.flow(sender[here], w.peers[receiver][there], receiver, false),
		}, []probe{
			w.flow(sender[here], w.peers["server"][here], "server", false),
			w.flow(sender[here], w.peers["server"][there], "server", false),
		}
}

// flip changes a pod's label or, every other time, its namespace's.
func (w *windows) flip(ctx context.Context, i int, allow bool) {
	w.Helper()
	if i%4 >= 2 {
		zone := map[bool]string{true: "inside", false: "outside"}[allow]
		_, err := w.client.CoreV1().Namespaces().Patch(ctx, "window-flip", types.MergePatchType,
			fmt.Appendf(nil, `{"metadata":{"labels":{"zone":%q}}}`, zone), metav1.PatchOptions{})
		w.must("label namespace", err)
		return
	}
	role := map[bool]string{true: "friend", false: "stranger"}[allow]
	pod := w.names[w.peers["friend"][shared.Members[i/2%len(shared.Members)].Name]]
	_, err := w.client.CoreV1().Pods(windowNamespace).Patch(ctx, pod, types.MergePatchType,
		fmt.Appendf(nil, `{"metadata":{"labels":{"role":%q}}}`, role), metav1.PatchOptions{})
	w.must("label pod", err)
}

// awaitState waits until a flow passes, or has not for a while.
func (w *windows) awaitState(p probe, passes bool) {
	w.Helper()
	const quiet = 300 * time.Millisecond
	began := time.Now()
	for time.Since(began) < patience {
		c := p.Count()
		if passes && c.Delivered > 0 {
			return
		}
		if since := later(began, c.LastSent); !passes && time.Since(since) > quiet {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	w.Errorf("%s: passes %v after %s, want %v", p.Flow, !passes, patience, passes)
}

// apiAway stops the API server for a while, in which agents die, too.
func (w *windows) apiAway(ctx context.Context) {
	w.during(func() {
		control := shared.Members[0].Name
		w.must("stop API server", shared.Signal(control, "kube-apiserver", unix.SIGSTOP))
		defer func() { w.must("continue API server", shared.Signal(control, "kube-apiserver", unix.SIGCONT)) }()
		for _, n := range shared.Members {
			w.kill(n.Name)
		}
		time.Sleep(8 * time.Second)
	})
	w.rollout(ctx)
}

func (w *windows) upgrade(ctx context.Context) {
	w.during(func() {
		_, err := shared.Kubectl(ctx, "-n", "kith-system", "rollout", "restart", "daemonset/kith")
		w.must("restart agents", err)
		w.rollout(ctx)
	})
}

// namespaceEnds deletes a namespace in which a pod takes its time to end: its policies must not go before it.
func (w *windows) namespaceEnds(ctx context.Context) {
	w.must("make namespace", shared.Apply(ctx, endManifests))
	waitServiceAccounts(ctx, w.T, "window-end")
	for _, n := range shared.Members {
		p := w.create(ctx, "window-end", "ending", n.Name)
		e := w.end(ctx, p)
		foe := w.flow(w.peers["foe"][shared.Members[0].Name], e, "foe → ending", false)
		out := w.flow(e, w.peers["foe"][shared.Members[0].Name], "ending → foe", false)
		defer func() { w.judge([]probe{foe, out}); stop([]probe{foe, out}) }()
	}
	time.Sleep(time.Second)
	_, err := shared.Kubectl(ctx, "delete", "namespace", "window-end", "--timeout=120s")
	w.must("delete namespace", err)
	time.Sleep(time.Second)
}

const endManifests = `
apiVersion: v1
kind: Namespace
metadata: {name: window-end}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed, namespace: window-end}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
---
`
