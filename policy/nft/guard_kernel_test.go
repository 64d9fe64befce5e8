//go:build kernel

package nft

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
	"github.com/kithnet/kith/policy/ruleset"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/labels"
)

func TestPodsSendUnderTheirOwnAddresses(t *testing.T) {
	families(t, func(t *testing.T, family int) {
		l := newLab(t)
		l.under()
		pod, to := l.pods[0], l.pods[1].end
		for name, c := range map[string]struct {
			source netip.Addr
			mac    net.HardwareAddr
			want   expected
		}{
			"its own":              {pod.addresses[family], pod.mac, true},
			"another pod's":        {l.pods[2].addresses[family], pod.mac, false},
			"a remote pod's":       {remoteMesh[family], pod.mac, false},
			"the node's":           {ownMesh[family], pod.mac, false},
			"an outsider's":        {outsiders[family], pod.mac, false},
			"nobody's":             {[]netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}[family], pod.mac, false},
			"its own, another MAC": {pod.addresses[family], l.pods[2].mac, false},
		} {
			f := l.between(pod.end, to, family, identity.UDP, 80)
			f.Source = c.source
			word := newWord()
			frame := udpPacket(f, 1234, word).frame(c.mac, routerMAC(0))
			if got := l.seen(to, word, c.want.patience(), func() { l.inject(pod, frame) }); got != bool(c.want) {
				t.Errorf("%s: passes %v, want %v", name, got, c.want)
			}
		}
	})
}

func TestPodAddressesNeverOnTheUnderlay(t *testing.T) {
	families(t, func(t *testing.T, family int) {
		l := newLab(t)
		l.serve()
		l.under()
		pod, remote := l.pods[0].end, l.remotes[0]
		for name, source := range map[string]netip.Addr{"a remote pod's": remote.addresses[family], "a local pod's": l.pods[1].addresses[family], "the mesh's": remoteMesh[family]} {
			f := l.between(l.outside.end, pod, family, identity.UDP, 80)
			f.Source = source
			if l.carriesPacket(f, soon, func(f flow, w string) packet { return udpPacket(f, 1234, w) }) {
				t.Errorf("a packet from %s address came in from the underlay", name)
			}
		}
		l.route(l.router, outLink, remoteCIDRs[family], outsiders[family])
		word := newWord()
		f := l.between(pod, remote, family, identity.UDP, 80)
		from := l.place(pod)
		if l.seen(l.outside.end, word, soon, func() { l.inject(from, l.toRouter(from, udpPacket(f, 1234, word))) }) {
			t.Error("a pod's packet to a remote pod left by the underlay")
		}
		f.from, f.Source, word = l.router.end, ownNode[family], newWord()
		if l.seen(l.outside.end, word, soon, func() { l.sendRaw(f, udpPacket(f, 1234, word).payload) }) {
			t.Error("the node's packet to a remote pod left by the underlay")
		}
	})
}

// TestUnderlayDoesNotReachPods: what comes from outside comes by a port of a node or a Service, unless pods show
// themselves there.
func TestUnderlayDoesNotReachPods(t *testing.T) {
	families(t, func(t *testing.T, family int) {
		l := newLab(t)
		l.serve()
		l.openNodePorts()
		network := l.network()
		network.NoMasquerade = []netip.Prefix{single(outsiders[2+family])}
		c := l.cluster()
		converge(l, l.table, ruleset.Compile(ruleset.Input{Pods: c.Pods, Namespaces: c.Namespaces, Attachments: l.attachments(), Network: network}))
		pod, service := l.pods[0].end, addrs("10.96.0.1", "fd96::1")[family]
		direct := l.between(l.outside.end, pod, family, identity.UDP, 80)
		byNode := direct
		byNode.by = l.nodePort(pod.addresses[family], 80)
		for name, c := range map[string]struct {
			source, destination netip.Addr
			want                expected
		}{
			"a stranger":              {outsiders[family], pod.addresses[family], false},
			"a Service's address":     {service, pod.addresses[family], false},
			"a node":                  {remoteNode[family], pod.addresses[family], false},
			"where masquerade is off": {outsiders[2+family], pod.addresses[family], true},
		} {
			f := direct
			f.Source, f.Destination = c.source, c.destination
			if got := l.carriesPacket(f, c.want.patience(), func(f flow, w string) packet { return udpPacket(f, 1234, w) }); got != bool(c.want) {
				t.Errorf("%s: reaches a pod %v, want %v", name, got, c.want)
			}
		}
		toMesh := direct
		toMesh.to, toMesh.Destination = l.router.end, ownMesh[family]
		if l.arrivesAt(toMesh, false) {
			t.Error("a stranger reaches the node's mesh address")
		}
		if !l.passes(byNode, late) || !l.passes(l.between(pod, l.outside.end, family, identity.UDP, 80), late) || !l.passes(l.between(l.router.end, pod, family, identity.UDP, 80), late) {
			t.Error("a node port, a connection out or the node itself does not pass")
		}
	})
}

// TestConnectionsToANodeThatIsGone: what a pod said to the pods of a node that is gone does not follow the default route
// under the pod's own address.
func TestConnectionsToANodeThatIsGone(t *testing.T) {
	families(t, func(t *testing.T, family int) {
		l := newLab(t)
		l.under()
		from, remote := l.pods[0], l.remotes[0]
		f := l.between(from.end, remote, family, identity.UDP, 80)
		say := func(word string) func() { return func() { l.inject(from, l.toRouter(from, udpPacket(f, 1234, word))) } }
		word := newWord()
		if !l.seen(remote, word, late, say(word)) {
			t.Fatal("nothing arrives while the node is there")
		}
		alone := l.network()
		alone.Nodes = alone.Nodes[:1]
		c := l.cluster()
		converge(l, l.table, ruleset.Compile(ruleset.Input{Pods: c.Pods, Namespaces: c.Namespaces, Attachments: l.attachments(), Network: alone}))
		l.route(l.router, outLink, remoteCIDRs[family], outsiders[family])
		if word = newWord(); l.seen(l.outside.end, word, soon, say(word)) {
			t.Error("a packet of the connection left by the underlay")
		}
		converge(l, l.table, ruleset.Ruleset{})
		if word = newWord(); !l.seen(l.outside.end, word, late, say(word)) {
			t.Error("without the guard, none does: the test would not see it")
		}
	})
}

// TestNodeIsOnlyItself has a process of the node send to the node under other addresses, which needs no more than a raw
// socket and comes by lo: to what listens for other nodes in the mesh it must not speak as one.
func TestNodeIsOnlyItself(t *testing.T) {
	families(t, func(t *testing.T, family int) {
		l := newLab(t)
		l.under()
		for name, c := range map[string]struct {
			source netip.Addr
			want   expected
		}{
			"its mesh address":    {ownMesh[family], true},
			"its own address":     {ownNode[family], true},
			"another node's":      {remoteMesh[family], false},
			"a remote pod's":      {l.remotes[0].addresses[family], false},
			"a pod's of its own":  {l.pods[0].addresses[family], false},
			"a free one for pods": {ownMesh[family].Prev(), false},
		} {
			f := l.between(l.router.end, l.router.end, family, identity.UDP, 80)
			f.Source, f.Destination = c.source, ownMesh[family]
			word := newWord()
			forged := udpPacket(f, 1234, word)
			if got := l.delivered(f, word, c.want.patience(), func() { l.forge(forged) }); got != bool(c.want) {
				t.Errorf("as %s: arrives %v, want %v", name, got, c.want)
			}
		}
	})
}

// forge sends a packet of the router's with its header as it is.
func (l *lab) forge(p packet) {
	l.Helper()
	inside(l, l.router.ns, func() {
		domain, to := unix.AF_INET, unix.Sockaddr(nil)
		if p.source.Is6() {
			domain, to = unix.AF_INET6, &unix.SockaddrInet6{Addr: p.destination.As16()}
		} else {
			to = &unix.SockaddrInet4{Addr: p.destination.As4()}
		}
		fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		must(l, "open raw socket", err)
		defer unix.Close(fd)
		must(l, "forge", unix.Sendto(fd, p.bytes(), 0, to))
	})
}

// TestMeshLeadsToThisNodesPodsOnly: what comes out of the tunnel is for a pod of this node, or for its mesh address.
func TestMeshLeadsToThisNodesPodsOnly(t *testing.T) {
	families(t, func(t *testing.T, family int) {
		l := newLab(t)
		l.under()
		l.route(l.mesh, "eth0", single(ownNode[family]), ownMesh[family])
		l.route(l.mesh, "eth0", single(outsiders[family]), ownMesh[family])
		for name, c := range map[string]struct {
			to   end
			addr netip.Addr
			want expected
		}{
			"a pod":              {l.pods[0].end, l.pods[0].addresses[family], true},
			"its mesh address":   {l.router.end, ownMesh[family], true},
			"the node's address": {l.router.end, ownNode[family], false},
			"an outsider":        {l.outside.end, outsiders[family], false},
		} {
			f := l.between(l.remotes[0], c.to, family, identity.SCTP, 80)
			f.Destination = c.addr
			if got := l.arrives(f, c.want.patience()); got != bool(c.want) {
				t.Errorf("%s: reached %v, want %v", name, got, c.want)
			}
		}
	})
}

// sourceSeen is under which address a flow shows itself to the other end.
func (l *lab) sourceSeen(f flow) netip.Addr {
	l.Helper()
	c := l.call(f)
	return c.server.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
}

func TestMasquerade(t *testing.T) {
	families(t, func(t *testing.T, family int) {
		l := newLab(t)
		l.under()
		pod, remote := l.pods[0].end, l.remotes[0]
		fromNode := l.between(l.router.end, remote, family, identity.TCP, 80)
		fromNode.Source = ownNode[family]
		for name, c := range map[string]struct {
			flow
			want netip.Addr
		}{
			"pod to outside":            {l.between(pod, l.outside.end, family, identity.TCP, 80), ownNode[family]},
			"pod to remote pod":         {l.between(pod, remote, family, identity.TCP, 80), pod.addresses[family]},
			"pod to pod":                {l.between(pod, l.pods[1].end, family, identity.TCP, 80), pod.addresses[family]},
			"remote pod to pod":         {l.between(remote, pod, family, identity.TCP, 80), remote.addresses[family]},
			"node to remote pod":        {fromNode, ownMesh[family]},
			"mesh address to its pod":   {l.between(l.router.end, pod, family, identity.TCP, 80), ownMesh[family]},
			"remote node to pod of own": {l.between(l.mesh.end, pod, family, identity.TCP, 80), remoteMesh[family]},
		} {
			if got := l.sourceSeen(c.flow); got != c.want {
				t.Errorf("%s: seen as %s, want %s", name, got, c.want)
			}
		}
	})
}

// TestNodesSeeNodes: where pods show their own addresses, to all or to a range that has the nodes in it, other nodes still see
// this node: they drop what bears a pod's address and comes by the underlay.
func TestNodesSeeNodes(t *testing.T) {
	families(t, func(t *testing.T, family int) {
		l := newLab(t)
		network := l.network()
		network.Nodes[1].Addresses = append(network.Nodes[1].Addresses, outsiders[family])
		network.NoMasquerade = []netip.Prefix{netip.PrefixFrom(outsiders[family], 0).Masked()}
		c := l.cluster()
		converge(l, l.table, ruleset.Compile(ruleset.Input{Pods: c.Pods, Namespaces: c.Namespaces, Attachments: l.attachments(), Network: network}))
		pod := l.pods[0].end
		toNode := l.between(pod, l.outside.end, family, identity.TCP, 80)
		toNode.Destination = outsiders[family]
		if got := l.sourceSeen(toNode); got != ownNode[family] {
			t.Errorf("a node sees %s, want the pod's node %s", got, ownNode[family])
		}
		toOther := toNode
		toOther.Destination = outsiders[2+family]
		if got := l.sourceSeen(toOther); got != toOther.Source {
			t.Errorf("who is no node sees %s, want the pod %s", got, toOther.Source)
		}
	})
}

// TestPodsKeepTheirAddressByANodePort: kube-proxy masquerades what comes by a node port. To a remote pod, a pod is itself
// all the same, whoever made his chain first.
func TestPodsKeepTheirAddressByANodePort(t *testing.T) {
	families(t, func(t *testing.T, family int) {
		for _, first := range []string{"kube-proxy", "kith"} {
			l := newLab(t)
			pod, remote := l.pods[0].end, l.remotes[0]
			f := l.between(pod, remote, family, identity.TCP, 80)
			f.by = netip.AddrPortFrom(ownNode[family], 30080)
			if first == "kith" {
				l.under()
			}
			a := l.another("nodeport", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, -100)
			a.redirect(identity.TCP, f.by, netip.AddrPortFrom(f.Destination, f.Port))
			must(t, "make node port", a.conn.Flush())
			m := l.another("masquerade", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, 100)
			m.rule(append(destination(f.Destination), &expr.Masq{})...)
			must(t, "make masquerade", m.conn.Flush())
			l.under()
			if got := l.sourceSeen(f); got != f.Source {
				t.Errorf("%s first: a pod is seen as %s, want %s", first, got, f.Source)
			}
		}
	})
}

func TestClosedAttachmentsPassNothing(t *testing.T) {
	families(t, func(t *testing.T, family int) {
		l := newLab(t)
		l.serve()
		l.openNodePorts()
		l.enforce(l.cluster(), l.attachments()[1:])
		closed, open := l.pods[0].end, l.pods[1].end
		fromOutside := l.between(l.outside.end, closed, family, identity.TCP, 80)
		fromOutside.by = l.nodePort(closed.addresses[family], 80)
		flows := []flow{fromOutside}
		for _, e := range []end{open, l.remotes[0], l.router.end, l.mesh.end} {
			for _, protocol := range []identity.Protocol{identity.TCP, identity.UDP, identity.SCTP, icmp} {
				flows = append(flows, l.between(e, closed, family, protocol, 80), l.between(closed, e, family, protocol, 80))
			}
		}
		for _, f := range l.mismatches(flows, func(flow) bool { return false }) {
			t.Errorf("%s passes", f)
		}
		others := []flow{l.between(open, l.pods[2].end, family, identity.TCP, 80), l.between(l.router.end, open, family, icmp, 0)}
		for _, f := range l.mismatches(others, func(flow) bool { return true }) {
			t.Errorf("%s does not pass", f)
		}
		l.enforce(l.cluster(), l.attachments())
		for _, f := range l.mismatches(flows, func(flow) bool { return true }) {
			t.Errorf("%s does not pass once it is opened", f)
		}
		l.enforce(l.cluster(), l.attachments()[1:])
		for _, f := range l.mismatches(flows, func(flow) bool { return false }) {
			t.Errorf("%s passes after it was closed", f)
		}
	})
}

func TestErrorsAboutAllowedConnectionsPass(t *testing.T) {
	const nobody = 9999
	families(t, func(t *testing.T, family int) {
		l := newLab(t)
		subject, remote := l.pods[0].end, l.remotes[0]
		l.under(isolates("pod0", policy.Ingress, only("remote0", port(identity.UDP, nobody))), isolates("pod0", policy.Egress, only("remote0", port(identity.UDP, nobody))))
		for _, f := range []flow{l.between(subject, remote, family, identity.UDP, nobody), l.between(remote, subject, family, identity.UDP, nobody)} {
			var conn net.Conn
			var err error
			inside(t, f.from.ns, func() { conn, err = dialFlow(f, late) })
			must(t, "dial", err)
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(late))
			_, err = conn.Write([]byte("anybody?"))
			must(t, "write", err)
			if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("%s: no error from the closed port: %v", f, err)
			}
		}
	})
}

func TestNeighbourMessagesOfPods(t *testing.T) {
	const routerSolicitation, advertisement, solicitation, redirect = 133, 134, 135, 137
	l := newLab(t)
	l.under()
	pod := l.pods[0]
	local := netip.MustParseAddr("fe80::ff:fe00:100")
	allNodes := netip.MustParseAddr("ff02::1")
	var conn net.PacketConn
	var err error
	inside(t, l.router.ns, func() { conn, err = net.ListenPacket("ip6:ipv6-icmp", "::") })
	must(t, "open raw socket", err)
	defer conn.Close()
	for _, c := range []struct {
		typ    byte
		source netip.Addr
		want   expected
	}{
		// By a solicitation of routers, too, the kernel remembers the sender.
		{routerSolicitation, local, false}, {routerSolicitation, remoteMesh[1], false},
		{advertisement, local, false}, {advertisement, pod.addresses[1], false}, {redirect, local, false}, {redirect, pod.addresses[1], false},
		{solicitation, local, true}, {solicitation, netip.IPv6Unspecified(), true}, {solicitation, l.pods[1].addresses[1], false},
	} {
		f := flow{from: pod.end, to: l.router.end, Flow: policy.Flow{Source: c.source, Destination: allNodes, Protocol: icmp6}}
		target := string(ownMesh[1].AsSlice())
		l.inject(pod, icmpPacket(f, c.typ, target).frame(pod.mac, net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}))
		if got := received(conn, c.typ, c.want.patience()); got != bool(c.want) {
			t.Errorf("ICMPv6 type %d from %s: reaches the node %v, want %v", c.typ, c.source, got, c.want)
		}
	}
}

func received(conn net.PacketConn, typ byte, patience time.Duration) bool {
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	for b := make([]byte, 1500); ; {
		n, _, err := conn.ReadFrom(b)
		if err != nil {
			return false
		}
		if n > 0 && b[0] == typ {
			return true
		}
	}
}

func TestPodReachesItselfThroughAService(t *testing.T) {
	families(t, func(t *testing.T, family int) {
		l := newLab(t)
		l.serve()
		pod := l.pods[0].end
		service := netip.AddrPortFrom(addrs("10.96.0.1", "fd96::1")[family], 8000)
		a := l.another("service", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, -100)
		a.redirect(identity.TCP, service, netip.AddrPortFrom(pod.addresses[family], 80))
		must(t, "make service", a.conn.Flush())
		// A service hides a pod from itself, or the pod takes its own answer for a forgery.
		h := l.another("hairpin", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, 90)
		h.rule(append(destination(pod.addresses[family]), &expr.Ct{Key: expr.CtKeySTATUS, Register: 1},
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: []byte(native32(statusTranslated)), Xor: make([]byte, 4)},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)}, &expr.Masq{})...)
		must(t, "make hairpin", h.conn.Flush())
		l.under(isolates("pod0", policy.Ingress), isolates("pod0", policy.Egress))
		itself := l.between(pod, pod, family, identity.TCP, 80)
		itself.by = service
		other := l.between(l.pods[1].end, pod, family, identity.TCP, 80)
		other.by = service
		if !l.passes(itself, late) {
			t.Error("an isolated pod does not reach itself")
		}
		if l.passes(other, soon) {
			t.Error("another pod reaches it too")
		}
		deny := isolates("pod0", policy.Ingress, policy.Rule{Action: policy.Deny, AllPeers: true, AllPorts: true})
		deny.Tier, deny.Namespace, deny.Namespaces = policy.Admin, "", labels.Everything()
		l.under(deny)
		if l.passes(itself, soon) {
			t.Error("a pod reaches itself by a Service, though a ClusterNetworkPolicy denies it")
		}
		if itself.by = (netip.AddrPort{}); !l.passes(itself, late) {
			t.Error("a pod does not reach its own address")
		}
	})
}
