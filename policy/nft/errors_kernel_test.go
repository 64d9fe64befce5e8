//go:build kernel

package nft

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/kithnet/kith/identity"
	"github.com/kithnet/kith/policy"
)

// errorPacket is an ICMP error about a packet, with a word behind what it quotes.
func errorPacket(from, to netip.Addr, quoted packet, word string) packet {
	f := flow{Flow: policy.Flow{Source: from, Destination: to, Protocol: icmp}}
	typ := byte(3)
	if from.Is6() {
		f.Protocol, typ = icmp6, 1
	}
	p := icmpPacket(f, typ, string(quoted.bytes())+word)
	clear(p.payload[4:8])
	p.payload[2], p.payload[3] = 0, 0
	if from.Is6() {
		return p.sealed(2)
	}
	s := ^sum(p.payload)
	p.payload[2], p.payload[3] = byte(s>>8), byte(s)
	return p
}

// talk is a connection that the router has seen both ways, and a packet of each direction as its receiver sees it.
type talk struct {
	there, back packet
}

func (l *lab) talk(f flow, port uint16) talk {
	l.Helper()
	c := talk{there: udpPacket(f, port, "there"), back: udpPacket(flow{Flow: policy.Flow{Source: f.Destination, Destination: f.Source, Port: port}}, f.Port, "back")}
	for _, p := range []struct {
		from, to end
		packet
	}{{f.from, f.to, c.there}, {f.to, f.from, c.back}} {
		word := newWord()
		from := l.place(p.from)
		p.payload = append(p.payload[:8:8], word...)
		p.payload[4], p.payload[5], p.payload[6], p.payload[7] = 0, byte(len(p.payload)), 0, 0
		if !l.seen(p.to, word, late, func() { l.inject(from, l.toRouter(from, p.packet.sealed(6))) }) {
			l.Fatalf("%s does not pass", f)
		}
	}
	return c
}

// TestErrorsComeFromEndsOfTheirConnection: an error that quotes a packet of a connection passes if its sender is an end of
// it, or a router that can be on the way. Others would send their payload past every policy.
func TestErrorsComeFromEndsOfTheirConnection(t *testing.T) {
	families(t, func(t *testing.T, family int) {
		l := newLab(t)
		subject, other, third, remote := l.pods[0], l.pods[1], l.pods[2], l.remotes[0]
		l.under(isolates("pod0", policy.Ingress, only("remote0")), isolates("pod0", policy.Egress, only("remote0")))
		own := l.talk(l.between(subject.end, remote, family, identity.UDP, 80), 1234)
		free := l.talk(l.between(other.end, l.remotes[1], family, identity.UDP, 80), 1235)
		unknown := own
		unknown.there = udpPacket(l.between(subject.end, remote, family, identity.UDP, 81), 99, "")
		a := func(e end) netip.Addr { return e.addresses[family] }
		for name, c := range map[string]struct {
			from, to end
			source   netip.Addr
			quoted   packet
			want     expected
		}{
			"a pod to an isolated pod":               {other.end, subject.end, a(other.end), own.there, false},
			"an isolated pod to a pod":               {subject.end, other.end, a(subject.end), free.there, false},
			"a pod as if it were on the way":         {third.end, l.remotes[1], a(third.end), free.back, false},
			"a pod of a connection of nobody":        {third.end, subject.end, a(third.end), unknown.there, false},
			"a pod to one of no policy, of nobody's": {third.end, other.end, a(third.end), udpPacket(l.between(other.end, remote, family, identity.UDP, 82), 98, ""), false},
			"a stranger of what is in the mesh":      {l.outside.end, subject.end, a(l.outside.end), own.there, false},
			"the server":                             {remote, subject.end, a(remote), own.there, true},
			"the client":                             {subject.end, remote, a(subject.end), own.back, true},
			"the server's node":                      {l.mesh.end, subject.end, a(l.mesh.end), own.there, true},
		} {
			word := newWord()
			from := l.place(c.from)
			frame := l.toRouter(from, errorPacket(c.source, a(c.to), c.quoted, word))
			if got := l.seen(c.to, word, c.want.patience(), func() { l.inject(from, frame) }); got != bool(c.want) {
				t.Errorf("%s: passes %v, want %v", name, got, c.want)
			}
		}
	})
}

// TestErrorsOfRoutersOutside: a connection that left under the node's address hears of routers on its way, and so does a
// client of a node port of a pod's closed port.
func TestErrorsOfRoutersOutside(t *testing.T) {
	families(t, func(t *testing.T, family int) {
		l := newLab(t)
		l.openNodePorts()
		everybody := policy.Rule{AllPeers: true, AllPorts: true}
		l.under(isolates("pod0", policy.Ingress, everybody), isolates("pod0", policy.Egress, everybody))
		pod := l.pods[0]
		word := newWord()
		f := l.between(pod.end, l.outside.end, family, identity.UDP, 9)
		left := l.frame(l.outside.end, word, late, func() { l.inject(pod, l.toRouter(pod, udpPacket(f, 1234, word))) })
		if left == nil {
			t.Fatal("nothing leaves")
		}
		port := binary.BigEndian.Uint16(left[14+[]int{20, 40}[family]:]) // that masquerading gave it
		seen := f
		seen.Source = ownNode[family]
		router := outsiders[2+family]
		word = newWord()
		frame := l.toRouter(l.outside, errorPacket(router, ownNode[family], udpPacket(seen, port, word[:0]), word))
		if !l.seen(pod.end, word, late, func() { l.inject(l.outside, frame) }) {
			t.Error("a router's error does not arrive")
		}
		in := l.between(l.outside.end, pod.end, family, identity.UDP, 80)
		in.by = l.nodePort(pod.addresses[family], 80)
		var conn net.Conn
		var err error
		inside(t, in.from.ns, func() { conn, err = dialFlow(in, late) })
		must(t, "dial", err)
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(late))
		_, err = conn.Write([]byte("anybody?"))
		must(t, "write", err)
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("no error from the closed port behind a node port: %v", err)
		}
	})
}

// TestPodsSayNothingOfTheirNodesConnections: a pod that tells its node that packets to another must be small would narrow
// the tunnel of everybody.
func TestPodsSayNothingOfTheirNodesConnections(t *testing.T) {
	families(t, func(t *testing.T, family int) {
		l := newLab(t)
		l.under()
		pod := l.pods[0]
		f := l.between(l.router.end, l.outside.end, family, identity.UDP, 51820)
		f.Source = ownNode[family]
		word := newWord()
		said := udpPacket(f, 51820, word)
		if !l.seen(l.outside.end, word, late, func() { l.sendRaw(f, said.payload) }) {
			t.Fatal("the node does not reach outside")
		}
		unknown := f
		unknown.Port = 51821
		own := flow{from: l.router.end, to: pod.end, Flow: policy.Flow{Source: ownMesh[family], Destination: pod.addresses[family], Protocol: identity.UDP, Port: 9}}
		word = newWord()
		asked := udpPacket(own, 1234, word)
		if !l.seen(pod.end, word, late, func() { l.sendRaw(own, asked.payload) }) {
			t.Fatal("the node does not reach its pod")
		}
		protocol := []identity.Protocol{icmp, icmp6}[family]
		for name, c := range map[string]struct {
			quoted packet
			to     netip.Addr
			want   expected
		}{
			"of its tunnel":                 {said, ownNode[family], false},
			"of a connection that is none":  {udpPacket(unknown, 51821, ""), ownNode[family], false},
			"of its connection to this pod": {asked, ownMesh[family], true},
		} {
			word := newWord()
			frame := l.toRouter(pod, errorPacket(pod.addresses[family], c.to, c.quoted, word))
			to := flow{from: pod.end, to: l.router.end, Flow: policy.Flow{Source: pod.addresses[family], Destination: c.to, Protocol: protocol}}
			if got := l.delivered(to, word, c.want.patience(), func() { l.inject(pod, frame) }); got != bool(c.want) {
				t.Errorf("an error %s: arrives %v, want %v", name, got, c.want)
			}
		}
	})
}
