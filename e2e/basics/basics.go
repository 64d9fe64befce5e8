// Package basics checks what any cluster owes its pods: they reach each other, services, names and
// the outside, and the outside and the node reach them.
//
// Input: a Cluster, of any kind, with a working pod network and no policies. Output: one subtest for
// each check, over each address family that pods have. Invariants: what it makes lies in one
// namespace, which it removes. Out of scope: policy, the mesh itself.
package basics

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// Cluster is how the checks reach a cluster and a host outside of it.
type Cluster interface {
	// Kubectl runs kubectl as administrator.
	Kubectl(ctx context.Context, args ...string) (string, error)
	// Apply applies manifests.
	Apply(ctx context.Context, manifests string) error
	// OutsideRun runs a command on a host outside the cluster that reaches the nodes, has curl, and
	// serves `agnhost netexec` on port 8080.
	OutsideRun(ctx context.Context, args ...string) (string, error)
	// OutsideAddresses are that host's addresses.
	OutsideAddresses() []netip.Addr
}

const (
	namespace = "basics"
	nodePort  = "30080"
	hostPort  = "18080"
)

// pod is what the checks know of a pod.
type pod struct {
	name, node string
	addresses  []netip.Addr
}

// suite is a cluster with the pods of the checks in it.
type suite struct {
	Cluster
	nodes    map[string][]netip.Addr // InternalIPs
	web      []pod                   // one on each node
	single   pod                     // another pod, alone behind its service
	host     []pod                   // host network, one on each node
	services map[string][]netip.Addr
}

// Run makes the pods, runs all checks and removes what it made.
func Run(t *testing.T, c Cluster) { run(t, c, "") }

// Services does the same with the checks of what kube-proxy does.
func Services(t *testing.T, c Cluster) {
	run(t, c, "ClusterIP ServiceToItself NodePort HostPort DNS NodeAndPod")
}

// run runs the checks of these names; none: all.
func run(t *testing.T, c Cluster, only string) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	s := &suite{Cluster: c}
	t.Cleanup(func() {
		if _, err := c.Kubectl(context.Background(), "delete", "namespace", namespace, "--ignore-not-found", "--timeout=120s"); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	if err := s.prepare(ctx); err != nil {
		events, _ := c.Kubectl(context.Background(), "-n", namespace, "get", "pods,events", "-o", "wide")
		t.Fatalf("prepare: %v\n%s", err, events)
	}
	for _, check := range []struct {
		name string
		run  func(context.Context, *testing.T)
	}{
		{"EveryNodeReady", s.everyNodeReady},
		{"Families", s.families},
		{"Probes", s.probes},
		{"Exec", s.exec},
		{"Logs", s.logs},
		{"PodToPodTCP", s.podToPodTCP},
		{"PodToPodUDP", s.podToPodUDP},
		{"PodToPodPing", s.podToPodPing},
		{"LargeTransfers", s.largeTransfers},
		{"ClusterIP", s.clusterIP},
		{"ServiceToItself", s.serviceToItself},
		{"NodePort", s.nodePort},
		{"HostPort", s.hostPort},
		{"DNS", s.dns},
		{"PodToOutsideMasqueraded", s.podToOutside},
		{"NodeAndPod", s.nodeAndPod},
	} {
		if only == "" || slices.Contains(strings.Fields(only), check.name) {
			t.Run(check.name, func(t *testing.T) { check.run(ctx, t) })
		}
	}
}

func (s *suite) prepare(ctx context.Context) error {
	if err := s.makeNamespace(ctx); err != nil {
		return err
	}
	if err := s.Apply(ctx, manifests); err != nil {
		return err
	}
	for _, w := range []string{"daemonset/web", "daemonset/host", "deployment/single"} {
		if _, err := s.Kubectl(ctx, "-n", namespace, "rollout", "status", w, "--timeout=180s"); err != nil {
			return err
		}
	}
	var err error
	if s.web, err = s.pods(ctx, "app=web"); err != nil {
		return err
	}
	if s.host, err = s.pods(ctx, "app=host"); err != nil {
		return err
	}
	single, err := s.pods(ctx, "app=single")
	if err != nil {
		return err
	}
	if len(single) != 1 || len(s.web) == 0 || len(s.host) != len(s.web) {
		return fmt.Errorf("%d pods alone, %d web, %d host", len(single), len(s.web), len(s.host))
	}
	s.single = single[0]
	return s.readNodesAndServices(ctx)
}

// makeNamespace returns when the namespace has what pods in it need: without, the API server refuses those that nobody
// makes again.
func (s *suite) makeNamespace(ctx context.Context) error {
	if err := s.Apply(ctx, namespaceManifest); err != nil {
		return err
	}
	for began := time.Now(); ; time.Sleep(200 * time.Millisecond) {
		_, err := s.Kubectl(ctx, "-n", namespace, "get", "serviceaccount", "default")
		if err == nil || time.Since(began) > 2*time.Minute {
			return err
		}
	}
}

// object is the part of Kubernetes objects that the checks read.
type object struct {
	Metadata struct{ Name string }
	Spec     struct {
		NodeName   string
		ClusterIPs []string
	}
	Status struct {
		PodIPs     []struct{ IP netip.Addr }
		Addresses  []struct{ Type, Address string }
		Conditions []struct{ Type, Status string }
	}
}

func (s *suite) list(ctx context.Context, args ...string) ([]object, error) {
	out, err := s.Kubectl(ctx, append(append([]string{"get"}, args...), "-o", "json")...)
	if err != nil {
		return nil, err
	}
	var l struct{ Items []object }
	if err := json.Unmarshal([]byte(out), &l); err != nil {
		return nil, fmt.Errorf("kubectl get %s: %w", strings.Join(args, " "), err)
	}
	return l.Items, nil
}

func (s *suite) pods(ctx context.Context, selector string) ([]pod, error) {
	items, err := s.list(ctx, "pods", "-n", namespace, "-l", selector, "--field-selector=status.phase=Running")
	var pods []pod
	for _, i := range items {
		p := pod{name: i.Metadata.Name, node: i.Spec.NodeName}
		for _, a := range i.Status.PodIPs {
			p.addresses = append(p.addresses, a.IP)
		}
		pods = append(pods, p)
	}
	return pods, err
}

func (s *suite) readNodesAndServices(ctx context.Context) error {
	nodes, err := s.list(ctx, "nodes")
	if err != nil {
		return err
	}
	s.nodes = map[string][]netip.Addr{}
	for _, n := range nodes {
		for _, a := range n.Status.Addresses {
			if addr, err := netip.ParseAddr(a.Address); err == nil && a.Type == "InternalIP" {
				s.nodes[n.Metadata.Name] = append(s.nodes[n.Metadata.Name], addr)
			}
		}
	}
	services, err := s.list(ctx, "services", "-n", namespace)
	if err != nil {
		return err
	}
	s.services = map[string][]netip.Addr{}
	for _, v := range services {
		for _, ip := range v.Spec.ClusterIPs {
			// A headless service has none.
			if a, err := netip.ParseAddr(ip); err == nil {
				s.services[v.Metadata.Name] = append(s.services[v.Metadata.Name], a)
			}
		}
	}
	return nil
}

// in runs a shell script in a pod.
func (s *suite) in(ctx context.Context, p pod, script string) (string, error) {
	return s.Kubectl(ctx, "-n", namespace, "exec", p.name, "--", "sh", "-c", script)
}

// url is the address of a path served at an address and port.
func url(a netip.Addr, port, path string) string {
	host := a.String()
	if a.Is6() {
		host = "[" + host + "]"
	}
	return "http://" + host + ":" + port + path
}

const curl = "curl -sS -m 10 "
