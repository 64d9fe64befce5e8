//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// inside runs f in the network namespace of a pod, as the pod itself would with NET_RAW.
func (a *attacks) inside(pod string, f func() error) {
	a.Helper()
	p := a.pods[pod]
	root, err := shared.Root(p.node)
	if err != nil {
		a.Fatal(err)
	}
	files, _ := filepath.Glob(filepath.Join(root, "run/netns/*"))
	for _, file := range files {
		ns, err := netns.GetFromPath(file)
		if err != nil {
			continue // it has just ended
		}
		defer ns.Close()
		if !hasAddress(ns, p.address) {
			continue
		}
		done := make(chan error)
		go func() {
			runtime.LockOSThread() // the thread ends with the goroutine
			err := netns.Set(ns)
			if err == nil {
				err = f()
			}
			done <- err
		}()
		if err := <-done; err != nil {
			a.Fatalf("in %s: %v", pod, err)
		}
		return
	}
	a.Fatalf("the network namespace of %s was not found", pod)
}

func hasAddress(ns netns.NsHandle, address netip.Addr) bool {
	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		return false
	}
	defer h.Close()
	all, _ := h.AddrList(nil, netlink.FAMILY_ALL)
	return slices.ContainsFunc(all, func(l netlink.Addr) bool { return l.IP.Equal(address.AsSlice()) })
}

// udp is a socket of a pod.
func (a *attacks) udp(pod string, port int) net.PacketConn {
	a.Helper()
	var conn net.PacketConn
	a.inside(pod, func() (err error) {
		conn, err = net.ListenPacket("udp4", netip.AddrPortFrom(a.pods[pod].address, uint16(port)).String())
		return err
	})
	a.Cleanup(func() { conn.Close() })
	return conn
}

func udpAddr(address netip.Addr, port uint16) net.Addr {
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(address, port))
}

// icmpErrors: a friend has a connection with the server. A third pod, and one that may send nothing, speak of it.
func (a *attacks) icmpErrors(ctx context.Context) {
	const port = 17777
	server, friend := a.pods["server"].address, a.pods["friend"].address
	to, from := a.udp("server", port), a.udp("friend", port)
	exchange := func(sender, receiver net.PacketConn, address netip.Addr) {
		a.Helper()
		buffer := make([]byte, 100)
		for range 20 {
			sender.WriteTo([]byte("hello"), udpAddr(address, port))
			receiver.SetReadDeadline(time.Now().Add(3 * time.Second))
			if _, _, err := receiver.ReadFrom(buffer); err == nil {
				return
			}
		}
		a.Fatal("the friend and the server do not speak with each other")
	}
	exchange(from, to, server)
	exchange(to, from, friend)
	for _, attack := range []struct {
		name, sender, receiver string
		source, destination    netip.Addr // of the packet that the error speaks of
	}{
		{"a third pod to an isolated one", "foe", "server", server, friend},
		{"an isolated pod to another", "sealed", "friend", friend, server},
	} {
		if a.delivered(attack.sender, attack.receiver, icmpError(attack.source, attack.destination, port)) {
			a.Errorf("an error is delivered from %s", attack.name)
		}
	}
	// The server itself may: it is an end of the connection.
	control := false
	for end := time.Now().Add(hangs); !control && time.Now().Before(end); {
		control = a.delivered("server", "friend", icmpError(friend, server, port))
	}
	if !control {
		a.Error("an error by an end of its connection is not delivered")
	}
	exchange(from, to, server)
}

const payload = "a secret in an error"

// icmpError is an ICMP error "host unreachable" about a UDP datagram that has a payload.
func icmpError(source, destination netip.Addr, port uint16) []byte {
	datagram := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, port), port)
	datagram = append(binary.BigEndian.AppendUint16(datagram, uint16(8+len(payload))), 0, 0)
	datagram = append(datagram, payload...)
	header := []byte{0x45, 0, 0, 0, 0, 1, 0, 0, 63, unix.IPPROTO_UDP, 0, 0}
	header = append(append(header, source.AsSlice()...), destination.AsSlice()...)
	binary.BigEndian.PutUint16(header[2:], uint16(len(header)+len(datagram)))
	binary.BigEndian.PutUint16(header[10:], internetSum(header))
	message := slices.Concat([]byte{3, 1, 0, 0, 0, 0, 0, 0}, header, datagram)
	binary.BigEndian.PutUint16(message[2:], internetSum(message))
	return message
}

func internetSum(b []byte) uint16 {
	sum := uint32(0)
	for i := 0; i < len(b); i += 2 {
		sum += uint32(b[i]) << 8
		if i+1 < len(b) {
			sum += uint32(b[i+1])
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// delivered says whether one of several ICMP messages from one pod reaches another.
func (a *attacks) delivered(sender, receiver string, message []byte) bool {
	a.Helper()
	raw := func(pod string) net.PacketConn {
		var conn net.PacketConn
		a.inside(pod, func() (err error) {
			conn, err = net.ListenPacket("ip4:icmp", a.pods[pod].address.String())
			return err
		})
		return conn
	}
	out, in := raw(sender), raw(receiver)
	defer out.Close()
	defer in.Close()
	buffer := make([]byte, 1500)
	for range 5 {
		if _, err := out.WriteTo(message, &net.IPAddr{IP: a.pods[receiver].address.AsSlice()}); err != nil {
			a.Logf("%s cannot send: %v", sender, err)
		}
		for in.SetReadDeadline(time.Now().Add(time.Second)); ; {
			n, _, err := in.ReadFrom(buffer)
			if err != nil {
				break
			}
			if bytes.Contains(buffer[:n], []byte(payload)) {
				return true
			}
		}
	}
	return false
}

// largePolicies: an account with the role edit in one namespace writes the largest policies that the API takes.
// Meanwhile another namespace's policy cuts, a pod starts, and no agent ends or takes more memory than a node has for it.
func (a *attacks) largePolicies(ctx context.Context) {
	tenant := a.tenantConfig(ctx)
	before := a.restarts(ctx)
	for name, n := range map[string]int{"products": 2000, "largest": 9000} {
		if _, err := shared.Kubectl(ctx, "--kubeconfig", tenant, "-n", tenantNamespace, "create", "-f", a.file(largePolicy(name, n))); err != nil {
			a.Fatal(err)
		}
	}
	if _, err := shared.Kubectl(ctx, "--kubeconfig", tenant, "-n", tenantNamespace, "create", "-f", a.file(selectingPolicy("boundless", 40))); err != nil {
		a.Fatal(err)
	}
	node := a.pods["server"].node
	began := time.Now()
	tiersApply(ctx, a.T, "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: server, namespace: attacks}, "+
		"spec: {podSelector: {matchLabels: {app: server}}, ingress: []}}")
	a.reaches(ctx, "friend", "with large policies of a tenant", false)
	a.Logf("another namespace's policy cut after %s", time.Since(began).Round(time.Millisecond))
	began = time.Now()
	tiersApply(ctx, a.T, attacksPod(attacksNamespace, "late", node))
	if _, err := shared.Kubectl(ctx, "-n", attacksNamespace, "wait", "--for=condition=Ready", "pod/late", "--timeout="+hangs.String()); err != nil {
		a.Errorf("a pod does not start with large policies of a tenant: %v", err)
	}
	a.Logf("a pod was ready after %s", time.Since(began).Round(time.Millisecond))
	a.told(ctx, []string{node}, tenantNamespace+"/boundless")
	pids, err := shared.Processes(node, "kith-agent")
	if err != nil || len(pids) == 0 {
		a.Fatalf("the agent of %s: %v, %v", node, pids, err)
	}
	const enough = 1 << 20 // KiB
	for _, pid := range pids {
		if peak := peakMemory(a.T, pid); peak > enough {
			a.Errorf("the agent of %s has taken %d KiB of memory", node, peak)
		} else {
			a.Logf("the agent of %s has taken %d KiB of memory at most", node, peak)
		}
	}
	if after := a.restarts(ctx); after != before {
		a.Errorf("agents have restarted: %s, before %s", after, before)
	}
	if _, err := shared.Kubectl(ctx, "-n", tenantNamespace, "delete", "networkpolicies", "--all"); err != nil {
		a.Error(err)
	}
	tiersApply(ctx, a.T, attacksPolicies)
	a.reaches(ctx, "friend", "without large policies of a tenant", true)
}

// tenantConfig is a kubeconfig of an account with the role edit in its namespace.
func (a *attacks) tenantConfig(ctx context.Context) string {
	a.Helper()
	kubectl(ctx, a.T, "-n", tenantNamespace, "create", "serviceaccount", "tenant")
	kubectl(ctx, a.T, "-n", tenantNamespace, "create", "rolebinding", "tenant", "--clusterrole=edit", "--serviceaccount="+tenantNamespace+":tenant")
	token := kubectl(ctx, a.T, "-n", tenantNamespace, "create", "token", "tenant")
	cluster := kubectl(ctx, a.T, "config", "view", "--raw", "--minify", "-o", `jsonpath={.clusters[0].cluster}`)
	return a.file(`{"apiVersion":"v1","kind":"Config","current-context":"c","clusters":[{"name":"c","cluster":` + cluster + `}],` +
		`"contexts":[{"name":"c","context":{"cluster":"c","user":"tenant"}}],"users":[{"name":"tenant","user":{"token":"` + token + `"}}]}`)
}

// largePolicy has n address blocks and n ports in one rule.
func largePolicy(name string, n int) string {
	var blocks, ports []string
	for i := range n {
		blocks = append(blocks, fmt.Sprintf(`{"ipBlock":{"cidr":"198.%d.%d.%d/32"}}`, 18+i>>15, i>>7&0xff, 2*i&0xff))
		ports = append(ports, fmt.Sprintf(`{"port":%d}`, 2*i+1))
	}
	return `{"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy","metadata":{"name":"` + name + `"},"spec":{"podSelector":{},` +
		`"ingress":[{"from":[` + strings.Join(blocks, ",") + `],"ports":[` + strings.Join(ports, ",") + `]}]}}`
}

// selectingPolicy has n selectors that may each select nearly everything: more than a policy may come to.
func selectingPolicy(name string, n int) string {
	var peers []string
	for i := range n {
		peers = append(peers, fmt.Sprintf(`{"namespaceSelector":{},"podSelector":{"matchExpressions":[{"key":"no%d","operator":"DoesNotExist"}]}}`, i))
	}
	return `{"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy","metadata":{"name":"` + name + `"},"spec":{"podSelector":{},` +
		`"ingress":[{"from":[` + strings.Join(peers, ",") + `]}]}}`
}

func (a *attacks) restarts(ctx context.Context) string {
	return kubectl(ctx, a.T, "-n", "kith-system", "get", "pods", "-l", "app.kubernetes.io/name=kith", "-o",
		`jsonpath={range .items[*]}{.metadata.name} {.status.containerStatuses[*].restartCount} {end}`)
}

// peakMemory is the most memory that a process has had, in KiB.
func peakMemory(t *testing.T, pid int) (peak int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), "VmHWM:")
	if _, err := fmt.Sscan(after, &peak); err != nil {
		t.Fatalf("memory of process %d: %v", pid, err)
	}
	return peak
}
