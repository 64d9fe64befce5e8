//go:build kernel

package firewall

import (
	"context"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

const (
	soon = 300 * time.Millisecond
	late = 10 * time.Second
)

// lab is a node between two pods.
type lab struct {
	testing.TB
	node netns.NsHandle
	pods [2]netns.NsHandle
}

func podAddress(i int) string { return []string{"10.244.1.5", "10.244.1.6"}[i] }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func inside(t testing.TB, ns netns.NsHandle, do func()) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	must(t, err)
	defer home.Close()
	must(t, netns.Set(ns))
	defer func() { must(t, netns.Set(home)) }()
	do()
}

func newNamespace(t testing.TB) netns.NsHandle {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("tests of the kernel need root")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	must(t, err)
	defer home.Close()
	ns, err := netns.New()
	must(t, err)
	must(t, netns.Set(home))
	t.Cleanup(func() { ns.Close() })
	return ns
}

func newLab(t testing.TB) *lab {
	l := &lab{t, newNamespace(t), [2]netns.NsHandle{newNamespace(t), newNamespace(t)}}
	inside(t, l.node, func() { must(t, os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644)) })
	for i, pod := range l.pods {
		near, far := net.HardwareAddr{2, 0, 0, 0, 0, byte(i)}, net.HardwareAddr{2, 0, 0, 0, 1, byte(i)}
		add := func(link string, address string, mac net.HardwareAddr, to string) {
			found, err := netlink.LinkByName(link)
			must(t, err)
			must(t, netlink.LinkSetUp(found))
			ip := net.ParseIP(address).To4()
			_, dst, err := net.ParseCIDR(to)
			must(t, err)
			route := &netlink.Route{LinkIndex: found.Attrs().Index, Dst: dst, Scope: netlink.SCOPE_LINK}
			must(t, netlink.NeighSet(&netlink.Neigh{LinkIndex: found.Attrs().Index, State: netlink.NUD_PERMANENT, IP: ip, HardwareAddr: mac}))
			if to == "0.0.0.0/0" {
				route.Gw, route.Flags, route.Scope = ip, int(netlink.FLAG_ONLINK), netlink.SCOPE_UNIVERSE
			}
			must(t, netlink.RouteReplace(route))
		}
		name := "kith-" + strings.Repeat("0", 9) + string(rune('1'+i))
		inside(t, l.node, func() {
			must(t, netlink.LinkAdd(&netlink.Veth{
				LinkAttrs: netlink.LinkAttrs{Name: name, HardwareAddr: near}, PeerName: "eth0", PeerHardwareAddr: far, PeerNamespace: netlink.NsFd(pod),
			}))
		})
		inside(t, pod, func() {
			link, err := netlink.LinkByName("eth0")
			must(t, err)
			must(t, netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(podAddress(i)).To4(), Mask: net.CIDRMask(32, 32)}}))
			add("eth0", "169.254.1.1", near, "0.0.0.0/0")
			conn, err := net.ListenPacket("udp4", podAddress(i)+":80")
			must(t, err)
			t.Cleanup(func() { conn.Close() })
			go func() {
				for b := make([]byte, 100); ; {
					n, from, err := conn.ReadFrom(b)
					if err != nil {
						return
					}
					_, _ = conn.WriteTo(b[:n], from)
				}
			}()
		})
		inside(t, l.node, func() { add(name, podAddress(i), far, podAddress(i)+"/32") })
	}
	l.reaches(true, "before any firewall is there")
	return l
}

// reaches holds that one pod hears the other, or does not.
func (l *lab) reaches(want bool, when string) {
	l.Helper()
	var conn net.Conn
	inside(l, l.pods[0], func() {
		var err error
		conn, err = net.Dial("udp4", podAddress(1)+":80")
		must(l, err)
	})
	defer conn.Close()
	patience := soon
	if want {
		patience = late
	}
	got := false
	for end := time.Now().Add(patience); !got && time.Now().Before(end); {
		_, err := conn.Write([]byte("kin"))
		must(l, conn.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
		if err == nil {
			_, err = conn.Read(make([]byte, 10))
		}
		got = err == nil
	}
	if got != want {
		l.Errorf("%s: a pod reaches another %t, want %t", when, got, want)
	}
}

// run runs a command on the node.
func (l *lab) run(command string) string {
	l.Helper()
	var out []byte
	var err error
	inside(l, l.node, func() { out, err = exec.Command("sh", "-c", command).CombinedOutput() })
	if err != nil {
		l.Fatalf("%s: %v\n%s", command, err, out)
	}
	return string(out)
}

func (l *lab) open() *Keeper {
	l.Helper()
	k, err := Open(int(l.node), "kith")
	must(l, err)
	return k
}

// keep runs a keeper until the test ends.
func (l *lab) keep() *Keeper {
	l.Helper()
	k := l.open()
	k.SetNetworks([]netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx, func([]string, error) {}) }()
	l.Cleanup(func() { cancel(); <-done })
	return k
}

// What Docker and ufw make of FORWARD, shortened.
const (
	docker = `iptables -N DOCKER-USER; iptables -N DOCKER-FORWARD; iptables -P FORWARD DROP
		iptables -A FORWARD -j DOCKER-USER; iptables -A FORWARD -j DOCKER-FORWARD; iptables -A DOCKER-FORWARD -i docker0 -j ACCEPT`
	ufw = `iptables -N ufw-before-forward; iptables -N ufw-reject-forward; iptables -P FORWARD DROP
		iptables -A FORWARD -j ufw-before-forward; iptables -A FORWARD -j ufw-reject-forward
		iptables -A ufw-before-forward -p icmp -j ACCEPT`
	rejects = `iptables -A FORWARD -i docker0 -j ACCEPT; iptables -A FORWARD -j REJECT --reject-with icmp-host-prohibited`
)

// TestForwardIsKeptOpen: what others make of iptables' FORWARD cuts no pod, whenever they make it, and however often they make it
// anew; nothing of theirs changes.
func TestForwardIsKeptOpen(t *testing.T) {
	for name, commands := range map[string]string{"Docker": docker, "ufw": ufw, "rules that reject": rejects} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			l.run(commands)
			theirs := l.run("iptables-save -t filter | grep -v '^#' | sed 's/ .[0-9]*:[0-9]*.$//'")
			l.reaches(false, "without us")
			k := l.keep()
			l.reaches(true, "with us")
			saved := l.run("iptables-save -t filter | grep -v '^#' | sed 's/ .[0-9]*:[0-9]*.$//'")
			if !strings.Contains(saved, `-A FORWARD -i kith+`) || !strings.Contains(saved, `-A FORWARD -o kith+`) {
				t.Errorf("iptables shows\n%s", saved)
			}
			var rest []string
			for line := range strings.Lines(saved) {
				if !strings.Contains(line, "kith+") {
					rest = append(rest, line)
				}
			}
			if got := strings.Join(rest, ""); got != theirs {
				t.Errorf("theirs was\n%s\nand is\n%s", theirs, got)
			}
			l.run("iptables-save | iptables-restore")
			l.reaches(true, "after iptables loaded what it saved")
			l.run("iptables -F FORWARD; iptables -P FORWARD DROP; iptables -A FORWARD -j REJECT")
			l.reaches(true, "after they flushed it")
			l.run("iptables -I FORWARD -j REJECT")
			l.reaches(true, "after they put another rule before ours")
			if all := k.Problems(); len(all) > 0 {
				t.Errorf("problems %q", all)
			}
		})
	}
}

// TestOpenFirewallsAreLeftAlone: where nothing closes, or all is there, nothing is written.
func TestOpenFirewallsAreLeftAlone(t *testing.T) {
	l := newLab(t)
	generation := func() string { return l.run("iptables-save; ip6tables-save; nft list ruleset") }
	l.run("iptables -A FORWARD -s 192.0.2.1 -j DROP; ip6tables -P FORWARD ACCEPT")
	k := l.open()
	for _, commands := range []string{"true", docker} {
		l.run(commands)
		must(t, k.Keep())
		before := generation()
		must(t, k.Keep())
		if after := generation(); after != before {
			t.Errorf("was\n%s\nis\n%s", before, after)
		}
		if commands == "true" && strings.Contains(before, "kith") {
			t.Errorf("a chain that closes nothing is written:\n%s", before)
		}
	}
}

// TestForeignTablesAreNamed: a chain that is not iptables' is named with what to do, until its administrator has thought of pods.
func TestForeignTablesAreNamed(t *testing.T) {
	l := newLab(t)
	l.run(`nft -f - <<X
table inet firewalld {
	chain filter_FORWARD_ZONES { }
	chain filter_FORWARD { type filter hook forward priority 10; policy accept; ct state established accept; jump filter_FORWARD_ZONES; reject with icmpx admin-prohibited; }
}
X`)
	l.reaches(false, "without us")
	k := l.open()
	k.SetNetworks([]netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")})
	must(t, k.Keep())
	if all := k.Problems(); len(all) != 1 || !strings.Contains(all[0], "filter_FORWARD of nftables' table inet firewalld") || !strings.Contains(all[0], "--add-source=10.244.0.0/16") {
		t.Errorf("problems %q", all)
	}
	l.run("nft add rule inet firewalld filter_FORWARD_ZONES ip saddr 10.244.0.0/16 accept")
	must(t, k.Keep())
	if all := k.Problems(); len(all) > 0 {
		t.Errorf("problems %q, though pods are let through", all)
	}
	l.run("nft add table inet mine; nft 'add chain inet mine f { type filter hook forward priority 0; policy drop; }'")
	must(t, k.Keep())
	if all := k.Problems(); len(all) != 1 || !strings.Contains(all[0], "chain f of nftables' table inet mine") {
		t.Errorf("problems %q", all)
	}
}
