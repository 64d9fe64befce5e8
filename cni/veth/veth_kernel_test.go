//go:build kernel

package veth

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kithnet/kith/cni"
)

func attachment(id, netns string, addrs ...string) cni.Attachment {
	a := cni.NewAttachment(cni.Request{
		Key: cni.Key{ContainerID: id, IfName: "eth0"}, Netns: netns, Pod: cni.Pod{Namespace: "ns", Name: id},
	}, 1400)
	for _, addr := range addrs {
		a.Addresses = append(a.Addresses, netip.MustParseAddr(addr))
	}
	return a
}

func create(t *testing.T, l *Links, a cni.Attachment) {
	t.Helper()
	if err := l.Create(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Delete(context.Background(), a.HostInterface) })
}

func TestPodsReachEachOtherAndTheNode(t *testing.T) {
	l := node(t)
	a := attachment("a", sandbox(t), "10.1.0.2", "fd00::2")
	b := attachment("b", sandbox(t), "10.1.0.3", "fd00::3")
	create(t, l, a)
	create(t, l, b)
	for _, one := range []cni.Attachment{a, b} {
		if err := l.Check(t.Context(), one); err != nil {
			t.Error(err)
		}
	}
	for _, addr := range b.Addresses {
		run(t, "ping", "-c1", "-W20", addr.String())
		within(t, a.Netns, "ping", "-c1", "-W20", addr.String())
	}
	for _, addr := range []string{"192.0.2.1", "2001:db8::1"} {
		within(t, a.Netns, "ping", "-c1", "-W20", addr)
	}
	neighbours := run(t, "ip", "neigh") + within(t, a.Netns, "ip", "neigh")
	for line := range strings.Lines(neighbours) {
		if !strings.Contains(line, "PERMANENT") {
			t.Errorf("a neighbour was resolved: %s", line)
		}
	}
	if out := within(t, a.Netns, "ip", "-6", "addr"); strings.Contains(out, "tentative") {
		t.Error(out)
	}
}

// TestAddressIsUsableAtOnce asks what the kernel may do later than it says, so it asks often.
func TestAddressIsUsableAtOnce(t *testing.T) {
	l := node(t)
	var took []time.Duration
	for range 20 {
		a := attachment("a", sandbox(t), "10.1.0.2", "fd00::2")
		start := time.Now()
		create(t, l, a)
		took = append(took, time.Since(start))
		for _, addr := range a.Addresses {
			run(t, "ping", "-c1", "-W20", addr.String())
		}
		if err := l.Delete(t.Context(), a.HostInterface); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(took)
	// The machine may be busy with other things: not all need be quick, but most.
	if took[len(took)/2] > time.Second {
		t.Errorf("Create took %v", took)
	}
}

func TestIPv6IsSwitchedOnWhereItIsOff(t *testing.T) {
	l := node(t)
	ns := sandbox(t)
	within(t, ns, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")
	run(t, "sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
	defer run(t, "sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=0")
	create(t, l, attachment("a", ns, "10.1.0.2", "fd00::2"))
	run(t, "ping", "-c1", "-W20", "fd00::2")
}

// TestPodsNameNoWay: a pod's packets go where they are routed, though the node takes source routes elsewhere.
func TestPodsNameNoWay(t *testing.T) {
	l := node(t)
	run(t, "sysctl", "-qw", "net.ipv4.conf.all.accept_source_route=1", "net.ipv4.conf.default.accept_source_route=1", "net.ipv6.conf.default.accept_source_route=1")
	a := attachment("a", sandbox(t), "10.1.0.2", "fd00::2")
	create(t, l, a)
	for _, family := range []string{"ipv4", "ipv6"} {
		if got := strings.TrimSpace(run(t, "sysctl", "-n", "net."+family+".conf."+a.HostInterface+".accept_source_route")); got != "0" {
			t.Errorf("%s: the pod's interface has accept_source_route=%s", family, got)
		}
	}
}

func TestIPv4AloneNeedsNoIPv6(t *testing.T) {
	l := node(t)
	ns := sandbox(t)
	within(t, ns, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")
	a := attachment("a", ns, "10.1.0.2")
	create(t, l, a)
	run(t, "ping", "-c1", "-W20", "10.1.0.2")
	if err := l.Check(t.Context(), a); err != nil {
		t.Error(err)
	}
}

func TestCheckFindsEachChange(t *testing.T) {
	host, pod := "host", "pod"
	tests := []struct{ where, command, says string }{
		{pod, "ip addr del 10.1.0.2/32 dev eth0", "no address 10.1.0.2/32"},
		{pod, "ip addr del fd00::2/128 dev eth0", "no address fd00::2/128"},
		{pod, "ip route del default", "no route to default"},
		{pod, "ip -6 route del default", "no route to default"},
		{pod, "ip route del 169.254.1.1", "no route to 169.254.1.1/32"},
		{pod, "ip neigh del 169.254.1.1 dev eth0", "no permanent neighbour 169.254.1.1"},
		{pod, "ip neigh replace fe80::1 dev eth0 lladdr 02:00:00:00:00:09 nud permanent", "no permanent neighbour fe80::1"},
		{pod, "ip link set eth0 address 02:00:00:00:00:09", "hardware address 02:00:00:00:00:09"},
		{pod, "ip link set eth0 down", "interface eth0 is down"},
		{pod, "ip link set eth0 name eth9", "interface eth0 in"},
		{host, "ip link set HOST down", "is down"},
		{host, "ip link set HOST address 02:00:00:00:00:09", "hardware address 02:00:00:00:00:09"},
		{host, "ip link del HOST", "interface HOST"},
		{host, "ip route del 10.1.0.2", "no route to 10.1.0.2/32"},
		{host, "ip -6 route del fd00::2", "no route to fd00::2/128"},
		{host, "ip route replace blackhole 10.1.0.2", "no route to 10.1.0.2/32"},
		{host, "ip neigh del 10.1.0.2 dev HOST", "no permanent neighbour 10.1.0.2"},
		{host, "ip neigh replace fd00::2 dev HOST lladdr 02:00:00:00:00:09 nud permanent", "no permanent neighbour fd00::2"},
	}
	l := node(t)
	for _, tt := range tests {
		t.Run(tt.command, func(t *testing.T) {
			a := attachment("a", sandbox(t), "10.1.0.2", "fd00::2")
			create(t, l, a)
			t.Cleanup(func() { _ = l.Delete(context.Background(), a.HostInterface) })
			args := strings.Fields(strings.ReplaceAll(tt.command, "HOST", a.HostInterface))
			if tt.where == pod {
				within(t, a.Netns, args...)
			} else {
				run(t, args...)
			}
			err := l.Check(t.Context(), a)
			if want := strings.ReplaceAll(tt.says, "HOST", a.HostInterface); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("error %v, want %q", err, want)
			}
			if strings.Contains(tt.command, "blackhole") {
				run(t, "ip", "route", "del", "blackhole", "10.1.0.2")
			}
		})
	}
}

func TestCheckFindsAnotherPeer(t *testing.T) {
	l := node(t)
	a := attachment("a", sandbox(t), "10.1.0.2")
	create(t, l, a)
	within(t, a.Netns, "ip", "link", "set", "eth0", "name", "old")
	within(t, a.Netns, "ip", "link", "add", "eth0", "address", a.PodMAC.String(), "type", "veth", "peer", "other")
	err := l.Check(t.Context(), a)
	if err == nil || !strings.Contains(err.Error(), "is not the peer of") {
		t.Errorf("error %v", err)
	}
}

func TestCreateRefusesAnInterfaceThatIsThere(t *testing.T) {
	l := node(t)
	a := attachment("a", sandbox(t), "10.1.0.2")
	within(t, a.Netns, "ip", "link", "add", "eth0", "type", "veth", "peer", "other")
	before := within(t, a.Netns, "ip", "link")
	if err := l.Create(t.Context(), a); err == nil {
		t.Error("created")
	}
	if after := within(t, a.Netns, "ip", "link"); after != before {
		t.Errorf("the other interface was touched: %s", after)
	}
	if names, _ := l.List(t.Context()); len(names) != 0 {
		t.Errorf("left: %v", names)
	}
	if err := l.Create(t.Context(), attachment("b", "/nowhere", "10.1.0.3")); err == nil {
		t.Error("created in no namespace")
	}
}

func TestDeleteAndList(t *testing.T) {
	l := node(t)
	a, b := attachment("a", sandbox(t), "10.1.0.2"), attachment("b", sandbox(t), "10.1.0.3")
	create(t, l, a)
	create(t, l, b)
	for _, args := range []string{"link add kith-not-ours type veth peer kithnot", "link add kith-0123456789 type bridge"} {
		run(t, append([]string{"ip"}, strings.Fields(args)...)...)
	}
	defer run(t, "ip", "link", "del", "kith-not-ours")
	defer run(t, "ip", "link", "del", "kith-0123456789")
	want := []string{a.HostInterface, b.HostInterface}
	slices.Sort(want)
	got, err := l.List(t.Context())
	slices.Sort(got)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
	for range 3 {
		if err := l.Delete(t.Context(), a.HostInterface); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"kith-not-ours", "kith-0123456789", "lo"} {
		if err := l.Delete(t.Context(), name); err == nil {
			t.Errorf("%s was deleted", name)
		}
	}
	if out := run(t, "ip", "route"); strings.Contains(out, "10.1.0.2") || !strings.Contains(out, "10.1.0.3") {
		t.Error(out)
	}
	if out := within(t, a.Netns, "ip", "link"); strings.Contains(out, "eth0") {
		t.Error(out)
	}
}

func TestSandboxExists(t *testing.T) {
	l := New("/proc/sys")
	file := filepath.Join(t.TempDir(), "left-over")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{
		sandbox(t): true, "/proc/self/ns/net": true, file: false, "/nowhere/netns": false, "/proc/0/ns/net": false,
	} {
		if got := l.SandboxExists(path); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
}

func TestForwardingKeepsRouterAdvertisements(t *testing.T) {
	node(t)
	run(t, "sysctl", "-qw", "net.ipv6.conf.all.forwarding=0")
	run(t, "ip", "link", "add", "uplink", "type", "veth", "peer", "uplink-peer")
	defer run(t, "ip", "link", "del", "uplink")
	run(t, "sysctl", "-qw", "net.ipv6.conf.uplink.accept_ra=1", "net.ipv6.conf.uplink-peer.accept_ra=0")
	l := New("/proc/sys")
	for range 2 {
		if err := l.ForwardIPv6(); err != nil {
			t.Fatal(err)
		}
		got := strings.Fields(run(t, "sysctl", "-n", "net.ipv6.conf.uplink.accept_ra",
			"net.ipv6.conf.uplink-peer.accept_ra", "net.ipv6.conf.all.forwarding"))
		if fmt.Sprint(got) != "[2 0 1]" {
			t.Error(got)
		}
	}
}
