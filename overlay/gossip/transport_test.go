package gossip

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
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

// lossy is the transport over real sockets, with the network in between.
type lossy struct {
	memberlist.NodeAwareTransport
	network *network
	own     string
}

func (t *lossy) WriteTo(b []byte, addr string) (time.Time, error) {
	return t.WriteToAddress(b, memberlist.Address{Addr: addr})
}

func (t *lossy) WriteToAddress(b []byte, addr memberlist.Address) (time.Time, error) {
	host, _, err := net.SplitHostPort(addr.Addr)
	if err != nil {
		return time.Time{}, err
	}
	if t.network.parted(t.own, host) || t.network.loses() {
		return time.Now(), nil
	}
	return t.NodeAwareTransport.WriteToAddress(b, addr)
}

func (t *lossy) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

func (t *lossy) DialAddressTimeout(addr memberlist.Address, timeout time.Duration) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr.Addr)
	if err != nil {
		return nil, err
	}
	if t.network.parted(t.own, host) {
		return nil, fmt.Errorf("dial %s: parted", addr.Addr)
	}
	return t.NodeAwareTransport.DialAddressTimeout(addr, timeout)
}
