//go:build kernel

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kithnet/kith/cni"
	"github.com/kithnet/kith/cni/veth"
	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
	"github.com/kithnet/kith/policy/conntrack"
	"github.com/kithnet/kith/policy/conntrack/kernel"
	"github.com/kithnet/kith/policy/nft"
	"github.com/kithnet/kith/policy/ruleset"
)

// hang bounds what must happen, however busy the machine is.
const hang = 30 * time.Second

// street is a node with pods, each with both families, that come and go as the runtime asks.
type street struct {
	testing.TB
	node     *place
	table    *nft.Table
	compiler *ruleset.Compiler
	pods     map[string]*place
	records  map[cni.Key]cni.Attachment
	ends     cni.Connections
}

// addressesOf are those of a pod at a number.
func addressesOf(number byte) []netip.Addr {
	return []netip.Addr{netip.AddrFrom4([4]byte{10, 244, 1, number}), netip.AddrFrom16([16]byte{0: 0xfd, 5: 1, 15: number})}
}

func newStreet(t testing.TB) *street {
	t.Helper()
	s := &street{TB: t, node: newPlace(t), compiler: ruleset.NewCompiler(), pods: map[string]*place{}, records: map[cni.Key]cni.Attachment{}}
	s.ends = &endings{log: slog.New(slog.DiscardHandler), table: kernel.New("/proc/sys"), gone: func([]netip.Addr) {}}
	mustDo(t, "forward", s.node.do(veth.New("/proc/sys").ForwardIPv4))
	mustDo(t, "forward", s.node.do(veth.New("/proc/sys").ForwardIPv6))
	mustDo(t, "set lo up", s.node.do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	}))
	for _, a := range addressesOf(1) {
		mustDo(t, "give the node "+a.String(), s.node.do(func() error {
			lo, err := netlink.LinkByName("lo")
			if err != nil {
				return err
			}
			return netlink.AddrAdd(lo, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(a, a.BitLen()))})
		}))
	}
	var err error
	s.table, err = nft.Open(nft.InNamespace(s.node.fd))
	mustDo(t, "open table", err)
	t.Cleanup(func() { s.table.Close() })
	s.compiler.SetNetwork(s.network())
	s.compiler.PutNamespace(identity.Namespace{Name: "street"})
	s.load()
	return s
}

func (s *street) network() ruleset.Network {
	return ruleset.Network{Node: "own", Nodes: []policy.Node{{Name: "own", PodCIDRs: prefixes("10.244.1.0/24", "fd00:0:1::/64"), Mesh: addressesOf(1)}}, NoMasquerade: prefixes("192.0.2.0/24", "2001:db8::/64")}
}

// outside is a machine on the underlay, which sees pods under their own addresses.
func (s *street) outside() *place {
	s.Helper()
	p := newPlace(s.TB)
	mustDo(s.TB, "lay the cable", s.node.do(func() error {
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "out0"}, PeerName: "out0", PeerNamespace: netlink.NsFd(p.fd)})
	}))
	node, own := prefixes("192.0.2.1/32", "2001:db8::1/128"), prefixes("192.0.2.9/32", "2001:db8::9/128")
	mustDo(s.TB, "connect the node", s.node.do(func() error { return connect(node, own, nil) }))
	mustDo(s.TB, "connect it", p.do(func() error { return connect(own, node, prefixes("10.244.1.0/24", "fd00:0:1::/64")) }))
	return p
}

// connect gives the end of the cable addresses, with routes to the other end, and to what is behind that.
func connect(own, other, behind []netip.Prefix) error {
	link, err := netlink.LinkByName("out0")
	if err != nil {
		return err
	}
	errs := []error{netlink.LinkSetUp(link)}
	at := link.Attrs().Index
	for i := range own {
		errs = append(errs,
			netlink.AddrAdd(link, &netlink.Addr{IPNet: ipNet(own[i]), Flags: unix.IFA_F_NODAD}),
			netlink.RouteReplace(&netlink.Route{LinkIndex: at, Dst: ipNet(other[i]), Scope: netlink.SCOPE_LINK}))
		if behind != nil {
			errs = append(errs, netlink.RouteReplace(&netlink.Route{LinkIndex: at, Dst: ipNet(behind[i]), Gw: other[i].Addr().AsSlice(), Flags: int(netlink.FLAG_ONLINK)}))
		}
	}
	return errors.Join(errs...)
}

// TestWhoAnswersPays for what comes from outside, and not for what pods open.
func TestWhoAnswersPays(t *testing.T) {
	for family, name := range []string{"IPv4", "IPv6"} {
		t.Run(name, func(t *testing.T) {
			const tries = 200
			s := newStreet(t)
			client, outside := s.add("client", 3), s.outside()
			to := netip.AddrPortFrom(addressesOf(4)[family], 5000)
			came := s.echo(s.add("server", 4), to)
			from := netip.MustParseAddr([]string{"192.0.2.9", "2001:db8::9"}[family])
			if !exchange(s.socket(outside, netip.AddrPortFrom(from, 9999)), to, hang) {
				t.Fatal("the machine outside does not reach the pod")
			}
			s.compiler.SetLimits([]ruleset.Limit{{Address: to.Addr(), Side: ruleset.Answers, PerSecond: 2}})
			s.load()
			begin, before := time.Now(), came.Load()
			mustDo(t, "open", outside.do(func() error {
				for n := range tries {
					if err := fling(netip.AddrPortFrom(from, uint16(10000+n)), to); err != nil {
						return err
					}
				}
				return nil
			}))
			for n := range 20 {
				if !exchange(s.socket(client, netip.AddrPortFrom(addressesOf(3)[family], uint16(20000+n))), to, hang) {
					t.Fatalf("a pod's connection %d is not opened", n)
				}
			}
			if got, most := came.Load()-before-20, int64(2+2*time.Since(begin).Seconds()+1); got > most && most < tries {
				t.Errorf("%d of %d connections from outside, at most %d", got, tries, most)
			}
		})
	}
}

// load brings the kernel to what the compiler wants.
func (s *street) load() {
	s.Helper()
	have, err := s.table.Read(s.Context())
	mustDo(s.TB, "read table", err)
	mustDo(s.TB, "write table", s.table.Apply(s.Context(), ruleset.Diff(have, s.compiler.Ruleset())))
}

// houses gives an attachment the addresses of a number, whoever had them before: it is cni.Addresses and cni.Records.
type houses struct {
	*street
	number byte
}

func (h houses) Allocate(a cni.Attachment) (cni.Attachment, error) {
	a.Addresses = addressesOf(h.number)
	h.records[a.Key] = a
	return a, nil
}
func (h houses) Release(k cni.Key) error              { delete(h.records, k); return nil }
func (h houses) Available() error                     { return nil }
func (h houses) Commit(cni.Key) error                 { return nil }
func (h houses) List() []cni.Attachment               { return nil }
func (h houses) Get(k cni.Key) (cni.Attachment, bool) { a, ok := h.records[k]; return a, ok }
func (s *street) Close(_ context.Context, a cni.Attachment) error {
	s.compiler.DeleteAttachment(a.HostInterface)
	s.load()
	return nil
}
func (s *street) Check(context.Context, cni.Attachment) error { return nil }
func (s *street) Open(_ context.Context, a cni.Attachment) error {
	s.compiler.PutPod(identity.Pod{Namespace: "street", Name: a.Pod.Name, UID: a.Pod.UID, Labels: map[string]string{"app": strings.TrimRight(a.Pod.Name, "0123456789")}})
	s.compiler.PutAttachment(attachment(a))
	s.load()
	return nil
}

func (s *street) request(name string) cni.Request {
	return cni.Request{
		Key: cni.Key{ContainerID: name, IfName: "eth0"}, Netns: s.pods[name].path,
		Pod: cni.Pod{Namespace: "street", Name: name, UID: name}, Config: cni.NetConf{Name: "kith", CNIVersion: "1.1.0"},
	}
}

func (s *street) deps(number byte) cni.Deps {
	h := houses{s, number}
	return cni.Deps{
		Addresses: h, Records: h, Links: veth.New("/proc/sys"), Gate: s, Connections: s.ends,
		Ready: func(context.Context) error { return nil }, MTU: func() int { return 1420 },
	}
}

// add attaches a pod, and returns its place.
func (s *street) add(name string, number byte) *place {
	s.Helper()
	s.pods[name] = newPlace(s.TB)
	mustDo(s.TB, "ADD "+name, s.node.do(func() error {
		_, err := cni.Add(s.Context(), s.deps(number), s.request(name))
		return err
	}))
	return s.pods[name]
}

func (s *street) del(name string) {
	s.Helper()
	mustDo(s.TB, "DEL "+name, s.node.do(func() error { return cni.Del(s.Context(), s.deps(0), s.request(name).Key) }))
}

// socket is a UDP socket in a place. An address may be new there.
func (s *street) socket(p *place, at netip.AddrPort) *net.UDPConn {
	s.Helper()
	var conn *net.UDPConn
	for end := time.Now().Add(hang); ; time.Sleep(time.Millisecond) {
		err := p.do(func() (err error) {
			conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
			return err
		})
		if err == nil {
			s.Cleanup(func() { conn.Close() })
			return conn
		}
		if time.Now().After(end) {
			s.Fatalf("listen at %s: %v", at, err)
		}
	}
}

// echo answers at a port, and counts what came.
func (s *street) echo(p *place, at netip.AddrPort) *atomic.Int64 {
	conn, came := s.socket(p, at), new(atomic.Int64)
	go func() {
		b := make([]byte, 100)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			came.Add(1)
			_, _ = conn.WriteToUDPAddrPort(b[:n], from)
		}
	}()
	return came
}

// exchange says whether what a socket sends is answered within a time.
func exchange(conn *net.UDPConn, to netip.AddrPort, patience time.Duration) bool {
	if _, err := conn.WriteToUDPAddrPort([]byte("hello"), to); err != nil {
		return false
	}
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return false
	}
	_, _, err := conn.ReadFromUDPAddrPort(make([]byte, 100))
	return err == nil
}

// forgetful ends nothing, as before connections ended with their pod.
type forgetful struct{}

func (forgetful) End(context.Context, []netip.Addr) error { return nil }

// TestNextPodInheritsNothing: what a pod had open by a domain name ends with it. The next pod at its address, of the same
// labels, was not told the name, and does not go on with it from the same port. Where connections do not end, it does: so
// the test knows that it would see it.
func TestNextPodInheritsNothing(t *testing.T) {
	for family, name := range []string{"IPv4", "IPv6"} {
		t.Run(name, func(t *testing.T) {
			s := newStreet(t)
			s.compiler.PutPolicy(namedOnly())
			server := netip.AddrPortFrom(addressesOf(9)[family], 5000)
			s.echo(s.add("server", 9), server)
			s.add("client0", 6) // keeps the rules that name the domain, and what they remember
			from := netip.AddrPortFrom(addressesOf(5)[family], 4000)
			told := []ruleset.ElementChange{ruleset.Told("*.example", from.Addr(), server.Addr())}
			had := func(pod string) {
				conn := s.socket(s.add(pod, 5), from)
				mustDo(t, "learn", s.table.Pupil().Learn(t.Context(), map[ruleset.ElementChange]time.Duration{told[0]: time.Hour}))
				for range 3 {
					if !exchange(conn, server, hang) {
						t.Fatalf("%s does not reach what it was told", pod)
					}
				}
				s.del(pod)
				mustDo(t, "forget", s.table.Pupil().Forget(told)) // as the learner does
			}
			ends := s.ends
			s.ends = forgetful{}
			had("client1")
			if conn := s.socket(s.add("client2", 5), from); !exchange(conn, server, hang) {
				t.Fatal("where connections do not end, the next pod inherits nothing: this test would see nothing")
			}
			s.ends = ends
			s.del("client2")
			had("client3")
			if conn := s.socket(s.add("client4", 5), from); exchange(conn, server, 300*time.Millisecond) {
				t.Error("the next pod goes on with what the one before had open by a name")
			}
		})
	}
}

// namedOnly lets clients reach what a domain name stands for, and nothing else.
func namedOnly() policy.Policy {
	client, err := labels.Parse("app=client")
	if err != nil {
		panic(err)
	}
	all := func(cidr string) policy.Peer {
		return policy.Peer{Block: &policy.Block{CIDR: netip.MustParsePrefix(cidr)}}
	}
	return policy.Policy{
		Tier: policy.Admin, Name: "named", Namespaces: labels.Everything(), Subject: client,
		Egress: &policy.Rules{
			{Peers: []policy.Peer{{Domains: []policy.Domain{"*.example"}}}, AllPorts: true},
			{Action: policy.Deny, Peers: []policy.Peer{all("0.0.0.0/0"), all("::/0")}, AllPorts: true},
		},
	}
}

// smallTable is the kernel's, with a capacity of its own: the kernel's is that of the whole machine.
type smallTable struct {
	kernel.Table
	capacity int
}

func (s smallTable) Fill() (int, int, error) {
	count, _, err := s.Table.Fill()
	return count, s.capacity, err
}

// TestGreedyPodTakesNothingFromOthers: a pod opens several times as many connections as the table can hold. It never holds
// so many that others find no room; all of a neighbour's and of the node's are opened, and none of them ends.
func TestGreedyPodTakesNothingFromOthers(t *testing.T) {
	const capacity, floods, bursts, burst = 2000, 30, 3, 100
	for family, name := range []string{"IPv4", "IPv6"} {
		t.Run(name, func(t *testing.T) {
			s := newStreet(t)
			flooder, client := s.add("flooder", 2), s.add("client", 4)
			accomplice, server := netip.AddrPortFrom(addressesOf(3)[family], 5000), netip.AddrPortFrom(addressesOf(5)[family], 5000)
			s.echo(s.add("accomplice", 3), accomplice)
			s.echo(s.add("server", 5), server)
			table := smallTable{kernel.New("/proc/sys"), capacity}
			g := &guardian{
				log: slog.New(slog.DiscardHandler), table: table,
				limit: func(all []ruleset.Limit) { s.compiler.SetLimits(all); s.load() },
				able:  nft.CanLimit,
				whose: func(a netip.Addr) string {
					var here []cni.Attachment
					for _, at := range s.records {
						here = append(here, at)
					}
					return podAt(a, here)
				},
			}
			g.SetNetwork(s.network())
			own := s.socket(s.node, netip.AddrPortFrom(addressesOf(1)[family], 4000))
			if !exchange(own, server, hang) {
				t.Fatal("the node does not reach its pod")
			}
			last := s.socket(flooder, netip.AddrPortFrom(addressesOf(2)[family], 9999))
			now, port := time.Now(), uint16(10000)
			for n := range floods {
				for range bursts {
					mustDo(t, "flood", flooder.do(func() error {
						for range burst {
							port++
							if err := fling(netip.AddrPortFrom(addressesOf(2)[family], port), accomplice); err != nil {
								return err
							}
						}
						return nil
					}))
					// What comes last is answered last, until it is limited, too.
					for end := time.Now().Add(hang); len(g.Problems()) == 0 && !exchange(last, accomplice, time.Second); {
						if time.Now().After(end) {
							t.Fatal("the flood is not answered")
						}
					}
				}
				if !exchange(s.socket(client, netip.AddrPortFrom(addressesOf(4)[family], uint16(10000+n))), server, hang) {
					t.Fatalf("a neighbour's connection %d is not opened", n)
				}
				now = now.Add(time.Second)
				mustDo(t, "keep room", s.node.do(func() error {
					if count, _, err := table.Fill(); err != nil || count > capacity {
						return fmt.Errorf("%d connections in a table for %d, %w", count, capacity, err)
					}
					return g.step(now)
				}))
			}
			if all := g.Problems(); len(all) != 1 || !strings.HasPrefix(all[0], "pod street/flooder (") {
				t.Errorf("problems: %q", all)
			}
			left := map[netip.Addr]int{}
			mustDo(t, "count", s.node.do(func() error {
				return table.Each(func(c conntrack.Connection, _ func() kernel.Name) { left[c.Opener]++ })
			}))
			if left[addressesOf(4)[family]] != floods || left[addressesOf(1)[family]] == 0 {
				t.Errorf("left: %v; the neighbour opened %d", left, floods)
			}
			mustDo(t, "calm down", s.node.do(func() error {
				if err := (table.DeleteOf(addressesOf(2))); err != nil {
					return err
				}
				return g.step(now.Add(time.Second))
			}))
			if all := g.Problems(); len(all) > 0 || len(s.compiler.Ruleset().Sets["opens4"].Elements) > 0 {
				t.Errorf("with room again: %q", all)
			}
		})
	}
}

// fling sends one packet from a port and does not wait.
func fling(from, to netip.AddrPort) error {
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(from))
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.WriteToUDPAddrPort([]byte("flood"), to)
	return err
}

// TestRatePerPod: what a pod opens beyond its rate, to other pods and to its node, is dropped, and its neighbour opens all. A stream that nobody answers is
// one connection, however many packets it has.
func TestRatePerPod(t *testing.T) {
	for family, name := range []string{"IPv4", "IPv6"} {
		t.Run(name, func(t *testing.T) {
			const rate, tries = 20, 400
			s := newStreet(t)
			s.compiler.SetRate(rate)
			busy, client := s.add("busy", 2), s.add("client", 3)
			to := netip.AddrPortFrom(addressesOf(4)[family], 5000)
			s.echo(s.add("server", 4), to)
			silent := s.socket(s.pods["server"], netip.AddrPortFrom(to.Addr(), 5001))
			stream := s.socket(client, netip.AddrPortFrom(addressesOf(3)[family], 4000))
			for range tries {
				_, err := stream.WriteToUDPAddrPort([]byte("one way"), netip.AddrPortFrom(to.Addr(), 5001))
				mustDo(t, "send", err)
				mustDo(t, "wait", silent.SetReadDeadline(time.Now().Add(hang)))
				if _, _, err := silent.ReadFromUDPAddrPort(make([]byte, 100)); err != nil {
					t.Fatalf("a packet of an unanswered stream is lost: %v", err)
				}
			}
			s.socket(busy, netip.AddrPortFrom(addressesOf(2)[family], 9999)) // its address is there
			begin := time.Now()
			mustDo(t, "open", busy.do(func() error {
				node := netip.AddrPortFrom(addressesOf(1)[family], 5000)
				for n := range tries {
					if err := fling(netip.AddrPortFrom(addressesOf(2)[family], uint16(10000+n)), []netip.AddrPort{to, node}[n%2]); err != nil {
						return err
					}
				}
				return nil
			}))
			for n := range rate / 2 {
				if !exchange(s.socket(client, netip.AddrPortFrom(addressesOf(3)[family], uint16(20000+n))), to, hang) {
					t.Fatalf("a neighbour's connection %d is not opened", n)
				}
			}
			opened := 0
			mustDo(t, "count", s.node.do(func() error {
				return kernel.New("/proc/sys").Each(func(c conntrack.Connection, _ func() kernel.Name) {
					if slices.Contains(addressesOf(2), c.Opener) {
						opened++
					}
				})
			}))
			// Router solicitations and the like are a few.
			if most := rate + int(time.Since(begin).Seconds()*rate) + 5; opened > most && most < tries || opened < rate/2 {
				t.Errorf("%d of %d connections opened, at most %d", opened, tries, most)
			}
		})
	}
}
