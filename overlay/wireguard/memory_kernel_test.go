//go:build kernel

package wireguard_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun/tuntest"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/kithnet/kith/overlay"
	"github.com/kithnet/kith/overlay/wireguard"
)

const (
	crowd     = 100
	crowdLoad = 10 * time.Second
	// What wireguard-go's heap may have, and the rest of a process.
	mostMemory = 256<<20 + 64<<20
)

// TestMemoryOfWireGuardGo holds that the process has bounded memory while a hundred peers send at once as much as they
// can, large packets that are all answered; and prints how much.
func TestMemoryOfWireGuardGo(t *testing.T) {
	l := newLab(t, 1500)
	l.only(wireguard.Userspace)
	n := l.addNode(overlay.IPv4)
	n.reconcile()
	t.Logf("no peer: %s", memory(t, n))
	server, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	peers := make([]*crowdPeer, crowd)
	for i := range peers {
		peers[i] = l.newCrowdPeer(i+1, server.PublicKey(), n.api.InternalIPs[0])
	}
	n.acceptCrowd(server, peers)
	t.Logf("%d peers, idle: %s", crowd, memory(t, n))
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	var all sync.WaitGroup
	for _, p := range peers {
		all.Go(func() { p.send(ctx) })
		all.Go(func() { p.receive(ctx) })
	}
	answered, echoes := 0, int64(0)
	for end := time.Now().Add(crowdLoad); ctx.Err() == nil && (time.Now().Before(end) || answered < crowd/2); time.Sleep(50 * time.Millisecond) {
		answered, echoes = answers(peers)
	}
	cancel()
	all.Wait()
	after := memory(t, n)
	t.Logf("%d peers under load, %d of them answered %d times: %s", crowd, answered, echoes, after)
	if answered < crowd/2 {
		t.Errorf("only %d of %d peers had an answer", answered, crowd)
	}
	if after.most > mostMemory {
		t.Errorf("%d MiB, may be %d", after.most>>20, mostMemory>>20)
	}
}

// answers are how many peers had any, and how many all of them had.
func answers(peers []*crowdPeer) (answered int, echoes int64) {
	for _, p := range peers {
		n := p.echoes.Load()
		if echoes += n; n > 0 {
			answered++
		}
	}
	return answered, echoes
}

type residence struct{ now, most int }

func (r residence) String() string {
	return fmt.Sprintf("%d MiB, at most %d MiB", r.now>>20, r.most>>20)
}

func memory(t *testing.T, n *node) (r residence) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.process.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		field := strings.Fields(line)
		for name, into := range map[string]*int{"VmRSS:": &r.now, "VmHWM:": &r.most} {
			if field[0] == name {
				kib, _ := strconv.Atoi(field[1])
				*into = kib << 10
			}
		}
	}
	return r
}

// crowdPeer is a wireguard-go of the test's own process on the underlay.
type crowdPeer struct {
	key    wgtypes.Key
	addr   netip.Addr
	tun    *tuntest.ChannelTUN
	echoes atomic.Int64
}

func crowdAddr(number int) netip.Addr { return netip.AddrFrom4([4]byte{10, 9, 1, byte(number)}) }

func (l *lab) newCrowdPeer(number int, server wgtypes.Key, at netip.Addr) *crowdPeer {
	l.tb.Helper()
	key, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		l.tb.Fatal(err)
	}
	p := &crowdPeer{key: key, addr: crowdAddr(number), tun: tuntest.NewChannelTUN()}
	dev := device.NewDevice(p.tun.TUN(), conn.NewDefaultBind(), device.NewLogger(device.LogLevelSilent, ""))
	l.tb.Cleanup(dev.Close)
	l.bridge.do(func() {
		err = dev.IpcSet(fmt.Sprintf("private_key=%x\npublic_key=%x\nendpoint=%s\nallowed_ip=0.0.0.0/0\n", key[:], server[:], netip.AddrPortFrom(at, 51820)))
		if err == nil {
			err = dev.Up()
		}
	})
	if err != nil {
		l.tb.Fatal(err)
	}
	return p
}

// acceptCrowd makes the peers those of the node's first device.
func (n *node) acceptCrowd(key wgtypes.Key, crowd []*crowdPeer) {
	tb := n.lab.tb
	n.lab.bridge.do(func() { addAddr(tb, "underlay", netip.MustParsePrefix("172.31.0.254/24")) })
	port := 51820
	config := wgtypes.Config{PrivateKey: &key, ListenPort: &port, ReplacePeers: true}
	for _, p := range crowd {
		config.Peers = append(config.Peers, wgtypes.PeerConfig{
			PublicKey:  p.key.PublicKey(),
			AllowedIPs: []net.IPNet{{IP: p.addr.AsSlice(), Mask: net.CIDRMask(32, 32)}},
		})
	}
	n.do(func() {
		addAddr(tb, n.devices[0], netip.MustParsePrefix("10.9.0.1/16"))
		linkUp(tb, n.devices[0])
		c, err := wgctrl.New()
		if err != nil {
			tb.Error(err)
			return
		}
		defer c.Close()
		if err := c.ConfigureDevice(n.devices[0], config); err != nil {
			tb.Errorf("give %s its peers: %v", n.devices[0], err)
		}
	})
}

func (p *crowdPeer) send(ctx context.Context) {
	packet := echoRequest(p.addr, netip.MustParseAddr("10.9.0.1"))
	for {
		select {
		case p.tun.Outbound <- packet:
		case <-ctx.Done():
			return
		}
	}
}

func (p *crowdPeer) receive(ctx context.Context) {
	for {
		select {
		case <-p.tun.Inbound:
			p.echoes.Add(1)
		case <-ctx.Done():
			return
		}
	}
}

// echoRequest is an ICMP echo request as large as fits.
func echoRequest(from, to netip.Addr) []byte {
	const head, whole = 20, 1420
	b := make([]byte, whole)
	b[0], b[8], b[9] = 0x45, 64, 1
	binary.BigEndian.PutUint16(b[2:], whole)
	copy(b[12:], from.AsSlice())
	copy(b[16:], to.AsSlice())
	binary.BigEndian.PutUint16(b[10:], onesComplement(b[:head]))
	b[head] = 8
	binary.BigEndian.PutUint16(b[head+2:], onesComplement(b[head:]))
	return b
}

func onesComplement(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
