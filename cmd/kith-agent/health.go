package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// loopback is where the kubelet asks for the agent's health: nobody but this node's own processes reaches it.
var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// answerProbes answers the kubelet's probes. Running a command in the container instead would need no port, but starting
// one takes a node more processor time than all that the agent does at rest.
func (a *agent) answerProbes(ctx context.Context) error {
	at := netip.AddrPortFrom(loopback, a.cfg.Health.Port)
	listener, err := persist(ctx, a.log, "port for the kubelet's probes, health.port", func() (net.Listener, error) {
		return net.Listen("tcp", at.String())
	})
	if err != nil {
		return ignoreEnd(ctx, err)
	}
	srv := &http.Server{
		Handler:           probes(a.waitsFor),
		ReadHeaderTimeout: 5 * time.Second,
		ErrorLog:          slog.NewLogLogger(a.log.Handler(), slog.LevelWarn),
	}
	defer context.AfterFunc(ctx, func() { _ = srv.Close() })()
	if err := srv.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", at, err)
	}
	return nil
}

// probes: ready is a node that enforces every policy it knows and can start pods, and 503 lists what it waits for. Alive
// is an agent that can say so, ready or not; one whose locks are stuck cannot.
func probes(waitsFor func() []string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if reasons := waitsFor(); len(reasons) > 0 {
			http.Error(w, strings.Join(reasons, "\n"), http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "ready\n")
	})
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		waitsFor()
		_, _ = io.WriteString(w, "alive\n")
	})
	return mux
}
