//go:build kernel

package nft

import (
	"net/netip"
	"testing"

	"github.com/google/nftables"
	"github.com/kithnet/kith/identity"
)

// arrivesAt says whether a UDP packet or the first of a TCP connection, made by hand, comes to an end's address and port.
func (l *lab) arrivesAt(f flow, want expected) bool {
	l.Helper()
	word := newWord()
	pkt := udpPacket(f, 40000, word)
	if f.Protocol == identity.TCP {
		pkt = tcpPacket(f, 40000, syn, word)
	}
	from := l.place(f.from)
	say := func() { l.inject(from, l.toRouter(from, pkt)) }
	if f.to.ns == l.router.ns {
		f.Destination = netip.IPv6Unspecified()
		if f.Source.Is4() {
			f.Destination = netip.IPv4Unspecified()
		}
		return l.delivered(f, word, want.patience(), say)
	}
	return l.seen(f.to, word, want.patience(), say)
}

// TestPodsDoNotReachTheMeshsPorts: what nodes hear of each other comes from nodes, whatever the policies are and also by a
// Service; what pods send to the same ports elsewhere, and to other ports of nodes, arrives.
func TestPodsDoNotReachTheMeshsPorts(t *testing.T) {
	families(t, func(t *testing.T, family int) {
		l := newLab(t)
		l.address(l.outside, "eth0", single(remoteNode[family]))
		l.neighbour(l.router, outLink, remoteNode[family], l.outside.mac)
		byService := addrs("10.96.0.1", "fd96::1")[family]
		a := l.another("services", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, -100)
		for i, to := range []netip.AddrPort{netip.AddrPortFrom(remoteNode[family], 7946), netip.AddrPortFrom(ownNode[family], 7946), netip.AddrPortFrom(remoteNode[family], 53)} {
			for _, from := range []netip.Addr{byService, ownNode[family]} {
				a.redirect(identity.UDP, netip.AddrPortFrom(from, uint16(8000+i)), to)
			}
		}
		must(t, "make services", a.conn.Flush())
		l.under()
		pod, remote, outside := l.pods[0].end, l.remotes[0], l.outside.end
		for _, c := range []struct {
			name     string
			from, to end
			address  netip.Addr
			protocol identity.Protocol
			ports    []uint16
			want     expected
		}{
			{"pod to its node", pod, l.router.end, ownNode[family], identity.UDP, []uint16{7946, 51820, 51821}, false},
			{"pod to its node", pod, l.router.end, ownNode[family], identity.TCP, []uint16{7946}, false},
			{"pod to its node's mesh address", pod, l.router.end, ownMesh[family], identity.UDP, []uint16{7947, 7948}, false},
			{"pod to another node", pod, outside, remoteNode[family], identity.UDP, []uint16{7946, 51821}, false},
			{"pod to another node", pod, outside, remoteNode[family], identity.TCP, []uint16{7946}, false},
			{"pod to another node's mesh address", pod, l.mesh.end, remoteMesh[family], identity.UDP, []uint16{7947, 7948}, false},
			{"pod by a Service", pod, outside, byService, identity.UDP, []uint16{8000}, false},
			{"pod by a Service to its node", pod, l.router.end, byService, identity.UDP, []uint16{8001}, false},
			{"stranger by a node port", outside, l.router.end, ownNode[family], identity.UDP, []uint16{8001}, false},
			{"remote pod", remote, l.router.end, ownMesh[family], identity.UDP, []uint16{7947, 7948}, false},
			{"pod to other ports of its node", pod, l.router.end, ownNode[family], identity.UDP, []uint16{7945, 53}, true},
			{"pod to other ports of another node", pod, outside, remoteNode[family], identity.TCP, []uint16{10250, 7947}, true},
			{"pod by a Service to another port", pod, outside, byService, identity.UDP, []uint16{8002}, true},
			{"pod to a pod", pod, l.pods[1].end, l.pods[1].addresses[family], identity.UDP, []uint16{7946, 7948}, true},
			{"pod to a stranger", pod, outside, outsiders[family], identity.UDP, []uint16{51820}, true},
			{"another node in the mesh", l.mesh.end, l.router.end, ownMesh[family], identity.UDP, []uint16{7947, 7948}, true},
			{"stranger to the node", outside, l.router.end, ownNode[family], identity.UDP, []uint16{7946, 51820}, true},
			{"remote pod to other ports", remote, l.router.end, ownMesh[family], identity.UDP, []uint16{9100}, true},
		} {
			for _, port := range c.ports {
				f := l.between(c.from, c.to, family, c.protocol, port)
				f.Destination = c.address
				if got := l.arrivesAt(f, c.want); got != bool(c.want) {
					t.Errorf("%s, %s port %d: arrives %v, want %v", c.name, c.protocol, port, got, c.want)
				}
			}
		}
	})
}

// TestPodsDoNotReachTheLoopback: kube-proxy may set route_localnet, and then what a pod sends to 127.0.0.1 would arrive.
func TestPodsDoNotReachTheLoopback(t *testing.T) {
	l := newLab(t)
	l.under()
	l.sysctl(l.router, "1", "ipv4/conf/all/route_localnet")
	pod := l.pods[0].end
	for address, want := range map[string]expected{"127.0.0.1": false, "127.1.2.3": false, ownNode[0].String(): true} {
		f := l.between(pod, l.router.end, 0, identity.UDP, 10249)
		f.Destination = netip.MustParseAddr(address)
		if got := l.arrivesAt(f, want); got != bool(want) {
			t.Errorf("%s: arrives %v, want %v", address, got, want)
		}
	}
}

// TestPodsDoNotChooseTheirWay: a node forwards no packet that names the way it shall take, or a pod would show policies
// one destination and reach another.
func TestPodsDoNotChooseTheirWay(t *testing.T) {
	l := newLab(t)
	l.under()
	pod, to := l.pods[0], l.pods[1].end
	for name, kind := range map[string]byte{"loose": 131, "strict": 137, "no option": 1} {
		word := newWord()
		p := udpPacket(l.between(pod.end, to, 0, identity.UDP, 80), 1234, word)
		want := expected(kind == 1)
		if !want {
			p.destination = ownNode[0]
		}
		options := append([]byte{kind, 7, 4}, to.addresses[0].AsSlice()...)
		if kind == 1 {
			options = []byte{1, 1, 1, 1, 1, 1, 1}
		}
		frame := l.toRouter(pod, p.withOptions(append(options, 0)))
		if got := l.seen(to, word, want.patience(), func() { l.inject(pod, frame) }); got != bool(want) {
			t.Errorf("%s source route: arrives %v, want %v", name, got, want)
		}
	}
	for _, typ := range []byte{0, 2, 3, 4} {
		word := newWord()
		p := udpPacket(l.between(pod.end, to, 1, identity.UDP, 80), 1234, word)
		header := append([]byte{p.protocol, 2, typ, 1, 0, 0, 0, 0}, to.addresses[1].AsSlice()...)
		p.destination, p.protocol, p.payload = ownNode[1], 43, append(header, p.payload...)
		if l.seen(to, word, soon, func() { l.inject(pod, l.toRouter(pod, p)) }) {
			t.Errorf("routing header of type %d: arrives", typ)
		}
	}
}

// TestFragmentsDoNotReachTheMeshsPorts: a packet in pieces, whose second has no port, is one packet.
func TestFragmentsDoNotReachTheMeshsPorts(t *testing.T) {
	l := newLab(t)
	l.under()
	pod := l.pods[0]
	for port, want := range map[uint16]expected{7946: false, 7945: true} {
		f := l.between(pod.end, l.router.end, 0, identity.UDP, port)
		f.Destination = ownNode[0]
		word := newWord()
		whole := udpPacket(f, 40001, "padding-to-eight"+word)
		first, second := whole, whole
		first.payload, second.payload = whole.payload[:24], whole.payload[24:]
		got := l.delivered(f, word, want.patience(), func() {
			l.inject(pod, l.toRouter(pod, first.fragment(0x2000)))
			l.inject(pod, l.toRouter(pod, second.fragment(24/8)))
		})
		if got != bool(want) {
			t.Errorf("fragments to port %d: arrive %v, want %v", port, got, want)
		}
	}
}
