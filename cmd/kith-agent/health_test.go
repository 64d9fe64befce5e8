package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/kithnet/kith/cmd/kith-agent/config"
)

func TestProbes(t *testing.T) {
	tests := []struct {
		path  string
		waits []string
		code  int
		body  string
	}{
		{"/readyz", nil, 200, "ready\n"},
		{"/readyz", []string{"mesh is not up", "policy is not in the kernel"}, 503, "mesh is not up\npolicy is not in the kernel\n"},
		{"/livez", nil, 200, "alive\n"},
		{"/livez", []string{"mesh is not up"}, 200, "alive\n"},
		{"/v1/status", nil, 404, "404 page not found\n"},
	}
	for _, tt := range tests {
		w := httptest.NewRecorder()
		probes(func() []string { return tt.waits }).ServeHTTP(w, httptest.NewRequest(http.MethodGet, tt.path, nil))
		if w.Code != tt.code || w.Body.String() != tt.body {
			t.Errorf("%s of a node that waits for %q: %d %q, want %d %q", tt.path, tt.waits, w.Code, w.Body, tt.code, tt.body)
		}
	}
}

// TestStuckAgentIsNotAlive holds that an agent that can decide nothing any more fails its liveness probe.
func TestStuckAgentIsNotAlive(t *testing.T) {
	stuck := make(chan struct{})
	s := httptest.NewServer(probes(func() []string { <-stuck; return nil }))
	defer s.Close()
	defer close(stuck)
	client := http.Client{Timeout: 100 * time.Millisecond}
	if resp, err := client.Get(s.URL + "/livez"); err == nil {
		_ = resp.Body.Close()
		t.Errorf("an agent that is stuck answers %s", resp.Status)
	}
}

// TestProbesWaitForTheirPort holds that a port in use ends no agent: it is taken once it is free, and given back.
func TestProbesWaitForTheirPort(t *testing.T) {
	taken, err := net.Listen("tcp", netip.AddrPortFrom(loopback, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort(taken.Addr().String())
	a := &agent{log: slog.New(slog.DiscardHandler), cfg: config.Config{Health: config.Health{Port: at.Port()}}, enforcer: &enforcer{}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- a.answerProbes(ctx) }()
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}
	url := fmt.Sprintf("http://%s/readyz", at)
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		resp, err := http.Get(url)
		if err == nil {
			body, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusServiceUnavailable || len(body) == 0 {
				t.Errorf("an agent that has just begun answers %s %q", resp.Status, body)
			}
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", at.String()); err == nil {
		t.Error("the port is still served after the agent has ended")
	}
}
