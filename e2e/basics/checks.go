package basics

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func (s *suite) everyNodeReady(ctx context.Context, t *testing.T) {
	nodes, err := s.list(ctx, "nodes")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		ready := false
		for _, c := range n.Status.Conditions {
			ready = ready || (c.Type == "Ready" && c.Status == "True")
		}
		if !ready {
			t.Errorf("node %s is not ready", n.Metadata.Name)
		}
	}
	if len(s.web) != len(nodes) {
		t.Errorf("%d web pods on %d nodes", len(s.web), len(nodes))
	}
}

// families: every pod has one address of each family that services have.
func (s *suite) families(_ context.Context, t *testing.T) {
	count := func(addrs []netip.Addr) (v4, v6 int) {
		for _, a := range addrs {
			if a.Is4() {
				v4++
			} else {
				v6++
			}
		}
		return v4, v6
	}
	want4, want6 := count(s.services["web"])
	for _, p := range append([]pod{s.single}, s.web...) {
		if v4, v6 := count(p.addresses); v4 != want4 || v6 != want6 {
			t.Errorf("pod %s has %v; services have %v", p.name, p.addresses, s.services["web"])
		}
	}
}

// probes: the ready pods have passed theirs; a pod that fails its own is restarted.
func (s *suite) probes(ctx context.Context, t *testing.T) {
	var restarts string
	for range 150 {
		var err error
		restarts, err = s.Kubectl(ctx, "-n", namespace, "get", "pod", "unhealthy", "-o", "jsonpath={.status.containerStatuses[0].restartCount}")
		if err != nil {
			t.Fatal(err)
		}
		if restarts != "0" && restarts != "" {
			return
		}
		time.Sleep(time.Second)
	}
	t.Errorf("a pod that fails its liveness probe was restarted %q times", restarts)
}

func (s *suite) exec(ctx context.Context, t *testing.T) {
	for _, p := range s.web {
		if got, err := s.in(ctx, p, "hostname"); err != nil || strings.TrimSpace(got) != p.name {
			t.Errorf("exec in %s on %s: %q, %v", p.name, p.node, got, err)
		}
	}
}

func (s *suite) logs(ctx context.Context, t *testing.T) {
	for _, p := range s.web {
		if got, err := s.Kubectl(ctx, "-n", namespace, "logs", p.name); err != nil || !strings.Contains(got, "Started HTTP server") {
			t.Errorf("logs of %s on %s: %q, %v", p.name, p.node, got, err)
		}
	}
}

// exchange is a question that pods ask about pods.
type exchange struct {
	from, to []pod
	ask      func(to netip.Addr) string // the command
	want     func(from, to pod, line string) bool
}

// each asks every pod about every address of the others, one script for each pod.
func (s *suite) each(ctx context.Context, t *testing.T, x exchange) {
	for _, from := range x.from {
		var script []string
		var to []pod
		var addrs []netip.Addr
		for _, p := range x.to {
			for _, a := range p.addresses {
				script = append(script, x.ask(a)+" 2>&1 | tr '\\n' ' '; echo")
				to, addrs = append(to, p), append(addrs, a)
			}
		}
		out, err := s.in(ctx, from, strings.Join(script, "\n"))
		lines := strings.Split(out, "\n")
		if err != nil || len(lines) < len(to) {
			t.Errorf("in %s on %s: %q, %v", from.name, from.node, out, err)
			continue
		}
		for i := range to {
			if !x.want(from, to[i], lines[i]) {
				t.Errorf("%s (%s) -> %s (%s) at %s: got %q", from.name, from.node, to[i].name, to[i].node, addrs[i], lines[i])
			}
		}
	}
}

func (s *suite) eachPair(ctx context.Context, t *testing.T, ask func(netip.Addr) string, want func(from, to pod, line string) bool) {
	all := append([]pod{s.single}, s.web...)
	s.each(ctx, t, exchange{from: all, to: all, ask: ask, want: want})
}

// podToPodTCP: the server sees the client's own address.
func (s *suite) podToPodTCP(ctx context.Context, t *testing.T) {
	s.eachPair(ctx, t,
		func(a netip.Addr) string { return curl + url(a, "8080", "/clientip") },
		func(from, _ pod, line string) bool {
			seen, err := netip.ParseAddrPort(strings.TrimSpace(line))
			return err == nil && slices.Contains(from.addresses, seen.Addr())
		})
}

func (s *suite) podToPodUDP(ctx context.Context, t *testing.T) {
	s.eachPair(ctx, t,
		func(a netip.Addr) string { return fmt.Sprintf("echo hostname | nc -u -W 1 -w 5 %s 8081", a) },
		func(_, to pod, line string) bool { return strings.TrimSpace(line) == to.name })
}

func (s *suite) podToPodPing(ctx context.Context, t *testing.T) {
	s.eachPair(ctx, t,
		func(a netip.Addr) string { return fmt.Sprintf("ping -c 1 -W 3 %s | grep -c 'bytes from'", a) },
		func(_, _ pod, line string) bool { return strings.TrimSpace(line) == "1" })
}

// largeTransfers: full packets pass in both directions; a wrong MTU shows here.
func (s *suite) largeTransfers(ctx context.Context, t *testing.T) {
	s.eachPair(ctx, t,
		func(a netip.Addr) string {
			return "head -c 1000000 /dev/zero | " + curl + "-o /dev/null -w '%{http_code} %{size_upload}' -F file=@- " + url(a, "8080", "/upload")
		},
		func(_, _ pod, line string) bool {
			var code, size int
			_, err := fmt.Sscan(line, &code, &size)
			return err == nil && code/100 == 2 && size > 1_000_000
		})
}

func (s *suite) webName(line string) bool {
	return slices.ContainsFunc(s.web, func(p pod) bool { return p.name == strings.TrimSpace(line) })
}

func (s *suite) clusterIP(ctx context.Context, t *testing.T) {
	for _, p := range s.web {
		for _, a := range s.services["web"] {
			for range 3 {
				if got, err := s.in(ctx, p, curl+url(a, "80", "/hostname")); err != nil || !s.webName(got) {
					t.Errorf("%s on %s -> service %s: %q, %v", p.name, p.node, a, got, err)
				}
			}
		}
	}
}

func (s *suite) serviceToItself(ctx context.Context, t *testing.T) {
	for _, a := range s.services["single"] {
		if got, err := s.in(ctx, s.single, curl+url(a, "80", "/hostname")); err != nil || strings.TrimSpace(got) != s.single.name {
			t.Errorf("pod -> its own service %s: %q, %v", a, got, err)
		}
	}
}

func (s *suite) nodePort(ctx context.Context, t *testing.T) {
	s.fromOutside(ctx, t, nodePort, func(_, got string) bool { return s.webName(got) })
}

func (s *suite) hostPort(ctx context.Context, t *testing.T) {
	s.fromOutside(ctx, t, hostPort, func(node, got string) bool {
		return slices.ContainsFunc(s.web, func(p pod) bool { return p.node == node && p.name == strings.TrimSpace(got) })
	})
}

func (s *suite) fromOutside(ctx context.Context, t *testing.T, port string, want func(node, got string) bool) {
	for node, addrs := range s.nodes {
		for _, a := range addrs {
			got, err := s.OutsideRun(ctx, "curl", "-sS", "-m", "10", url(a, port, "/hostname"))
			if err != nil || !want(node, got) {
				t.Errorf("outside -> %s port %s: %q, %v", a, port, got, err)
			}
		}
	}
}

func (s *suite) dns(ctx context.Context, t *testing.T) {
	for _, p := range s.web {
		for _, name := range []string{"web", "web.basics", "web.basics.svc.cluster.local"} {
			if got, err := s.in(ctx, p, curl+"http://"+name+"/hostname"); err != nil || !s.webName(got) {
				t.Errorf("%s on %s -> %s: %q, %v", p.name, p.node, name, got, err)
			}
		}
	}
	got, err := s.in(ctx, s.single, "for k in A AAAA; do dig +short headless.basics.svc.cluster.local $k; done")
	for _, p := range s.web {
		for _, a := range p.addresses {
			if err != nil || !slices.Contains(strings.Fields(got), a.String()) {
				t.Errorf("%s of pod %s is not in the headless service: %q, %v", a, p.name, got, err)
			}
		}
	}
}

// podToOutside: the outside host has no route to pods, and sees the address of the pod's node.
func (s *suite) podToOutside(ctx context.Context, t *testing.T) {
	for _, p := range s.web {
		for _, a := range s.OutsideAddresses() {
			if !slices.ContainsFunc(p.addresses, func(own netip.Addr) bool { return own.Is4() == a.Is4() }) {
				continue
			}
			got, err := s.in(ctx, p, curl+url(a, "8080", "/clientip"))
			seen, parseErr := netip.ParseAddrPort(strings.TrimSpace(got))
			if err != nil || parseErr != nil || !slices.Contains(s.nodes[p.node], seen.Addr()) {
				t.Errorf("%s on %s -> outside %s: seen as %q, %v; want one of %v", p.name, p.node, a, got, err, s.nodes[p.node])
			}
		}
	}
}

// nodeAndPod: each node reaches each pod, and each pod each node.
func (s *suite) nodeAndPod(ctx context.Context, t *testing.T) {
	s.each(ctx, t, exchange{from: s.host, to: s.web,
		ask:  func(a netip.Addr) string { return curl + url(a, "8080", "/hostname") },
		want: func(_, to pod, line string) bool { return strings.TrimSpace(line) == to.name }})
	s.each(ctx, t, exchange{from: s.web, to: s.host,
		ask:  func(a netip.Addr) string { return curl + url(a, "18090", "/hostname") },
		want: func(_, to pod, line string) bool { return strings.TrimSpace(line) == to.node }})
}
