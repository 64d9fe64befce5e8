package main

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/kithnet/kith/cmd/kith/status"
)

func TestMatrix(t *testing.T) {
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	one, two := report("node-1"), report("node-2")
	one.Members = append(one.Members, status.Member{Node: "node-2", State: status.Alive}, status.Member{Node: "node-3", State: status.Alive}, status.Member{Node: "node-4", State: status.Dead})
	// A node may have more than one peer: the latest handshake counts.
	one.Peers = []status.Peer{{Node: "node-2", LastHandshake: now.Add(-40 * time.Second)}, {Node: "node-2"}, {Node: "node-3"}}
	one.Ways = []status.Way{{Node: "node-2", RoundTrip: 1234567, Loss: 0.05, MTU: 1440},
		{Node: "node-3", Loss: 1, MTU: 1296, SilentSince: now.Add(-35 * time.Second)}}
	two.Peers = []status.Peer{{Node: "node-1", LastHandshake: now}}
	many := report("node-1")
	for n := range maxPeerLines + 1 {
		name := fmt.Sprintf("other-%03d", n)
		many.Members = append(many.Members, status.Member{Node: name, State: status.Alive})
		many.Ways = append(many.Ways, status.Way{Node: name, RoundTrip: time.Millisecond, MTU: 1440})
	}
	many.Ways[7].Loss = 0.5
	for name, nodes := range map[string][]nodeStatus{
		"matrix":       {{Node: "node-1", Report: &one}, {Node: "node-2", Report: &two}, {Node: "node-3", Error: "no answer in 10s"}},
		"matrix-large": {{Node: "node-1", Report: &many}},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			printMatrix(&out, nodes, now)
			golden(t, "testdata/"+name+".txt", out.Bytes())
		})
	}
}
