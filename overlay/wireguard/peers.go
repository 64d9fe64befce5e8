package wireguard

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/kithnet/kith/overlay"
)

// peerConfigs translates a step on peers; it reports whether the step is one.
func peerConfigs(step overlay.Step) ([]wgtypes.PeerConfig, bool, error) {
	switch s := step.(type) {
	case overlay.SetPeer:
		config := wgtypes.PeerConfig{
			PublicKey:                   wgtypes.Key(s.Key),
			PersistentKeepaliveInterval: s.Keepalive,
			AllowedIPs:                  ipNets(s.Allow),
		}
		if s.New {
			preshared := wgtypes.Key(s.Preshared)
			config.PresharedKey = &preshared
		}
		if s.Endpoint.IsValid() {
			config.Endpoint = net.UDPAddrFromAddrPort(s.Endpoint)
		}
		return []wgtypes.PeerConfig{config}, true, nil
	case overlay.RemovePeer:
		return []wgtypes.PeerConfig{{PublicKey: wgtypes.Key(s.Key), Remove: true}}, true, nil
	case overlay.DropAllowed:
		configs, err := drop(s.CIDRs)
		return configs, true, err
	}
	return nil, false, nil
}

// drop takes allowed IPs from their peer without replacing the peer's whole list,
// which would open a window: a peer of no one claims them, and goes with them.
func drop(cidrs []netip.Prefix) ([]wgtypes.PeerConfig, error) {
	nobody, err := NewPrivateKey()
	if err != nil {
		return nil, err
	}
	key := wgtypes.Key(nobody.Public())
	return []wgtypes.PeerConfig{
		{PublicKey: key, AllowedIPs: ipNets(cidrs)},
		{PublicKey: key, Remove: true},
	}, nil
}

// setPeers configures all peers at once, or one by one if something in them is
// refused, so that one bad peer does not keep the others out.
func (l *lane) setPeers(ctx context.Context, peers []wgtypes.PeerConfig) error {
	err := l.configure(ctx, wgtypes.Config{Peers: peers})
	if err == nil {
		l.remember(peers)
		return nil
	}
	if unserved(err) || ctx.Err() != nil {
		return fmt.Errorf("set %d peers: %w", len(peers), err)
	}
	var failed error
	for i, p := range peers {
		if err := l.configure(ctx, wgtypes.Config{Peers: peers[i : i+1]}); err != nil {
			failed = errors.Join(failed, fmt.Errorf("set peer %s: %w", p.PublicKey, err))
			continue
		}
		l.remember(peers[i : i+1])
	}
	return failed
}

func (l *lane) remember(peers []wgtypes.PeerConfig) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range peers {
		key := overlay.Key(p.PublicKey)
		switch {
		case p.Remove:
			delete(l.endpoints, key)
		case p.Endpoint != nil:
			l.endpoints[key] = addrPort(p.Endpoint)
		}
	}
}

// PeerStatus is what a person wants to know of a peer. The zero LastHandshake
// means none yet.
type PeerStatus struct {
	Lane          int
	Key           overlay.Key
	Endpoint      netip.AddrPort
	AllowedIPs    []netip.Prefix
	LastHandshake time.Time
	ReceivedBytes int64
	SentBytes     int64
}

// Peers returns the state of all peers of all lanes, by key.
func (d *Device) Peers(ctx context.Context) ([]PeerStatus, error) {
	var out []PeerStatus
	for i, l := range d.lanes {
		peers, err := l.peers(ctx)
		if err != nil {
			return nil, err
		}
		for _, p := range peers {
			status := PeerStatus{
				Lane:          i,
				Key:           overlay.Key(p.PublicKey),
				AllowedIPs:    prefixes(p.AllowedIPs),
				LastHandshake: handshake(p.LastHandshakeTime),
				ReceivedBytes: p.ReceiveBytes,
				SentBytes:     p.TransmitBytes,
			}
			if p.Endpoint != nil {
				status.Endpoint = addrPort(p.Endpoint)
			}
			out = append(out, status)
		}
	}
	slices.SortFunc(out, func(a, b PeerStatus) int { return a.Key.Compare(b.Key) })
	return out, nil
}

func (l *lane) peers(ctx context.Context) ([]wgtypes.Peer, error) {
	dev, err := l.control(ctx)
	if unserved(err) || errors.Is(err, fs.ErrNotExist) {
		return nil, ErrAbsent
	}
	if err != nil {
		return nil, fmt.Errorf("read peers of %s: %w", l.name, err)
	}
	return dev.Peers, nil
}

// handshake maps wireguard-go's "never", the epoch, to the zero time.
func handshake(t time.Time) time.Time {
	if t.Unix() <= 0 {
		return time.Time{}
	}
	return t
}
