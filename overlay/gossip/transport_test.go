package gossip

import (
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// network stands between members: it can part them and lose packets.
type network struct {
	mu   sync.Mutex
	side map[string]int
	loss float64
}

// part puts addresses on a side; those of different sides do not hear each other.
func (n *network) part(side int, addresses ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, a := range addresses {
		n.side[a] = side
	}
}

func (n *network) lose(share float64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.loss = share
}

func (n *network) parted(from, to string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.side[from] != n.side[to]
}

func (n *network) loses() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return rand.Float64() < n.loss
}

// transport is memberlist's own over real sockets, with the network in between.
type transport struct {
	*memberlist.NetTransport
	network *network
	own     string
}

func newTransport(t *testing.T, n *network, own string) *transport {
	t.Helper()
	inner, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{
		BindAddrs: []string{own}, BindPort: testPort, Logger: log.New(io.Discard, "", 0),
	})
	if err != nil {
		t.Fatal(err)
	}
	return &transport{NetTransport: inner, network: n, own: own}
}

func (t *transport) WriteTo(b []byte, addr string) (time.Time, error) {
	return t.WriteToAddress(b, memberlist.Address{Addr: addr})
}

func (t *transport) WriteToAddress(b []byte, addr memberlist.Address) (time.Time, error) {
	host, _, err := net.SplitHostPort(addr.Addr)
	if err != nil {
		return time.Time{}, err
	}
	if t.network.parted(t.own, host) || t.network.loses() {
		return time.Now(), nil
	}
	return t.NetTransport.WriteToAddress(b, addr)
}

func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

func (t *transport) DialAddressTimeout(addr memberlist.Address, timeout time.Duration) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr.Addr)
	if err != nil {
		return nil, err
	}
	if t.network.parted(t.own, host) {
		return nil, fmt.Errorf("dial %s: parted", addr.Addr)
	}
	return t.NetTransport.DialAddressTimeout(addr, timeout)
}
