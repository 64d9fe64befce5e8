//go:build kernel

package nft

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/labels"
)

const (
	soon = 300 * time.Millisecond
	late = 5 * time.Second
)

// expected is whether something should pass. What should gets all the time that a busy machine may need.
type expected bool

func (e expected) patience() time.Duration {
	if e {
		return late
	}
	return soon
}

// isolates is a policy on one pod that allows only what its rules say.
func isolates(pod string, d policy.Direction, rules ...policy.Rule) policy.Policy {
	p := policy.Policy{Namespace: namespaceOf(pod), Name: pod + "-" + d.String(), Subject: parse("app=" + pod)}
	r := policy.Rules(rules)
	if d == policy.Egress {
		p.Egress = &r
	} else {
		p.Ingress = &r
	}
	return p
}

// only is a rule for one other pod, for all ports or for some.
func only(pod string, ports ...policy.Port) policy.Rule {
	return policy.Rule{
		Peers: []policy.Peer{{Namespaces: labels.Everything(), Pods: parse("app=" + pod)}}, AllPorts: len(ports) == 0, Ports: ports,
	}
}

func port(protocol identity.Protocol, n uint16) policy.Port {
	return policy.Port{Protocol: protocol, First: n, Last: n}
}

// under puts policies into the kernel, with every attachment open.
func (l *lab) under(policies ...policy.Policy) {
	l.Helper()
	c := l.cluster()
	c.Policies = policies
	l.enforce(c, l.attachments())
}

// call is a TCP connection with both its ends in hand.
type call struct {
	flow
	client, server net.Conn
	opened         time.Time
}

// patience is how long a word may take. Words that were denied go first when they are allowed: TCP tries them again after
// pauses that double, so that the next may be as far off as the first try is in the past.
func (c call) patience(want expected) time.Duration {
	if want {
		return late + time.Since(c.opened)
	}
	return soon
}

func (l *lab) call(f flow) call {
	l.Helper()
	c := call{flow: f, opened: time.Now()}
	var listener *net.TCPListener
	var err error
	inside(l, f.to.ns, func() {
		listener, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(f.Destination, f.Port)))
	})
	must(l, "listen", err)
	defer listener.Close()
	inside(l, f.from.ns, func() { c.client, err = dialFlow(f, late) })
	must(l, "dial "+f.String(), err)
	c.server, err = listener.Accept()
	must(l, "accept", err)
	l.Cleanup(func() { c.client.Close(); c.server.Close() })
	return c
}

// carries says in which directions what is written now arrives.
func (l *lab) carries(c call, want expected) (there, back bool) {
	l.Helper()
	word := newWord()
	there = l.seen(c.to, word, c.patience(want), func() { _, _ = c.client.Write([]byte(word)) })
	word = newWord()
	back = l.seen(c.from, word, c.patience(want), func() { _, _ = c.server.Write([]byte(word)) })
	return there, back
}

func (l *lab) wantCarried(c call, when string, want expected) {
	l.Helper()
	if there, back := l.carries(c, want); there != bool(want) || back != bool(want) {
		l.Errorf("%s, %s: there %v, back %v; want %v", c, when, there, back, want)
	}
}

func TestPoliciesReachLiveConnections(t *testing.T) {
	families(t, func(t *testing.T, family int) {
		l := newLab(t)
		pod, other, remote := l.pods[0].end, l.pods[1].end, l.remotes[0]
		l.under()
		for _, c := range []struct {
			call
			deny, allow policy.Policy
		}{
			{l.call(l.between(remote, pod, family, identity.TCP, 80)), isolates("pod0", policy.Ingress), isolates("pod0", policy.Ingress, only("remote0", port(identity.TCP, 80)))},
			{l.call(l.between(other, pod, family, identity.TCP, 81)), isolates("pod0", policy.Ingress), isolates("pod0", policy.Ingress, only("pod1"))},
			{l.call(l.between(other, pod, family, identity.TCP, 82)), isolates("pod1", policy.Egress), isolates("pod1", policy.Egress, only("pod0", port(identity.TCP, 82)))},
			{l.call(l.between(pod, remote, family, identity.TCP, 83)), isolates("pod0", policy.Egress), isolates("pod0", policy.Egress, only("remote0", policy.Port{Protocol: identity.TCP, First: 80, Last: 90}))},
		} {
			l.under()
			l.wantCarried(c.call, "without policies", true)
			l.under(c.deny)
			l.wantCarried(c.call, "after a policy that denies", false)
			l.under(c.deny, c.allow)
			l.wantCarried(c.call, "after one that allows", true)
			l.under(c.allow)
			l.wantCarried(c.call, "with only that", true)
			l.under(isolates("pod2", policy.Ingress))
			l.wantCarried(c.call, "with another pod's policy", true)
		}
	})
}

// forget empties the router's table of connections.
func (l *lab) forget() {
	l.Helper()
	must(l, "flush connections", l.router.handle.ConntrackTableFlush(netlink.ConntrackTable))
}

func TestSubjectsStayClosedWithoutConntrack(t *testing.T) {
	families(t, func(t *testing.T, family int) {
		l := newLab(t)
		subject, free, remote := l.pods[0].end, l.pods[1].end, l.remotes[0]
		l.under(isolates("pod0", policy.Ingress, only("remote0")), isolates("pod0", policy.Egress, only("remote1")))
		in := l.call(l.between(remote, subject, family, identity.TCP, 80))
		out := l.call(l.between(subject, l.remotes[1], family, identity.TCP, 80))
		unpoliced := l.call(l.between(remote, free, family, identity.TCP, 80))
		l.wantCarried(in, "at first", true)
		l.wantCarried(out, "at first", true)
		l.forget()
		l.wantCarried(in, "after its entry went", false)
		l.wantCarried(out, "after its entry went", false)
		l.wantCarried(unpoliced, "after its entry went", true)
		// Turned round: the first packet after the loss is the answer.
		l.forget()
		word := newWord()
		if l.seen(in.from, word, soon, func() { _, _ = in.server.Write([]byte(word)) }) {
			t.Error("an answer passed after its entry went")
		}
		l.wantCarried(l.call(l.between(remote, subject, family, identity.TCP, 80)), "new", true)
	})
}

// notrack keeps UDP to a port out of connection tracking.
func (l *lab) notrack(port byte) {
	l.Helper()
	a := l.another("untracked", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, -310)
	a.rule(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, &expr.Cmp{Register: 1, Data: []byte{unix.IPPROTO_UDP}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Register: 1, Data: []byte{0, port}}, &expr.Notrack{})
	must(l, "make untracked", a.conn.Flush())
}

// carriesPacket says whether a packet made by hand arrives.
func (l *lab) carriesPacket(f flow, patience time.Duration, make func(flow, string) packet) bool {
	l.Helper()
	word := newWord()
	from := l.place(f.from)
	return l.seen(f.to, word, patience, func() { l.inject(from, l.toRouter(from, make(f, word))) })
}

func TestPacketsOfNoConnection(t *testing.T) {
	const untracked = 9
	families(t, func(t *testing.T, family int) {
		l := newLab(t)
		l.notrack(untracked)
		answer := []byte{0, 129}[family]
		kinds := map[string]func(flow, string) packet{
			"answer to no ping":        func(f flow, w string) packet { return icmpPacket(f, answer, w) },
			"segment of no connection": func(f flow, w string) packet { return tcpPacket(f, 1234, ack, w) },
			"segment of no state":      func(f flow, w string) packet { return tcpPacket(f, 1235, syn|fin, w) },
			"reset of no connection":   func(f flow, w string) packet { return tcpPacket(f, 1236, rst, w) },
			"untracked":                func(f flow, w string) packet { f.Port = untracked; return udpPacket(f, 1237, w) },
		}
		everybody := policy.Rule{AllPeers: true, AllPorts: true}
		l.under(isolates("pod0", policy.Ingress, everybody), isolates("pod1", policy.Egress, everybody))
		for name, kind := range kinds {
			for _, c := range []struct {
				from, to end
				want     expected
			}{
				{l.remotes[0], l.pods[0].end, false}, {l.pods[0].end, l.remotes[0], false},
				{l.remotes[0], l.pods[1].end, false}, {l.pods[1].end, l.remotes[0], false},
				{l.remotes[0], l.pods[2].end, true}, {l.pods[3].end, l.pods[2].end, true},
			} {
				f := l.between(c.from, c.to, family, icmp, 80)
				if got := l.carriesPacket(f, c.want.patience(), kind); got != bool(c.want) {
					t.Errorf("%s, %s → %s: passes %v, want %v", name, c.from.name, c.to.name, got, c.want)
				}
			}
		}
	})
}
