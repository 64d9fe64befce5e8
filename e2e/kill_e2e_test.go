//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/kithnet/kith/e2e/cluster"
	"github.com/kithnet/kith/e2e/parts"
)

const (
	flowsPerPair = 6 // on three nodes: 3 clients × 3 servers × 6 = 54 flows
	flowsPort    = "9000"
)

// flowState is the last line that `flows hold` or `flows probe` printed.
type flowState struct {
	Open, Echoes, Broken, Attempts, Reached int
	LongestMS                               int64
	Errors                                  []string
}

// TestAgentKill ends the agent on every node while connections run and denied ones are tried.
func TestAgentKill(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	startFlows(ctx, t)
	before := agents(ctx, t)
	rulesRest(ctx, t)
	stopMonitors := monitorRules(t, shared.Members...)
	flowing := flowStates(ctx, t, "role=client")

	for _, n := range shared.Members {
		if err := shared.Kill(n.Name, "kith-agent"); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("killed the agent on %d nodes", len(shared.Members))
	waitAgents(ctx, t, before)
	time.Sleep(5 * time.Second)

	for pod, s := range flowStates(ctx, t, "role=client") {
		want := flowsPerPair * len(shared.Members)
		if s.Open != want || s.Broken != 0 || s.Echoes <= flowing[pod].Echoes {
			t.Errorf("client %s: %+v, want %d open, none broken, more echoes than %d", pod, s, want, flowing[pod].Echoes)
		}
		t.Logf("client %s: %d flows, longest wait for an echo %d ms", pod, s.Open, s.LongestMS)
	}
	checkDenied(ctx, t)
	for node, changes := range stopMonitors() {
		if len(changes) > 0 {
			t.Errorf("%s: the rules changed though nothing had to: %d changes, first: %q", node, len(changes), changes[0])
		}
	}
	for node, a := range agents(ctx, t) {
		if a.writes != 0 {
			t.Errorf("%s: the new agent wrote %d objects that were right already", node, a.writes)
		}
	}
	t.Run("Definitions", func(t *testing.T) { definitionChanges(ctx, t) })
}

func startFlows(ctx context.Context, t *testing.T) {
	t.Helper()
	archive, err := shared.builder.Image(ctx, "flows")
	if err == nil {
		err = shared.Load(ctx, archive)
	}
	if err == nil {
		err = shared.Apply(ctx, flowsNamespace+daemonSet("server", "[serve, \":"+flowsPort+"\"]"))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, err := shared.Kubectl(context.Background(), "delete", "namespace", "flows", "--timeout=120s")
		if err != nil {
			t.Error(err)
		}
	})
	rollout(ctx, t, "server")
	var servers []string
	for _, ip := range podAddresses(ctx, t, "role=server") {
		servers = append(servers, fmt.Sprintf("%q", net.JoinHostPort(ip, flowsPort)))
	}
	list := strings.Join(servers, ", ")
	if err := shared.Apply(ctx, daemonSet("client", fmt.Sprintf("[hold, %q, %s]", fmt.Sprint(flowsPerPair), list))+
		daemonSet("intruder", "[probe, "+list+"]")); err != nil {
		t.Fatal(err)
	}
	rollout(ctx, t, "client")
	rollout(ctx, t, "intruder")
	want := flowsPerPair * len(servers)
	for {
		ready := len(servers)
		for _, s := range flowStates(ctx, t, "role=client") {
			if s.Open == want {
				ready--
			}
		}
		if ready == 0 {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("flows do not come up: %+v", flowStates(context.Background(), t, "role=client"))
		case <-time.After(time.Second):
		}
	}
}

const flowsNamespace = `
apiVersion: v1
kind: Namespace
metadata: {name: flows}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: clients-only, namespace: flows}
spec:
  podSelector: {matchLabels: {role: server}}
  policyTypes: [Ingress]
  ingress: [{from: [{podSelector: {matchLabels: {role: client}}}]}]
---
`

func daemonSet(role, args string) string {
	return fmt.Sprintf(`
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: %[1]s, namespace: flows}
spec:
  selector: {matchLabels: {role: %[1]s}}
  template:
    metadata: {labels: {role: %[1]s}}
    spec:
      tolerations: [{operator: Exists}]
      terminationGracePeriodSeconds: 0
      containers: [{name: flows, image: "%[2]s", args: %[3]s}]
---
`, role, parts.FlowsImage, args)
}

func rollout(ctx context.Context, t *testing.T, name string) {
	t.Helper()
	if _, err := shared.Kubectl(ctx, "-n", "flows", "rollout", "status", "daemonset/"+name, "--timeout=180s"); err != nil {
		t.Fatal(err)
	}
}

// podAddresses maps pods to their first address.
func podAddresses(ctx context.Context, t *testing.T, selector string) map[string]string {
	t.Helper()
	out, err := shared.Kubectl(ctx, "-n", "flows", "get", "pods", "-l", selector, "-o",
		`jsonpath={range .items[*]}{.metadata.name} {.status.podIP}{"\n"}{end}`)
	if err != nil {
		t.Fatal(err)
	}
	addresses := map[string]string{}
	for _, line := range strings.Split(strings.TrimSpace(out), "\n") {
		name, ip, _ := strings.Cut(line, " ")
		addresses[name] = ip
	}
	return addresses
}

func flowStates(ctx context.Context, t *testing.T, selector string) map[string]flowState {
	t.Helper()
	states := map[string]flowState{}
	for pod := range podAddresses(ctx, t, selector) {
		out, err := shared.Kubectl(ctx, "-n", "flows", "logs", pod, "--tail=1")
		if err != nil {
			t.Fatal(err)
		}
		var s flowState
		if err := json.Unmarshal([]byte(out), &s); err != nil && strings.TrimSpace(out) != "" {
			t.Fatalf("log of %s: %q: %v", pod, out, err)
		}
		states[pod] = s
	}
	return states
}

// checkDenied: no intruder got through, in its own eyes and in the servers'.
func checkDenied(ctx context.Context, t *testing.T) {
	t.Helper()
	for pod, s := range flowStates(ctx, t, "role=intruder") {
		if s.Attempts == 0 || s.Reached != 0 {
			t.Errorf("intruder %s: %+v, want attempts and none that reached", pod, s)
		}
		t.Logf("intruder %s: %d attempts, %d reached", pod, s.Attempts, s.Reached)
	}
	intruders := podAddresses(ctx, t, "role=intruder")
	for server := range podAddresses(ctx, t, "role=server") {
		out, err := shared.Kubectl(ctx, "-n", "flows", "logs", server)
		if err != nil {
			t.Fatal(err)
		}
		for intruder, ip := range intruders {
			if strings.Contains(out+"\n", "from "+ip+"\n") {
				t.Errorf("server %s heard intruder %s", server, intruder)
			}
		}
	}
}

// agent is what the test compares before and after.
type agent struct {
	restarts string
	ready    string
	writes   int
}

func agents(ctx context.Context, t *testing.T) map[string]agent {
	t.Helper()
	out, err := shared.Kubectl(ctx, "-n", "kith-system", "get", "pods", "-l", "app.kubernetes.io/name=kith", "-o",
		`jsonpath={range .items[*]}{.spec.nodeName} {.metadata.name} {.status.containerStatuses[?(@.name=="agent")].restartCount} {.status.containerStatuses[?(@.name=="agent")].ready}{"\n"}{end}`)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]agent{}
	for _, line := range strings.Split(strings.TrimSpace(out), "\n") {
		f := strings.Fields(line)
		if len(f) != 4 {
			t.Fatalf("agent pod: %q", line)
		}
		a := agent{restarts: f[2], ready: f[3], writes: -1}
		status, err := shared.Kubectl(ctx, "-n", "kith-system", "exec", f[1], "-c", "agent", "--", "/kith", "status", "--local", "-o", "json")
		var report struct{ Apply struct{ Writes int } }
		if err == nil && json.Unmarshal([]byte(status), &report) == nil {
			a.writes = report.Apply.Writes
		}
		all[f[0]] = a
	}
	return all
}

// waitAgents waits until every node has a new agent that is ready.
func waitAgents(ctx context.Context, t *testing.T, before map[string]agent) {
	t.Helper()
	began := time.Now()
	for {
		waiting := 0
		for node, a := range agents(ctx, t) {
			if a.restarts == before[node].restarts || a.ready != "true" || a.writes < 0 {
				waiting++
			}
		}
		if waiting == 0 {
			t.Logf("agents ready again after %s", time.Since(began).Round(time.Second))
			return
		}
		if time.Since(began) > 3*time.Minute {
			t.Fatalf("%d agents are not back", waiting)
		}
		time.Sleep(500 * time.Millisecond)
	}
}

// rulesRest waits until no agent has changed its node's rules for a while: changes that are counted from then on have no
// cause that lies before.
func rulesRest(ctx context.Context, t *testing.T) {
	t.Helper()
	const rest = 3 * time.Second
	for {
		var last time.Time
		for _, r := range allSay(t) {
			last = later(last, r.Apply.At)
		}
		if time.Since(last) > rest {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the rules still change: %v", ctx.Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// monitorRules records every change to Kith's table on nodes until the function it returns is called.
func monitorRules(t *testing.T, nodes ...cluster.Node) func() map[string][]string {
	t.Helper()
	type monitor struct {
		cmd *exec.Cmd
		out *strings.Builder
	}
	running := map[string]monitor{}
	for _, n := range nodes {
		cmd := exec.Command("nsenter", "--net=/run/netns/"+n.Name, "stdbuf", "-oL", "nft", "monitor")
		m := monitor{cmd: cmd, out: &strings.Builder{}}
		cmd.Stdout = m.out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill() })
		running[n.Name] = m
	}
	time.Sleep(time.Second)
	return func() map[string][]string {
		changes := map[string][]string{}
		for node, m := range running {
			m.cmd.Process.Kill()
			m.cmd.Wait()
			for _, line := range strings.Split(m.out.String(), "\n") {
				// A new agent takes the table over, which changes no rule; what is proved of sizes goes with a node's silence.
				if strings.Contains(line, " inet kith") && !isTakeover(line) && !strings.Contains(line, " proved") {
					changes[node] = append(changes[node], line)
				}
			}
		}
		return changes
	}
}

// isTakeover: a new agent makes the table its own, as nft prints it.
func isTakeover(line string) bool {
	rest, ok := strings.CutPrefix(line, "add table inet kith")
	return ok && (rest == "" || rest[0] == ' ')
}
