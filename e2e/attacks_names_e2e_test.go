//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// namedPods are two pods of one node under a policy that names a domain, besides the cluster's name servers and a foe.
func namedPods(node string) string {
	const rules = `egress:
  - {action: Accept, to: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {k8s-app: kube-dns}}}}]}
  - {action: Accept, to: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: foe}}}}]}
  - {action: Accept, to: [{domainNames: [named.attacks.svc.cluster.local, "*.example.com"]}]}
  - {action: Deny, to: [{networks: [0.0.0.0/0, "::/0"]}]}`
	return attacksPod(attacksNamespace, "flooded", node) + attacksPod(attacksNamespace, "asking", node) + `
---
apiVersion: v1
kind: Service
metadata: {name: named, namespace: attacks}
spec: {clusterIP: None, selector: {app: friend}, ports: [{port: 8080}]}
---
apiVersion: policy.networking.k8s.io/v1beta1
kind: ClusterNetworkPolicy
metadata: {name: attacks-names}
spec:
  tier: Admin
  priority: 10
  subject: {pods: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: attacks}}, podSelector: {matchExpressions: [{key: app, operator: In, values: [flooded, asking]}]}}}
  ` + rules
}

// dnsAnswers: a foe answers one pod from port 53 with 3,500 addresses, a hundred times a second. A neighbour of that pod, under
// the same policy, has each of its names answered by the cluster's name servers, and reaches at once what it was told; a
// download from the foe's port 53 runs beside it.
func (a *attacks) dnsAnswers(ctx context.Context) {
	a.Cleanup(func() {
		for _, args := range [][]string{{"delete", "clusternetworkpolicy", "attacks-names", "--ignore-not-found"},
			{"-n", attacksNamespace, "delete", "pod/flooded", "pod/asking", "service/named", "--ignore-not-found"}} {
			if _, err := shared.Kubectl(context.Background(), args...); err != nil {
				a.Error(err)
			}
		}
	})
	tiersApply(ctx, a.T, namedPods(a.pods["server"].node))
	a.pods = map[string]attackedPod{"foe": a.pods["foe"], "friend": a.pods["friend"], "server": a.pods["server"]}
	for _, name := range []string{"flooded", "asking"} {
		a.kubectl(ctx, "wait", "--for=condition=Ready", "pod/"+name, "--timeout="+hangs.String())
		a.pods[name] = attackedPod{a.pods["server"].node, netip.MustParseAddr(a.kubectl(ctx, "get", "pod", name, "-o", "jsonpath={.status.podIP}"))}
	}
	a.kubectl(ctx, "wait", "--for=condition=Enforced", "clusternetworkpolicy/attacks-names", "--timeout="+hangs.String())
	dns := netip.MustParseAddr(kubectl(ctx, a.T, "-n", "kube-system", "get", "service", "kube-dns", "-o", "jsonpath={.spec.clusterIP}"))
	defer a.floodAnswers()()
	asking := a.udp("asking", 20053)
	unanswered := 0
	for i := range 40 {
		if _, err := a.resolve(asking, dns, fmt.Sprintf("10-1-2-%d.attacks.pod.cluster.local.", i)); err != nil {
			unanswered++
			a.Logf("name %d: %v", i, err)
		}
	}
	if unanswered > 0 {
		a.Errorf("%d of 40 names are not answered while a neighbour is flooded", unanswered)
	}
	a.reachNamed(asking, dns)
	a.download()
}

// floodAnswers has the foe answer the flooded pod, and returns when that has begun. What it returns ends it.
func (a *attacks) floodAnswers() func() {
	a.Helper()
	foe, flooded := a.udp("foe", 53), a.udp("flooded", 20053)
	const size = 1 << 16
	question := dnsQuestion(a.T, "flood.example.com.")
	if _, err := flooded.WriteTo(question, udpAddr(a.pods["foe"].address, 53)); err != nil {
		a.Fatal(err)
	}
	must := func(err error) {
		a.Helper()
		if err != nil {
			a.Fatal(err)
		}
	}
	must(foe.SetReadDeadline(time.Now().Add(hangs)))
	n, from, err := foe.ReadFrom(make([]byte, size))
	must(err)
	var m dnsmessage.Message
	must(m.Unpack(question[:n]))
	m.Response = true
	for i := range 3500 {
		m.Answers = append(m.Answers, dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Class: dnsmessage.ClassINET, TTL: 30},
			Body:   &dnsmessage.AResource{A: [4]byte{203, 0, byte(i >> 8), byte(i)}},
		})
	}
	answer, err := m.Pack()
	must(err)
	end := make(chan struct{})
	var done sync.WaitGroup
	done.Go(func() {
		for tick := time.NewTicker(10 * time.Millisecond); ; {
			select {
			case <-end:
				return
			case <-tick.C:
				_, _ = foe.WriteTo(answer, from)
			}
		}
	})
	for range 20 {
		must(flooded.SetReadDeadline(time.Now().Add(hangs)))
		_, _, err := flooded.ReadFrom(make([]byte, size))
		must(err)
	}
	return func() { close(end); done.Wait() }
}

func dnsQuestion(t *testing.T, name string) []byte {
	t.Helper()
	m := dnsmessage.Message{Header: dnsmessage.Header{RecursionDesired: true}, Questions: []dnsmessage.Question{{
		Name: dnsmessage.MustNewName(name), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET,
	}}}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// resolve asks once.
func (a *attacks) resolve(socket net.PacketConn, server netip.Addr, name string) (netip.Addr, error) {
	a.Helper()
	if _, err := socket.WriteTo(dnsQuestion(a.T, name), udpAddr(server, 53)); err != nil {
		return netip.Addr{}, err
	}
	b := make([]byte, 1<<16)
	for end := time.Now().Add(20 * time.Second); ; {
		if err := socket.SetReadDeadline(end); err != nil {
			return netip.Addr{}, err
		}
		n, _, err := socket.ReadFrom(b)
		if err != nil {
			return netip.Addr{}, err
		}
		var m dnsmessage.Message
		if m.Unpack(b[:n]) != nil || len(m.Questions) != 1 || m.Questions[0].Name.String() != name {
			continue // a late answer to another
		}
		for _, r := range m.Answers {
			if body, ok := r.Body.(*dnsmessage.AResource); ok {
				return netip.AddrFrom4(body.A), nil
			}
		}
		return netip.Addr{}, fmt.Errorf("answered %s, without an address", m.RCode)
	}
}

// reachNamed asks for the named Service, which may not be known at first, and connects at once.
func (a *attacks) reachNamed(asking net.PacketConn, dns netip.Addr) {
	a.Helper()
	var to netip.Addr
	err := errors.New("not asked")
	for end := time.Now().Add(hangs); err != nil && time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		to, err = a.resolve(asking, dns, "named.attacks.svc.cluster.local.")
	}
	if err != nil {
		a.Errorf("the named Service is not answered: %v", err)
		return
	}
	a.inside("asking", func() error {
		c, err := net.DialTimeout("tcp4", netip.AddrPortFrom(to, 8080).String(), 20*time.Second)
		if err != nil {
			a.Errorf("what the neighbour was told is not reached: %v", err)
			return nil
		}
		return c.Close()
	})
}

// download takes a stream from the foe's port 53 into the flooded pod.
func (a *attacks) download() {
	a.Helper()
	const size = 8 << 20
	var server net.Listener
	a.inside("foe", func() (err error) {
		server, err = net.Listen("tcp4", netip.AddrPortFrom(a.pods["foe"].address, 53).String())
		return err
	})
	defer server.Close()
	go func() {
		if c, err := server.Accept(); err == nil {
			_, _ = c.Write(make([]byte, size))
			c.Close()
		}
	}()
	var c net.Conn
	a.inside("flooded", func() (err error) {
		c, err = net.DialTimeout("tcp4", server.Addr().String(), hangs)
		return err
	})
	defer c.Close()
	if err := c.SetReadDeadline(time.Now().Add(hangs)); err != nil {
		a.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, c); n != size || err != nil {
		a.Errorf("%d of %d bytes of a download from port 53 arrive: %v", n, size, err)
	}
}
