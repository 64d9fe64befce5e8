//go:build e2e

package bench

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kithnet/kith/e2e/cluster"
	"github.com/kithnet/kith/e2e/parts"
)

const (
	memorySpaces = 10 // namespaces
	memoryApps   = 10 // kinds of pods in each
	memoryStep   = 1000
	memoryPort   = 8080
	// collected is how long a process without work keeps garbage: the Go runtime collects every two minutes.
	collected = 130 * time.Second
	agreement = 0.02
)

// crowded is a cluster with pods that exist in the API alone: nobody schedules them, and their status says they run.
type crowded struct {
	*testing.B
	*cluster.Cluster
	pods int
}

// BenchmarkAgentMemory is what the agents keep resident with 1,000 pods of which policies name each, and what each of
// 1,000 further ones costs: the most of all agents, and the agents' mean, because a collection more or less is worth
// hundreds of pods.
func BenchmarkAgentMemory(b *testing.B) {
	c := &crowded{B: b, Cluster: openCluster(b)}
	for b.Loop() {
		c.prepare()
		empty := c.settle()
		c.grow(memoryStep)
		thousand := c.settle()
		c.grow(memoryStep)
		two := c.settle()
		grown := 0
		for node := range two {
			b.Logf("%s: resident %d kB without the pods, %d kB with %d, %d kB with %d", node,
				empty[node].now, thousand[node].now, memoryStep, two[node].now, 2*memoryStep)
			grown += two[node].now - thousand[node].now
		}
		b.ReportMetric(most(thousand, func(r resident) int { return r.now })/1024, "rss_MB")
		b.ReportMetric(most(two, func(r resident) int { return r.peak })/1024, "peak_rss_MB")
		b.ReportMetric(float64(grown)*1024/memoryStep/float64(len(two)), "bytes_per_pod")
		c.clear()
	}
	b.ReportMetric(0, "ns/op")
}

// openCluster is the cluster that KITH_E2E_CLUSTER names, or one of its own.
func openCluster(b *testing.B) *cluster.Cluster {
	b.Helper()
	if os.Geteuid() != 0 {
		b.Fatal("this makes network namespaces and mounts: run it as root")
	}
	builder, err := parts.New(os.Stderr)
	must(b, "find parts", err)
	dir := filepath.Join(builder.Cache, "run")
	if name := os.Getenv("KITH_E2E_CLUSTER"); name != "" {
		c, err := cluster.Open(dir, name, os.Stderr)
		must(b, "open cluster", err)
		return c
	}
	set, err := builder.Cluster(b.Context())
	must(b, "build parts", err)
	archive, err := builder.Kith(b.Context())
	must(b, "build Kith", err)
	c, err := cluster.Up(b.Context(), dir, cluster.Spec{Name: "bench", Nodes: 2, CNI: cluster.Kith, Stack: cluster.IPv4, Owner: cluster.Self()}, set, os.Stderr)
	if c != nil {
		b.Cleanup(func() {
			if err := c.Down(); err != nil {
				b.Error(err)
			}
		})
	}
	must(b, "bring cluster up", err)
	must(b, "install Kith", c.Install(b.Context(), archive, filepath.Join(filepath.Dir(builder.Module), "deploy", "kith.yaml")))
	return c
}

func must(b *testing.B, what string, err error) {
	b.Helper()
	if err != nil {
		b.Fatalf("%s: %v", what, err)
	}
}

func space(i int) string { return fmt.Sprintf("memory%d", i) }

// prepare makes the namespaces and the policies, and on every node a subject of them.
func (c *crowded) prepare() {
	c.Helper()
	c.Cleanup(c.clear)
	c.pods = 0
	var text strings.Builder
	for i := range memorySpaces {
		fmt.Fprintf(&text, spaceText, space(i), i)
		for k := range memoryApps {
			fmt.Fprintf(&text, policyText, fmt.Sprintf("from-%d-%d", i, k), space(0), i, k, memoryPort)
		}
	}
	fmt.Fprintf(&text, subjectText, space(0), parts.PauseImage)
	must(c.B, "make policies", c.Apply(c.Context(), text.String()))
	c.kubectl("-n", space(0), "rollout", "status", "daemonset/subject", "--timeout=180s")
}

const spaceText = `
apiVersion: v1
kind: Namespace
metadata: {name: %s, labels: {team: team%d}}
---
`

const policyText = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: %[1]s, namespace: %[2]s}
spec:
  podSelector: {matchLabels: {role: subject}}
  policyTypes: [Ingress, Egress]
  ingress: [{from: &peers [{namespaceSelector: {matchLabels: {team: team%[3]d}}, podSelector: {matchLabels: {app: app%[4]d}}}], ports: &ports [{port: %[5]d}]}]
  egress: [{to: *peers, ports: *ports}]
---
`

const subjectText = `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: subject, namespace: %s}
spec:
  selector: {matchLabels: {role: subject}}
  template:
    metadata: {labels: {role: subject}}
    spec:
      tolerations: [{operator: Exists}]
      terminationGracePeriodSeconds: 0
      containers: [{name: pause, image: "%s"}]
---
`

// podText is a pod as a Deployment makes them. It stays unscheduled; what the agents see of it is the same.
const podText = `
apiVersion: v1
kind: Pod
metadata:
  name: app%[2]d-7d9c6b5f8-%05[3]d
  namespace: %[1]s
  labels: {app: app%[2]d, tier: backend, app.kubernetes.io/name: app%[2]d, app.kubernetes.io/part-of: memory, pod-template-hash: 7d9c6b5f8}
  annotations: {prometheus.io/scrape: "true", prometheus.io/port: "9090", checksum/config: 5d41402abc4b2a76b9719d911017c592ae2f9a1b0c3d4e5f60718293a4b5c6d7}
spec:
  schedulerName: nobody
  containers:
  - name: app
    image: registry.example.com/team/app%[2]d:v1.2.3
    ports: [{name: http, containerPort: 8080}, {name: metrics, containerPort: 9090}]
    env: [{name: LOG_LEVEL, value: info}, {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]
    resources: {requests: {cpu: 100m, memory: 128Mi}, limits: {memory: 256Mi}}
    livenessProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 10}
    readinessProbe: {httpGet: {path: /readyz, port: http}, periodSeconds: 5}
status:
  phase: Running
  qosClass: Burstable
  podIP: %[4]s
  podIPs: [{ip: %[4]s}]
  conditions:
  - {type: PodScheduled, status: "True"}
  - {type: Initialized, status: "True"}
  - {type: ContainersReady, status: "True"}
  - {type: Ready, status: "True"}
  containerStatuses:
  - {name: app, image: "registry.example.com/team/app%[2]d:v1.2.3", imageID: "registry.example.com/team/app@sha256:5d41402abc4b2a76b9719d911017c5925d41402abc4b2a76b9719d911017c592",
     containerID: "containerd://5d41402abc4b2a76b9719d911017c5925d41402abc4b2a76b9719d911017c592", ready: true, started: true, restartCount: 0, state: {running: {}}}
---
`

// grow makes more pods, namespace by namespace: kubectl slows itself down after some hundred requests.
func (c *crowded) grow(count int) {
	c.Helper()
	for i := range memorySpaces {
		var text bytes.Buffer
		for n := range count / memorySpaces {
			number := c.pods + i*count/memorySpaces + n
			address := fmt.Sprintf("10.250.%d.%d", number>>8, number&255)
			fmt.Fprintf(&text, podText, space(i), n%memoryApps, number, address)
		}
		file := filepath.Join(c.TempDir(), "pods.yaml")
		must(c.B, "write pods", os.WriteFile(file, text.Bytes(), 0o600))
		c.kubectl("create", "--validate=false", "-f", file)
		c.kubectl("replace", "--subresource=status", "--validate=false", "-f", file)
	}
	c.pods += count
	c.awaitIdentities()
}

// awaitIdentities waits until every node's kernel has all pods.
func (c *crowded) awaitIdentities() {
	c.Helper()
	have := map[string]int{}
	for range 120 {
		missing := false
		for _, n := range c.Members {
			out, err := exec.Command("nsenter", "--net=/run/netns/"+n.Name, "nft", "list", "map", "inet", "kith", "identity4").Output()
			must(c.B, "list identities", err)
			have[n.Name] = strings.Count(string(out), "10.250.")
			missing = missing || have[n.Name] != c.pods
		}
		if !missing {
			return
		}
		time.Sleep(time.Second)
	}
	c.Fatalf("%d pods are not in every kernel: %v", c.pods, have)
}

// resident is an agent's memory in kB.
type resident struct{ now, peak int }

// settle waits until garbage is given back and the agents' memory stays what it is.
func (c *crowded) settle() map[string]resident {
	c.Helper()
	time.Sleep(collected)
	last := c.read()
	for range 60 {
		time.Sleep(5 * time.Second)
		now := c.read()
		stable := true
		for node, r := range now {
			stable = stable && float64(max(r.now-last[node].now, last[node].now-r.now)) <= agreement*float64(r.now)
		}
		if stable {
			return now
		}
		last = now
	}
	c.Fatalf("the agents' memory does not settle: %v", last)
	return nil
}

func (c *crowded) read() map[string]resident {
	c.Helper()
	all := map[string]resident{}
	for _, n := range c.Members {
		pids, err := c.Processes(n.Name, "kith-agent")
		must(c.B, "find agent", err)
		if len(pids) != 1 {
			c.Fatalf("%d agents run on %s", len(pids), n.Name)
		}
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pids[0]))
		must(c.B, "read memory", err)
		all[n.Name] = resident{now: c.line(string(text), "VmRSS:"), peak: c.line(string(text), "VmHWM:")}
	}
	return all
}

func (c *crowded) line(text, name string) int {
	c.Helper()
	_, rest, _ := strings.Cut(text, name)
	kB, err := strconv.Atoi(strings.Fields(rest + " ?")[0])
	must(c.B, "read "+name, err)
	return kB
}

func most(all map[string]resident, of func(resident) int) float64 {
	out := 0
	for _, r := range all {
		out = max(out, of(r))
	}
	return float64(out)
}

func (c *crowded) kubectl(args ...string) {
	c.Helper()
	_, err := c.Kubectl(c.Context(), args...)
	must(c.B, "use the cluster", err)
}

// clear takes all of it away again.
func (c *crowded) clear() {
	args := []string{"delete", "namespace", "--ignore-not-found", "--timeout=300s"}
	for i := range memorySpaces {
		args = append(args, space(i))
	}
	if _, err := c.Kubectl(context.Background(), args...); err != nil {
		c.Error(err)
	}
}
