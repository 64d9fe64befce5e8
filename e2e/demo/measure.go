package demo

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
)

// target is a pod or, without a pod's name, a Service.
type target struct {
	name           string // namespace/name as the matrix shows it
	namespace, pod string
	node           string
	address        netip.AddrPort
}

// edge is a pair of names, matrix who reached whom.
type (
	edge   struct{ from, to string }
	matrix map[edge]bool
)

func (d *Demo) findTargets(ctx context.Context) ([]target, error) {
	var targets []target
	for _, name := range []string{"shop/api", "shop/coffee", "shop/stock", "default/hello", "default/curl"} {
		ns, pod, _ := strings.Cut(name, "/")
		out, err := d.Cluster.Kubectl(ctx, "-n", ns, "get", "pod", pod, "-o", "jsonpath={.status.podIP} {.spec.nodeName}")
		if err != nil {
			return nil, err
		}
		t := target{name: name, namespace: ns, pod: pod}
		ip, node, _ := strings.Cut(out, " ")
		addr, err := netip.ParseAddr(ip)
		if err != nil {
			return nil, fmt.Errorf("pod %s: %w", name, err)
		}
		t.node, t.address = node, netip.AddrPortFrom(addr, 8080)
		targets = append(targets, t)
	}
	out, err := d.Cluster.Kubectl(ctx, "-n", "default", "get", "service", "hello", "-o", "jsonpath={.spec.clusterIP}")
	if err != nil {
		return nil, err
	}
	addr, err := netip.ParseAddr(out)
	if err != nil {
		return nil, fmt.Errorf("service hello: %w", err)
	}
	return append(targets, target{name: "default/hello:80", namespace: "default", address: netip.AddrPortFrom(addr, 80)}), nil
}

func (d *Demo) showPlaces() {
	for _, t := range d.targets {
		if t.pod != "" {
			d.say("  %-16s %-22s on %s", t.name, t.address, t.node)
		} else {
			d.say("  %-16s %-22s the Service", t.name, t.address)
		}
	}
}

// measure lets every pod try every target at once.
func (d *Demo) measure(ctx context.Context) (matrix, error) {
	got := matrix{}
	var mu sync.Mutex
	var wait sync.WaitGroup
	var failed error
	for _, from := range d.targets {
		if from.pod == "" {
			continue
		}
		wait.Go(func() {
			reached, err := d.measureFrom(ctx, from)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = err
			}
			for _, to := range d.targets {
				got[edge{from.name, to.name}] = reached[to.name]
			}
		})
	}
	wait.Wait()
	return got, failed
}

func (d *Demo) measureFrom(ctx context.Context, from target) (map[string]bool, error) {
	var script strings.Builder
	for _, to := range d.targets {
		if to.name != from.name {
			fmt.Fprintf(&script, "(/agnhost connect --timeout=3s --protocol=tcp %s >/dev/null 2>&1 && echo %s) &\n", to.address, to.name)
		}
	}
	script.WriteString("wait\n")
	out, err := d.Cluster.Kubectl(ctx, "-n", from.namespace, "exec", from.pod, "--", "sh", "-c", script.String())
	reached := map[string]bool{}
	for _, name := range strings.Fields(out) {
		reached[name] = true
	}
	return reached, err
}
