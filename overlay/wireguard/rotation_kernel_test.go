//go:build kernel

package wireguard_test

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/kithnet/kith/overlay"
	"github.com/kithnet/kith/overlay/preshared"
	"github.com/kithnet/kith/overlay/rotation"
	"github.com/kithnet/kith/overlay/wireguard"
)

const (
	rotations        = 20
	rotationPatience = 4 * time.Minute
)

// packetsASecond of each stream. The kernel's WireGuard runs in an emulated machine, which carries 2,000 on a good day
// only: there the test is of behaviour, not of speed.
func packetsASecond(mode wireguard.Mode) float64 {
	if mode == wireguard.Kernel {
		return 500
	}
	return 2000
}

// window is how many packets of a stream may be under way. A device's queue and a socket hold as many when nobody gets
// processor time; a stream that was held up itself and then caught up would overrun them.
func window(mode wireguard.Mode) uint64 {
	if mode == wireguard.Kernel {
		return 256
	}
	return 1500
}

// turner is what an agent does with the lanes of a node. It hears the claims and messages of the others at once.
type turner struct {
	*node
	rotation   *rotation.Rotation
	agreements *preshared.Agreements
	signing    ed25519.PrivateKey
	inbox      [][]byte
	due        bool
}

func newTurner(n *node) *turner {
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		n.lab.tb.Fatal(err)
	}
	sign := func(message []byte) overlay.Signature { return overlay.Signature(ed25519.Sign(private, message)) }
	return &turner{
		node: n, rotation: rotation.New(200 * time.Millisecond), signing: private,
		agreements: preshared.New(preshared.Self{Name: n.api.Name, UID: n.api.Name, Sign: sign, Willing: true}, nil),
	}
}

// turn takes one step, and applies what it leads to.
func (t *turner) turn(all []*turner) {
	tb := t.lab.tb
	tb.Helper()
	have, err := t.dev.Read(context.Background())
	if err != nil {
		tb.Fatalf("%s: read: %v", t.api.Name, err)
	}
	shook := map[overlay.Key]time.Time{}
	peers, err := t.dev.Peers(context.Background())
	if err != nil {
		tb.Fatalf("%s: read peers: %v", t.api.Name, err)
	}
	for _, p := range peers {
		shook[p.Key] = p.LastHandshake
	}
	keys, generation := t.keys.Public()
	in := rotation.Input{Now: time.Now(), Generation: generation, Due: t.due}
	secrets := map[string][overlay.Lanes]overlay.Preshared{}
	for _, other := range all {
		if other == t {
			continue
		}
		p, secret := t.look(other, keys, have, shook)
		in.Peers = append(in.Peers, p)
		secrets[other.api.Name] = secret
	}
	d := t.rotation.Decide(in)
	if d.Action == rotation.Renew {
		t.due = false
		if err := t.keys.Renew(); err != nil {
			tb.Fatal(err)
		}
	}
	t.publish()
	_, t.claim.Generation = t.keys.Public()
	t.claim.Settled = d.Settled
	for name, lane := range d.Lanes {
		t.paths[name] = overlay.Path{Lane: lane, Preshared: secrets[name]}
	}
	plan := overlay.Diff(have, t.computed())
	if err := t.dev.Apply(context.Background(), plan); err != nil {
		tb.Errorf("%s: apply: %v", t.api.Name, err)
	}
}

// look says how another node stands, and agrees with it on what lacks.
func (t *turner) look(o *turner, keys [overlay.Lanes]overlay.Key, have overlay.Mesh, shook map[overlay.Key]time.Time) (rotation.Peer, [overlay.Lanes]overlay.Preshared) {
	p := rotation.Peer{Name: o.api.Name, Alive: true, Generation: o.claim.Generation, Settled: o.claim.Settled, Lane: -1}
	for _, r := range have.Routes {
		if r.CIDR == o.api.PodCIDRs[0] {
			p.Lane = r.Lane
		}
	}
	party := preshared.Other{
		Name: o.api.Name, UID: o.api.Name, Signing: overlay.SigningKey(o.signing.Public().(ed25519.PublicKey)), Own: keys, Keys: o.claim.Keys,
	}
	if p.Lane >= 0 {
		party.InUse[p.Lane] = !shook[o.claim.Keys[p.Lane]].IsZero()
	}
	t.agree(o, party)
	var secrets [overlay.Lanes]overlay.Preshared
	for lane := range keys {
		secrets[lane] = t.agreements.Key(party, lane)
		p.Agreed[lane] = t.agreements.Settled(party, lane)
		for _, peer := range have.Lanes[lane].Peers {
			same := peer.Key == o.claim.Keys[lane] && peer.Preshared == secrets[lane] && have.Lanes[lane].Key == keys[lane]
			if same && !t.agreements.Asked(party, lane, time.Now()) {
				p.Handshake[lane] = shook[peer.Key]
			}
		}
	}
	return p, secrets
}

func (t *turner) agree(o *turner, party preshared.Other) {
	t.agreements.Retain([]preshared.Other{party})
	var left [][]byte
	for _, message := range t.inbox {
		if from, _ := preshared.Sender(message); from != o.api.Name {
			left = append(left, message)
		} else if reply, _ := t.agreements.Hear(message, party, time.Now()); reply != nil {
			o.inbox = append(o.inbox, reply)
		}
	}
	t.inbox = left
	_, own := t.keys.Public()
	for lane := range party.Keys {
		ends := own != o.claim.Generation && lane != int(min(own, o.claim.Generation)%overlay.Lanes)
		if t.api.Name < o.api.Name && !ends && !party.InUse[lane] && !t.agreements.Settled(party, lane) {
			if message, err := t.agreements.Ask(party, lane, time.Now()); err == nil && message != nil {
				o.inbox = append(o.inbox, message)
			}
		}
	}
}

// settle lets all turn until each sends on the lane of a generation, with a preshared key.
func settleIn(tb testing.TB, all []*turner, generation uint32) {
	tb.Helper()
	for end := time.Now().Add(rotationPatience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		done := true
		for _, t := range all {
			t.turn(all)
			done = done && t.claim.Settled >= generation
			for _, path := range t.paths {
				done = done && !path.Preshared[generation%overlay.Lanes].IsZero()
			}
		}
		if done {
			return
		}
	}
	for _, t := range all {
		tb.Logf("%s: generation %d, settled %d, %v", t.api.Name, t.claim.Generation, t.claim.Settled, t.paths)
	}
	tb.Fatalf("generation %d does not end", generation)
}

// stream sends numbered packets to an address and counts what arrives.
type stream struct {
	sent, received atomic.Uint64
	quit, done     chan struct{}
}

func newStream(from, to *node) *stream {
	tb := from.lab.tb
	tb.Helper()
	s := &stream{quit: make(chan struct{}), done: make(chan struct{})}
	var in, out *net.UDPConn
	var err error
	to.do(func() {
		in, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(podAddr(to.api.PodCIDRs[0]), 0)))
	})
	if err == nil {
		// A machine that is busy elsewhere loses nothing here.
		err = in.SetReadBuffer(16 << 20)
		raw, _ := in.SyscallConn()
		raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20) })
	}
	if err == nil {
		from.do(func() { out, err = net.DialUDP("udp", nil, in.LocalAddr().(*net.UDPAddr)) })
	}
	if err != nil {
		tb.Fatalf("open stream: %v", err)
	}
	go func() {
		buf := make([]byte, 256)
		for {
			if _, err := in.Read(buf); err != nil {
				return
			}
			s.received.Add(1)
		}
	}()
	go s.send(out, from.lab.mode)
	tb.Cleanup(func() { in.Close(); out.Close() })
	return s
}

// underWay is how many packets have been sent and have not arrived.
func (s *stream) underWay() uint64 {
	received := s.received.Load() // first: what is sent meanwhile may arrive, too
	return s.sent.Load() - received
}

// send keeps the pace, and catches up with it in small steps, as far as the window lets it.
func (s *stream) send(out *net.UDPConn, mode wireguard.Mode) {
	defer close(s.done)
	packet := make([]byte, 128)
	start := time.Now()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-s.quit:
			return
		case <-tick.C:
		}
		behind := uint64(time.Since(start).Seconds()*packetsASecond(mode)) - s.sent.Load()
		for range min(behind, 32, window(mode)-s.underWay()) {
			binary.BigEndian.PutUint64(packet, s.sent.Add(1))
			if _, err := out.Write(packet); err != nil {
				return
			}
		}
	}
}

// stop waits for what is under way.
func (s *stream) stop() (sent, lost uint64) {
	close(s.quit)
	<-s.done
	for end := time.Now().Add(10 * time.Second); s.received.Load() < s.sent.Load() && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
	}
	return s.sent.Load(), s.sent.Load() - s.received.Load()
}

// TestRotationLosesNothing: a steady stream each way between each two nodes, over 20 changes of all keys with preshared
// keys agreed on each time.
func TestRotationLosesNothing(t *testing.T) {
	l := newLab(t, 1500)
	var all []*turner
	for range 2 {
		n := l.addNode(overlay.IPv4)
		n.await()
		all = append(all, newTurner(n))
	}
	clear := l.countClear()
	settleIn(t, all, overlay.FirstGeneration)
	var streams []*stream
	for i, a := range all {
		for j, b := range all {
			if i != j {
				streams = append(streams, newStream(a.node, b.node))
			}
		}
	}
	start := time.Now()
	for g := uint32(overlay.FirstGeneration + 1); g <= overlay.FirstGeneration+rotations; g++ {
		before := all[0].public()
		all[int(g)%len(all)].due = true
		settleIn(t, all, g)
		if after := all[0].public(); after[g%overlay.Lanes] == before[g%overlay.Lanes] {
			t.Fatalf("generation %d has the old key", g)
		}
	}
	var sent, lost uint64
	for _, s := range streams {
		n, gone := s.stop()
		sent, lost = sent+n, lost+gone
	}
	t.Logf("%s: %d rotations in %s: %d packets, %d lost, %d in clear", l.mode, rotations, time.Since(start).Round(time.Millisecond), sent, lost, clear.Load())
	if lost > 0 || clear.Load() > 0 || sent == 0 {
		t.Errorf("%d packets: %d lost, %d in clear", sent, lost, clear.Load())
	}
	for end := time.Now().Add(patience); clear.Load() == 0; {
		if time.Now().After(end) {
			t.Fatal("this test does not see a packet in clear")
		}
		all[0].isHeard(all[1].node, all[1].api.InternalIPs[0], podAddr(all[0].api.PodCIDRs[0]), time.Second)
	}
}

// countClear counts packets on the underlay that name a pod's address.
func (l *lab) countClear() *atomic.Uint64 {
	l.tb.Helper()
	const ethernet, network = 14, 0x0af4 // 10.244/16
	filter, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: ethernet - 2, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.ETH_P_IP, SkipTrue: 5},
		bpf.LoadAbsolute{Off: ethernet + 12, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: network, SkipTrue: 2},
		bpf.LoadAbsolute{Off: ethernet + 16, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: network, SkipTrue: 1},
		bpf.RetConstant{Val: 64},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		l.tb.Fatal(err)
	}
	program := make([]unix.SockFilter, len(filter))
	for i, f := range filter {
		program[i] = unix.SockFilter{Code: f.Op, Jt: f.Jt, Jf: f.Jf, K: f.K}
	}
	var fd int
	l.bridge.do(func() {
		// It hears nothing until it is bound, when the filter holds.
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	})
	if err == nil {
		err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL)})
	}
	if err != nil {
		l.tb.Fatalf("listen on the underlay: %v", err)
	}
	var count atomic.Uint64
	go func() {
		buf := make([]byte, 64)
		for {
			if _, err := unix.Read(fd, buf); err != nil {
				return
			}
			count.Add(1)
		}
	}()
	l.tb.Cleanup(func() { unix.Shutdown(fd, unix.SHUT_RDWR); unix.Close(fd) })
	return &count
}

func htons(n uint16) uint16 { return n<<8 | n>>8 }
