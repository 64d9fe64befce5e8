//go:build kernel

package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/overlay"
	"github.com/kithnet/kith/overlay/wireguard"
	"github.com/kithnet/kith/policy"
	"github.com/kithnet/kith/policy/ruleset"
)

const (
	tunnelNamespace = "bench"
	tunnelPort      = 5201
	tunnelPolicies  = 1000
	tunnelPairs     = 10 // rounds of each kind in one iteration
	tunnelWarmUp    = 300 * time.Millisecond
	tunnelRound     = time.Second
)

// BenchmarkTunnelPolicy is one TCP stream from pod to pod through the tunnel, without rules and under 1,000 policies
// by turns. CPU seconds are those of wireguard-go and of this process, which is both pods; machine CPU seconds are
// those of the whole machine, the only ones that hold what the kernel's own threads do. What is kept is the median over
// pairs of neighbouring rounds, since a machine's speed drifts.
func BenchmarkTunnelPolicy(b *testing.B) {
	mode := tunnelMode(b)
	b.Run(string(mode), func(b *testing.B) {
		t := newTunnel(b, mode)
		received := t.receive()
		rules := t.rulesets()
		t.mustDeny(rules)
		var plain, policed []sample
		for b.Loop() {
			for i := range tunnelPairs {
				// What drifts over time meets both alike.
				if i%2 == 0 {
					plain = append(plain, t.round(received, [2]ruleset.Ruleset{}))
					policed = append(policed, t.round(received, rules))
				} else {
					policed = append(policed, t.round(received, rules))
					plain = append(plain, t.round(received, [2]ruleset.Ruleset{}))
				}
			}
		}
		t.report(b, plain, policed)
	})
}

// rulesets are what the two nodes' agents would load: both pods are subjects of every policy in both directions.
func (t *tunnel) rulesets() (out [2]ruleset.Ruleset) {
	const kinds, crowd = 50, 500
	everything := labels.Everything()
	var policies []policy.Policy
	for i := range tunnelPolicies {
		app, port := fmt.Sprintf("crowd%d", i%kinds), uint16(10000+i)
		if i == 0 {
			app, port = "tunnel", tunnelPort
		}
		peer := policy.Peer{OwnNamespace: true, Pods: labels.SelectorFromSet(labels.Set{"app": app})}
		rules := policy.Rules{{Peers: []policy.Peer{peer}, Ports: []policy.Port{{Protocol: identity.TCP, First: port, Last: port}}}}
		policies = append(policies, policy.Policy{
			Namespace: tunnelNamespace, Name: fmt.Sprintf("policy%d", i), Subject: everything, Ingress: &rules, Egress: &rules,
		})
	}
	nodes := []overlay.Node{t.nodes[0].api, t.nodes[1].api, {Name: "crowd", PodCIDRs: prefixes("10.245.0.0/16")}}
	var pods []identity.Pod
	for _, n := range t.nodes {
		pods = append(pods, tunnelPod(n.api.Name, "tunnel", n.attachment.Addresses...))
	}
	for i := range crowd {
		name := fmt.Sprintf("crowd%d", i)
		pods = append(pods, tunnelPod(name, fmt.Sprintf("crowd%d", i%kinds), netip.AddrFrom4([4]byte{10, 245, byte(i >> 8), byte(i)})))
	}
	for i, n := range t.nodes {
		out[i] = ruleset.Compile(ruleset.Input{
			Pods: pods, Namespaces: []identity.Namespace{{Name: tunnelNamespace}}, Policies: policies,
			Attachments: []ruleset.Attachment{attachment(n.attachment)}, Network: network(n.api.Name, nodes, nil),
		})
	}
	return out
}

func tunnelPod(name, app string, addresses ...netip.Addr) identity.Pod {
	return identity.Pod{
		Namespace: tunnelNamespace, Name: name, UID: name, Labels: map[string]string{"app": app}, Addresses: addresses,
	}
}

// mustDeny checks that the rules are in the stream's way at all: another port is closed by them, and only by them.
func (t *tunnel) mustDeny(rules [2]ruleset.Ruleset) {
	t.Helper()
	t.load([2]ruleset.Ruleset{})
	if _, err := t.dial(tunnelPort+1, tunnelPatience); !isRefused(err) {
		t.Fatalf("without rules the receiver's pod itself must refuse: %v", err)
	}
	t.load(rules)
	if _, err := t.dial(tunnelPort+1, time.Second); err == nil || isRefused(err) {
		t.Fatalf("the rules let a connection pass that no policy allows: %v", err)
	}
}

func isRefused(err error) bool {
	return err != nil && strings.Contains(err.Error(), syscall.ECONNREFUSED.Error())
}

func (t *tunnel) load(rules [2]ruleset.Ruleset) {
	t.Helper()
	for i, n := range t.nodes {
		mustDo(t.TB, "load rules", n.load(t.Context(), rules[i]))
	}
}

func (t *tunnel) dial(port uint16, limit time.Duration) (conn net.Conn, err error) {
	to := netip.AddrPortFrom(t.nodes[1].attachment.Addresses[0], port)
	err = t.nodes[0].pod.do(func() (err error) {
		conn, err = (&net.Dialer{Timeout: limit}).Dial("tcp", to.String())
		return err
	})
	return conn, err
}

// receive counts what arrives in the second node's pod.
func (t *tunnel) receive() *atomic.Int64 {
	t.Helper()
	var listener net.Listener
	mustDo(t.TB, "listen", t.nodes[1].pod.do(func() (err error) {
		listener, err = net.Listen("tcp", netip.AddrPortFrom(t.nodes[1].attachment.Addresses[0], tunnelPort).String())
		return err
	}))
	t.Cleanup(func() { listener.Close() })
	received := new(atomic.Int64)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go drain(conn, received)
		}
	}()
	return received
}

func drain(conn net.Conn, received *atomic.Int64) {
	defer conn.Close()
	buf := make([]byte, 256<<10)
	for {
		n, err := conn.Read(buf)
		received.Add(int64(n))
		if err != nil {
			return
		}
	}
}

// sample is one round.
type sample struct{ gbits, cpu, machine float64 }

// round streams for a while under these rules.
func (t *tunnel) round(received *atomic.Int64, rules [2]ruleset.Ruleset) sample {
	t.Helper()
	t.load(rules)
	conn, err := t.dial(tunnelPort, tunnelPatience)
	mustDo(t.TB, "open the stream", err)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		chunk := make([]byte, 128<<10)
		for {
			if _, err := conn.Write(chunk); err != nil {
				return
			}
		}
	}()
	time.Sleep(tunnelWarmUp)
	before := t.usage(received)
	time.Sleep(tunnelRound)
	after := t.usage(received)
	// What is still under way must not fall into the next round.
	conn.(*net.TCPConn).SetLinger(0)
	conn.Close()
	<-sent
	bytes := float64(after.bytes - before.bytes)
	if bytes == 0 {
		t.Fatal("nothing arrived")
	}
	return sample{
		gbits:   8 * bytes / float64(after.at.Sub(before.at).Nanoseconds()),
		cpu:     (after.cpu - before.cpu).Seconds() / (bytes / 1e9),
		machine: (after.machine - before.machine).Seconds() / (bytes / 1e9),
	}
}

// usage is what has been used and received until now.
type usage struct {
	at           time.Time
	bytes        int64
	cpu, machine time.Duration
}

// tick is the unit of processor time in /proc, on every architecture that Go knows.
const tick = 10 * time.Millisecond

func (t *tunnel) usage(received *atomic.Int64) usage {
	t.Helper()
	u := usage{at: time.Now(), bytes: received.Load()}
	var self unix.Rusage
	mustDo(t.TB, "read own use", unix.Getrusage(unix.RUSAGE_SELF, &self))
	u.cpu = time.Duration(self.Utime.Nano() + self.Stime.Nano())
	for _, n := range t.nodes {
		if n.process == 0 {
			continue
		}
		stat := readText(t.TB, fmt.Sprintf("/proc/%d/stat", n.process))
		fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
		u.cpu += time.Duration(number(t.TB, fields[11])+number(t.TB, fields[12])) * tick
	}
	line, _, _ := strings.Cut(readText(t.TB, "/proc/stat"), "\n")
	const idle, ioWait, guest = 3, 4, 8
	for i, field := range strings.Fields(line)[1:] {
		if i != idle && i != ioWait && i < guest {
			u.machine += time.Duration(number(t.TB, field)) * tick
		}
	}
	return u
}

func readText(b testing.TB, path string) string {
	b.Helper()
	text, err := os.ReadFile(path)
	mustDo(b, "read use", err)
	return string(text)
}

func (t *tunnel) report(b *testing.B, plain, policed []sample) {
	gbits := func(s sample) float64 { return s.gbits }
	cpu := func(s sample) float64 { return s.cpu }
	machine := func(s sample) float64 { return s.machine }
	b.ReportMetric(median(plain, gbits), "plain-Gbit/s")
	b.ReportMetric(median(policed, gbits), "policy-Gbit/s")
	ratios, costs := make([]float64, len(plain)), make([]float64, len(plain))
	for i := range plain {
		ratios[i], costs[i] = 100*policed[i].gbits/plain[i].gbits, 100*policed[i].cpu/plain[i].cpu
	}
	b.ReportMetric(middle(ratios), "kept-%")
	// In the kernel, WireGuard's threads are nobody's.
	if t.mode == wireguard.Userspace {
		b.ReportMetric(median(plain, cpu), "plain-CPU-s/GB")
		b.ReportMetric(median(policed, cpu), "policy-CPU-s/GB")
		b.ReportMetric(middle(costs), "CPU-of-plain-%")
	}
	b.ReportMetric(median(plain, machine), "plain-machine-CPU-s/GB")
	b.ReportMetric(median(policed, machine), "policy-machine-CPU-s/GB")
	b.ReportMetric(0, "ns/op")
}

func median(all []sample, of func(sample) float64) float64 {
	values := make([]float64, 0, len(all))
	for _, s := range all {
		values = append(values, of(s))
	}
	return middle(values)
}

func middle(values []float64) float64 {
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}
