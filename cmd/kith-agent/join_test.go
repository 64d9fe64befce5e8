package main

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/kithnet/kith/overlay"
	"github.com/kithnet/kith/overlay/gossip"
)

// believer takes every record for true.
type believer struct{}

func (believer) Hear(overlay.Heard) error { return nil }
func (believer) Conflict(string)          {}

// TestTakenPortIsWaitedFor: a port that another process has does not end the agent. Status names port, cause and fix, and
// gossip starts once the port is free.
func TestTakenPortIsWaitedFor(t *testing.T) {
	other, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort(other.LocalAddr().String())
	a := &agent{log: slog.New(slog.DiscardHandler), meshed: make(chan struct{}), enforcer: &enforcer{}}
	tries := 0
	ctx, end := context.WithCancel(t.Context())
	defer end()
	g, err := a.join(ctx, func() (*gossip.Gossip, error) {
		if tries++; tries == 2 {
			said := strings.Join(a.waitsFor(), "\n")
			for _, want := range []string{at.String(), "address already in use", "ss -lntup", "gossip.port"} {
				if !strings.Contains(said, want) {
					t.Errorf("status says %q, not %q", said, want)
				}
			}
			_ = other.Close()
		}
		g, err := gossip.Start(gossip.Config{
			Name: "one", Bind: at, Keys: [][]byte{make([]byte, 32)}, Record: []byte("record"), Judge: believer{}, Log: slog.New(slog.DiscardHandler),
		})
		if err != nil && tries > 1 {
			t.Errorf("start once the port is free: %v", err)
			end()
		}
		return g, err
	})
	if err != nil || tries != 2 {
		t.Fatalf("%d tries: %v", tries, err)
	}
	if said := strings.Join(a.waitsFor(), "\n"); strings.Contains(said, "gossip.port") {
		t.Errorf("status still says %q", said)
	}
	end()
	_ = g.Run(ctx) // closes the sockets
}
