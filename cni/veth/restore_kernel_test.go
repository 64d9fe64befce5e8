//go:build kernel

package veth

import (
	"context"
	"encoding/binary"
	"errors"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kithnet/kith/cni"
)

// hang bounds what must happen, however busy the machine is.
const hang = 20 * time.Second

// watched is the host sides of a node, with someone who watches.
type watched struct {
	*testing.T
	links *Links
	watch *Watch
}

// watching hears only some kinds of messages of those that are heard: others, such as the kernel's late ones about an
// interface that came up, would be signals, too.
func watching(t *testing.T, l *Links, only ...uint) watched {
	t.Helper()
	w, err := l.watch(slices.DeleteFunc(groups(), func(g uint) bool { return !slices.Contains(only, g) }))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, w.Close()); err != nil {
			t.Error(err)
		}
	})
	return watched{t, l, w}
}

// damages reads the kernel and compares.
func (w watched) damages(all ...cni.Attachment) []cni.Damage {
	w.Helper()
	sides, err := w.watch.Read(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	for i := range all {
		all[i].Complete = true
	}
	return cni.Damages(all, sides)
}

// settle reads until nothing more is signalled of what was done before: the kernel says things in their order, so that
// after the signal of a change made now nothing older comes.
func (w watched) settle(a cni.Attachment) {
	w.Helper()
	w.damages(a)
	for {
		select {
		case <-w.watch.Changed():
			w.damages(a)
		case <-time.After(100 * time.Millisecond):
			return
		}
	}
}

// await fails unless a change is signalled and then found.
func (w watched) await(a cni.Attachment) []cni.Damage {
	w.Helper()
	end := time.After(hang)
	for {
		select {
		case <-w.watch.Changed():
			if d := w.damages(a); len(d) > 0 {
				return d
			}
		case <-end:
			w.Fatal("nothing is signalled")
		}
	}
}

// TestWhatOthersChangeIsPutRight has a node's other programs undo each thing of a pod's host side. Each is signalled, found,
// and put right, and the pod is reached as before.
func TestWhatOthersChangeIsPutRight(t *testing.T) {
	const link, neigh, route4, route6 = unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE
	for _, tt := range []struct {
		by            uint
		command, says string
	}{
		{link, "ip link set HOST down", "the interface is down"},
		{link, "ip link set HOST address 02:00:00:00:00:09", "hardware address is 02:00:00:00:00:09"},
		{route4, "ip route del 10.1.0.2", "the route to 10.1.0.2 is missing"},
		{route6, "ip -6 route del fd00::2", "the route to fd00::2 is missing"},
		{route4, "ip route flush dev HOST", "the route to 10.1.0.2 is missing"},
		{route4, "ip route replace blackhole 10.1.0.2", "the route to 10.1.0.2 is missing"},
		{route4, "ip route replace 10.1.0.2 dev lo", "the route to 10.1.0.2 is missing"},
		{route6, "ip -6 route replace fd00::2 dev lo", "the route to fd00::2 is missing"},
		{neigh, "ip link set HOST arp on", "the permanent neighbour 10.1.0.2 is missing"},
		{neigh, "ip neigh del 10.1.0.2 dev HOST", "the permanent neighbour 10.1.0.2 is missing"},
		{neigh, "ip neigh flush dev HOST nud permanent", "the permanent neighbour fd00::2 is missing"},
		{neigh, "ip neigh replace fd00::2 dev HOST lladdr 02:00:00:00:00:09 nud permanent", "the neighbour fd00::2 has hardware address 02:00:00:00:00:09"},
		{groupIPv4Netconf, "sysctl -qw net.ipv4.conf.HOST.rp_filter=1", "rp_filter is 1, not 0"},
		{groupIPv4Netconf, "sysctl -qw net.ipv4.conf.HOST.forwarding=0", "forwarding is 0, not 1"},
		{groupIPv6Netconf, "sysctl -qw net.ipv6.conf.HOST.forwarding=0", "forwarding is 0, not 1"},
		{route6, "sysctl -qw net.ipv6.conf.HOST.disable_ipv6=1", "disable_ipv6 is 1, not 0"},
	} {
		t.Run(tt.command, func(t *testing.T) {
			l := node(t)
			a := attachment("a", sandbox(t), "10.1.0.2", "fd00::2")
			create(t, l, a)
			w := watching(t, l, tt.by)
			w.settle(a)
			run(t, strings.Fields(strings.ReplaceAll(tt.command, "HOST", a.HostInterface))...)
			found := w.await(a)
			if says := strings.Join(found[0].Differences, "; "); !strings.Contains(says, tt.says) {
				t.Errorf("found %q, want %q", says, tt.says)
			}
			if err := l.Restore(t.Context(), a); err != nil {
				t.Fatal(err)
			}
			if found := w.damages(a); len(found) > 0 {
				t.Errorf("after it was put right: %+v", found)
			}
			if err := l.Check(t.Context(), a); err != nil {
				t.Error(err)
			}
			if out := run(t, "ip", "link", "show", a.HostInterface); !strings.Contains(out, "NOARP") {
				t.Errorf("the node takes neighbours from the pod: %s", out)
			}
			for _, addr := range a.Addresses {
				run(t, "ping", "-c1", "-W20", addr.String())
			}
		})
	}
}

// TestForwardingIsWatched: the kernel says that a node forwards no more.
func TestForwardingIsWatched(t *testing.T) {
	for family, name := range map[int]string{unix.AF_INET: "net.ipv4.ip_forward", unix.AF_INET6: "net.ipv6.conf.all.forwarding"} {
		t.Run(name, func(t *testing.T) {
			l := node(t)
			w := watching(t, l, groupIPv4Netconf, groupIPv6Netconf)
			run(t, "sysctl", "-qw", name+"=0")
			select {
			case <-w.watch.Changed():
			case <-time.After(hang):
				t.Fatal("nothing is signalled")
			}
			if on, err := l.Forwards(family); err != nil || on {
				t.Errorf("forwards: %v %v", on, err)
			}
			if err := errors.Join(l.ForwardIPv4(), l.ForwardIPv6()); err != nil {
				t.Fatal(err)
			}
			if on, err := l.Forwards(family); err != nil || !on {
				t.Errorf("forwards: %v %v", on, err)
			}
		})
	}
}

// TestRemovedInterfaceStaysRemoved: what an administrator removed is missed, and is not made again.
func TestRemovedInterfaceStaysRemoved(t *testing.T) {
	l := node(t)
	a := attachment("a", sandbox(t), "10.1.0.2")
	create(t, l, a)
	w := watching(t, l, unix.RTNLGRP_LINK)
	w.settle(a)
	run(t, "ip", "link", "del", a.HostInterface)
	if found := w.await(a); !found[0].Gone {
		t.Errorf("found %+v", found)
	}
	if err := l.Restore(t.Context(), a); !errors.Is(err, cni.ErrNoInterface) {
		t.Errorf("restored: %v", err)
	}
	if err := exec.Command("ip", "link", "show", a.HostInterface).Run(); err == nil {
		t.Error("the interface is there again")
	}
}

// TestRestoreChangesNothingThatIsRight: where all is right, neighbours and routes are the same after.
func TestRestoreChangesNothingThatIsRight(t *testing.T) {
	l := node(t)
	a := attachment("a", sandbox(t), "10.1.0.2", "fd00::2")
	create(t, l, a)
	before := run(t, "ip", "neigh") + run(t, "ip", "route") + run(t, "ip", "-6", "route")
	if err := l.Restore(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if after := run(t, "ip", "neigh") + run(t, "ip", "route") + run(t, "ip", "-6", "route"); after != before {
		t.Errorf("was\n%sis\n%s", before, after)
	}
}

// TestInterfaceThatComesBack: one that was renamed is gone, and put right when it has its name again.
func TestInterfaceThatComesBack(t *testing.T) {
	l := node(t)
	a := attachment("a", sandbox(t), "10.1.0.2", "fd00::2")
	create(t, l, a)
	w := watching(t, l, unix.RTNLGRP_LINK)
	w.settle(a)
	run(t, "ip", "link", "set", a.HostInterface, "down")
	run(t, "ip", "link", "set", a.HostInterface, "name", "renamed")
	for found := w.await(a); !found[0].Gone; found = w.await(a) {
	}
	run(t, "ip", "link", "set", "renamed", "name", a.HostInterface)
	if found := w.await(a); found[0].Gone {
		t.Errorf("found %+v", found)
	}
	if err := errors.Join(l.Restore(t.Context(), a), l.Check(t.Context(), a)); err != nil {
		t.Error(err)
	}
}

// TestPodsMakeNoWork: a pod that takes its own end down and up, as often as it likes, has nothing read.
func TestPodsMakeNoWork(t *testing.T) {
	l := node(t)
	a := attachment("a", sandbox(t), "10.1.0.2", "fd00::2")
	create(t, l, a)
	w := watching(t, l)
	w.damages(a)
	socket, err := subscribe(groups())
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	if err := socket.SetReadDeadline(time.Now().Add(hang)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1<<16)
	for _, to := range []string{"down", "up", "down", "up"} {
		within(t, a.Netns, "ip", "link", "set", "eth0", to)
		for seen := false; !seen; {
			n, err := socket.Read(buf)
			if err != nil {
				t.Fatalf("%s: %v", to, err)
			}
			messages, err := syscall.ParseNetlinkMessage(buf[:n])
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range messages {
				if w.watch.about(m) {
					t.Errorf("%s: a message of type %d has all read", to, m.Header.Type)
				}
				const lowerUp = 1 << 16 // IFF_LOWER_UP
				if m.Header.Type == unix.RTM_NEWLINK {
					seen = (binary.NativeEndian.Uint32(m.Data[8:])&lowerUp != 0) == (to == "up")
				}
			}
		}
	}
}

// TestOtherInterfacesStay: Restore touches nothing that has only the name of a host side.
func TestOtherInterfacesStay(t *testing.T) {
	l := node(t)
	a := attachment("a", "", "10.1.0.2")
	run(t, "ip", "link", "add", a.HostInterface, "type", "bridge")
	t.Cleanup(func() { _ = exec.Command("ip", "link", "del", a.HostInterface).Run() })
	if err := l.Restore(t.Context(), a); err == nil {
		t.Error("restored a bridge")
	}
	if out := run(t, "ip", "route"); strings.Contains(out, "10.1.0.2") {
		t.Error(out)
	}
}
