//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kithnet/kith/e2e/cluster"
	"github.com/kithnet/kith/e2e/window"
)

const (
	outagePeriod = 10 * time.Millisecond
	// healed is how long it may take after a partition until all nodes see all others and all pods reach each other.
	healed = 30 * time.Second
	// unbroken is a gap in a flow that nothing happened to: longer than a busy machine makes one, shorter than a
	// connection needs to be made anew by a timeout.
	unbroken = 5 * time.Second
	// recovered bounds how long a node takes to start anew with all its pods.
	recovered = 4 * time.Minute
)

// TestOutage parts nodes and takes the API server away for the time in KITH_E2E_OUTAGE, while datagrams run between pods
// of all pairs of nodes and a sniffer watches the underlay: nothing that policy denies is delivered, nothing crosses in
// clear, what is untouched goes on, and everything comes back within bounds.
func TestOutage(t *testing.T) {
	length := 30 * time.Second
	if text := os.Getenv("KITH_E2E_OUTAGE"); text != "" {
		var err error
		if length, err = time.ParseDuration(text); err != nil {
			t.Fatalf("KITH_E2E_OUTAGE: %v", err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 12*time.Minute+3*length)
	defer cancel()
	w := newWindow(ctx, t, outagePeriod)
	underlay, err := shared.Capture()
	w.must("watch the underlay", err)
	first, last := shared.Members[0], shared.Members[len(shared.Members)-1]
	t.Run("OneNodeCutOff", func(t *testing.T) { w.in(t).partition(ctx, last.Name, length) })
	t.Run("ControlPlaneCutOff", func(t *testing.T) { w.in(t).partition(ctx, first.Name, length) })
	t.Run("APIAway", func(t *testing.T) { w.in(t).apiLost(ctx, length) })
	seen, err := underlay.Stop()
	w.must("watch the underlay", err)
	t.Log(seen)
	if seen.Leaks > 0 || seen.MissedAt > 0 || seen.Classes[cluster.WireGuardClass] == 0 {
		t.Errorf("%d pod packets crossed the underlay in clear (%d may have been missed), %d in the tunnel", seen.Leaks, seen.MissedAt,
			seen.Classes[cluster.WireGuardClass])
	}
}

// pairs is an allowed and two denied flows from every node to every node.
func (w *windows) pairs() []probe {
	w.Helper()
	var all []probe
	for _, from := range shared.Members {
		for _, to := range shared.Members {
			friend, foe, target, guarded := w.peers["friend"], w.peers["foe"], w.peers["target"], w.peers["guarded"]
			way := ", " + from.Name + " → " + to.Name
			all = append(all, w.flow(friend[from.Name], target[to.Name], "friend → target"+way, true),
				w.flow(foe[from.Name], target[to.Name], "foe → target"+way, false),
				w.flow(target[from.Name], guarded[to.Name], "target → guarded"+way, false))
		}
	}
	return all
}

// connections is a TCP connection from each of some nodes to each.
func (w *windows) connections(nodes []cluster.Node) []probe {
	w.Helper()
	var all []probe
	for _, from := range nodes {
		for _, to := range nodes {
			f, err := w.lab.Stream(w.peers["friend"][from.Name], w.peers["target"][to.Name])
			w.must("connect", err)
			all = append(all, probe{f, "connection friend → target, " + from.Name + " → " + to.Name, true})
		}
	}
	return all
}

// split chooses the flows for which something holds, and the others.
func split(all []probe, holds func(probe) bool) (chosen, others []probe) {
	for _, p := range all {
		if holds(p) {
			chosen = append(chosen, p)
		} else {
			others = append(others, p)
		}
	}
	return chosen, others
}

func mark(probes []probe) {
	now := time.Now()
	for _, p := range probes {
		p.Mark(now)
	}
}

// reached waits until every allowed flow has delivered since its mark, and says when the last one first did.
func (w *windows) reached(probes []probe, limit time.Duration) (last time.Time) {
	w.Helper()
	began := time.Now()
	for _, p := range probes {
		for p.allowed && p.Count().Delivered == 0 {
			if time.Since(began) > limit {
				w.Fatalf("%s: %s: nothing arrived in %s", p.kind, p.Flow, limit)
			}
			time.Sleep(20 * time.Millisecond)
		}
		last = later(last, p.Count().First)
	}
	return last
}

// wentOn holds that no denied datagram was delivered, and that the allowed flows never stood still.
func (w *windows) wentOn(what string, probes []probe) {
	w.Helper()
	tried := w.judge(probes)
	sent, lost, gap := 0, 0, time.Duration(0)
	for _, p := range probes {
		if !p.allowed {
			continue
		}
		c := p.Count()
		sent, lost, gap = sent+c.Sent, lost+c.Sent-c.Delivered, max(gap, c.Gap)
		if c.Delivered == 0 || c.Gap > unbroken || time.Since(c.LastSent) > unbroken {
			w.Errorf("%s: %s: did not go on: %+v", p.kind, p.Flow, c)
		}
	}
	w.Logf("%s: %d denied datagrams tried; %d of %d allowed ones lost, longest gap %s", what, tried, lost, sent, gap.Round(time.Millisecond))
}

func (w *windows) pass(ctx context.Context, what string, until time.Time) {
	w.Helper()
	select {
	case <-ctx.Done():
		w.Fatalf("%s: %v", what, ctx.Err())
	case <-time.After(time.Until(until)):
	}
}

// partition cuts a node off from all others, which are enough to go on without it.
func (w *windows) partition(ctx context.Context, node string, length time.Duration) {
	probes := w.pairs()
	defer stop(probes)
	w.reached(probes, patience)
	w.must("cut "+node+" off", shared.Cut(node))
	w.Cleanup(func() { _ = shared.Heal(node) })
	mark(probes)
	w.pass(ctx, "partition", time.Now().Add(length))
	across, others := split(probes, func(p probe) bool { return (p.From.Node == node) != (p.To.Node == node) })
	w.wentOn("pairs on one side", others)
	for _, p := range across {
		if c := p.Count(); c.Delivered > 0 {
			w.Errorf("%s: %d datagrams crossed the partition", p.Flow, c.Delivered)
		}
	}
	for _, n := range shared.Members {
		w.Logf("%s, parted for %s: %s", n.Name, length, w.ask(n.Name).members())
	}
	w.must("put "+node+" back", shared.Heal(node))
	began := time.Now()
	mark(probes)
	view := w.oneView(began)
	pods := w.reached(probes, patience).Sub(began)
	w.Logf("healed after %s: one view after %s, all pairs of pods reach each other after %s", length, view.Round(time.Millisecond), pods.Round(time.Millisecond))
	if view > healed || pods > healed {
		w.Errorf("that is more than %s", healed)
	}
	w.judge(probes)
}

// oneView waits until every node sees every node alive.
func (w *windows) oneView(since time.Time) time.Duration {
	w.Helper()
	for {
		whole := 0
		for _, n := range shared.Members {
			if r, err := report(n.Name); err == nil && r.whole() {
				whole++
			}
		}
		if took := time.Since(since); whole == len(shared.Members) {
			return took
		} else if took > 2*patience {
			w.Fatalf("after %s only %d nodes see all others", took, whole)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// apiLost takes the API server away. Meanwhile one node's agent is killed, and another node loses its power.
func (w *windows) apiLost(ctx context.Context, length time.Duration) {
	killed, cycled := shared.Members[1].Name, shared.Members[2].Name
	probes := append(w.pairs(), w.connections(shared.Members[:2])...)
	defer stop(probes)
	w.reached(probes, patience)
	rulesRest(ctx, w.T)
	before := map[string]nodeReport{}
	for _, n := range shared.Members {
		before[n.Name] = w.ask(n.Name)
	}
	w.must("take the API server away", shared.LoseAPI())
	w.Cleanup(func() { _ = shared.ReturnAPI() })
	began := time.Now()
	if _, err := shared.Kubectl(ctx, "get", "--raw", "/readyz", "--request-timeout=5s"); err == nil {
		w.Fatal("the API server still answers")
	}
	stopMonitors := monitorRules(w.T, shared.Members[:2]...)
	its, others := split(probes, func(p probe) bool { return p.From.Node == cycled || p.To.Node == cycled })
	mark(probes)
	w.killedAlone(killed)
	w.cyclePower(ctx, cycled)
	mark(its)
	w.pass(ctx, "API away", began.Add(length))
	w.empty(cycled)
	w.wentOn("API away", others)
	for _, p := range its {
		if c := p.Count(); c.Delivered > 0 {
			w.Errorf("%s: %s: %d datagrams delivered to or from a node that has no agent", p.kind, p.Flow, c.Delivered)
		}
	}
	restarted := time.Now()
	w.must("bring the API server back", shared.ReturnAPI())
	w.converge(ctx, restarted, cycled)
	w.wentOn("API away and back", others)
	for node, changes := range stopMonitors() {
		w.onlyAddressesOf(ctx, cycled, node, changes)
	}
	for _, n := range shared.Members[:2] {
		now := w.ask(n.Name)
		if was, is := before[n.Name].Peers, now.Peers; !reflect.DeepEqual(was, is) {
			w.Errorf("%s: the peers have changed: %+v, now %+v", n.Name, was, is)
		}
		for _, way := range now.Ways {
			if way.Node != cycled && way.PeerRemade.After(began) {
				w.Errorf("%s: the peer %s was made anew though nothing had happened to it", n.Name, way.Node)
			}
		}
	}
}

// killedAlone kills an agent, and waits until the next one is in the mesh by what is on the node's disk.
func (w *windows) killedAlone(node string) {
	w.Helper()
	began := time.Now()
	w.kill(node)
	for {
		r, err := report(node)
		if err == nil && r.Started.After(began) && r.whole() && len(r.Peers) == len(shared.Members)-1 {
			w.Logf("%s: agent killed, the next one is in the mesh after %s without the API server; it waits: %q", node,
				time.Since(began).Round(time.Millisecond), r.Reasons)
			return
		}
		if time.Since(began) > 2*patience {
			w.Fatalf("%s: no agent is in the mesh again: %+v (%v)", node, r, err)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// cyclePower restarts a node, and waits until its kubelet runs.
func (w *windows) cyclePower(ctx context.Context, node string) {
	w.Helper()
	w.must("cycle power of "+node, shared.Restart(node))
	for began := time.Now(); ; time.Sleep(200 * time.Millisecond) {
		if pids, err := shared.Processes(node, "kubelet"); err == nil && len(pids) > 0 {
			break
		}
		if time.Since(began) > recovered {
			w.Fatalf("%s does not come back", node)
		}
	}
	root, err := shared.Root(node)
	w.must("find node", err)
	w.must("watch pods", window.Spy(ctx, window.Site{Node: node, Root: root, Family: family()}, w.ends.add))
}

// empty holds that a node has nothing that packets of pods could pass by. It has no agent either: its kubelet knows of no
// pod before the API server tells it.
func (w *windows) empty(node string) {
	w.Helper()
	for _, program := range []string{"kith-agent", "pause"} {
		pids, err := shared.Processes(node, program)
		w.must("find processes", err)
		if len(pids) > 0 {
			w.Errorf("%s: %d %s run without the API server", node, len(pids), program)
		}
	}
	links, err := shared.ExecRun(node, "ip", "-o", "link")
	w.must("read links", err)
	if strings.Contains(links, "kith") {
		w.Errorf("%s has links of Kith without an agent:\n%s", node, links)
	}
	w.Logf("%s is up again without the API server: no agent, no pods, no mesh", node)
}

// converge waits until every node is as it should be, with new pods on the one that was restarted.
func (w *windows) converge(ctx context.Context, began time.Time, restarted string) {
	w.Helper()
	ready := map[string]bool{}
	for len(ready) < len(shared.Members) {
		for _, n := range shared.Members {
			if r, err := report(n.Name); !ready[n.Name] && err == nil && r.Ready && r.whole() {
				ready[n.Name] = true
				w.Logf("%s enforces and sees all others %s after the API server came back", n.Name, time.Since(began).Round(100*time.Millisecond))
			}
		}
		if time.Since(began) > recovered {
			w.Fatalf("%s after the API server came back only these are ready: %v", recovered, ready)
		}
		time.Sleep(200 * time.Millisecond)
	}
	for role, peers := range w.peers {
		old := peers[restarted]
		name, namespace := w.names[old], windowNamespace
		if role == "flip" {
			namespace = "window-flip"
		}
		peers[restarted] = w.reborn(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace}}, old)
		w.names[peers[restarted]] = name
	}
	probes := w.pairs()
	defer stop(probes)
	pods := w.reached(probes, recovered)
	w.Logf("all pairs of pods, those of the restarted node too, reach each other %s after the API server came back", pods.Sub(began).Round(100*time.Millisecond))
	w.judge(probes)
}

// reborn waits for a pod's new End.
func (w *windows) reborn(ctx context.Context, p *corev1.Pod, old *window.End) *window.End {
	w.Helper()
	for began := time.Now(); time.Since(began) < recovered; time.Sleep(200 * time.Millisecond) {
		now, err := w.client.CoreV1().Pods(p.Namespace).Get(ctx, p.Name, metav1.GetOptions{})
		w.must("read pod", err)
		if a, err := netip.ParseAddr(now.Status.PodIP); err == nil {
			if e := w.ends.at(a); e != nil && e.Node == old.Node && e.Found.After(old.Born) {
				return e
			}
		}
	}
	w.Fatalf("pod %s did not come back", p.Name)
	return nil
}

// onlyAddressesOf holds that a node's table changed by the addresses of another node's pods alone: no rule went.
func (w *windows) onlyAddressesOf(ctx context.Context, other, node string, changes []string) {
	w.Helper()
	var cidrs []netip.Prefix
	for _, text := range strings.Fields(kubectl(ctx, w.T, "get", "node", other, "-o", "jsonpath={.spec.podCIDRs[*]}")) {
		cidrs = append(cidrs, netip.MustParsePrefix(text))
	}
	strange := slices.DeleteFunc(slices.Clone(changes), func(line string) bool {
		return strings.Contains(line, " element inet kith ") && namesOneIn(cidrs, line)
	})
	w.Logf("%s: %d changes to the table, by addresses of %s: %d", node, len(changes), other, len(changes)-len(strange))
	if len(strange) > 0 {
		w.Errorf("%s: the rules changed though nothing had to: %d changes, first: %q", node, len(strange), strange[0])
	}
}

// namesOneIn says whether a line has an address in one of the prefixes.
func namesOneIn(prefixes []netip.Prefix, line string) bool {
	words := strings.FieldsFunc(line, func(r rune) bool { return !strings.ContainsRune("0123456789abcdef.:", r) })
	return slices.ContainsFunc(words, func(word string) bool {
		address, err := netip.ParseAddr(word)
		return err == nil && slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(address) })
	})
}

// nodeReport is what an agent says about its node.
type nodeReport struct {
	Node     string
	Started  time.Time
	Ready    bool
	Reasons  []string
	Problems []string
	Apply    struct{ At time.Time }
	Gossip   struct{ Keys []string }
	Claim    struct{ SigningKey string }
	Members  []struct{ Node, State string }
	Peers    []struct {
		Node, PublicKey, Endpoint string
		AllowedIPs                []string
	}
	Ways []struct {
		Node       string
		PeerRemade time.Time
	}
}

func (r nodeReport) members() string {
	var all []string
	for _, m := range r.Members {
		all = append(all, m.Node+" "+m.State)
	}
	return strings.Join(all, ", ")
}

func (r nodeReport) whole() bool {
	alive := 0
	for _, m := range r.Members {
		if m.State == "alive" {
			alive++
		}
	}
	return alive == len(shared.Members)
}

// ask is report for an agent that must answer.
func (w *windows) ask(node string) nodeReport {
	w.Helper()
	r, err := report(node)
	w.must("ask "+node+"'s agent", err)
	return r
}

// report asks a node's agent by its socket: that needs neither network nor API server.
func report(node string) (r nodeReport, err error) {
	root, err := shared.Root(node)
	if err != nil {
		return r, err
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(root, "run/kith/agent.sock"))
	}
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	answer, err := client.Get("http://agent/v1/status")
	if err != nil {
		return r, err
	}
	defer answer.Body.Close()
	return r, json.NewDecoder(answer.Body).Decode(&r)
}
