// Package server serves the CNI operations to the plugin, over HTTP on a Unix socket.
//
// A request is POST /cni/<operation in lower case> with a cni.Call as JSON; the reply is the result
// (ADD) or nothing with status 200, or an error of the specification as JSON with another status.
//
// Invariants: operations of one container never overlap, and none runs while TryHold holds it; GC runs
// alone; an operation whose client has gone, or that takes longer than the limit, is cancelled (and an
// ADD undone); DELs that the plugin left while the agent was away are finished before anything is
// served, and looked for from time to time after. The socket is accessible to root only.
//
// Out of scope: what the operations do, and whether the agent is ready for them.
package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/kithnet/kith/cni"
)

const (
	maxBody = 4 << 20
	// DefaultLimit is how long an operation may take: an ADD waits for the pod's policy.
	DefaultLimit  = 60 * time.Second
	drainInterval = 30 * time.Second
	shutdownLimit = 5 * time.Second
)

// Pending is the DELs that the plugin left while the agent was away.
type Pending interface {
	List() ([]cni.Key, error)
	Has(cni.Key) bool
	Remove(cni.Key) error
}

// Options is what a Server needs.
type Options struct {
	Deps    cni.Deps
	Pending Pending
	Log     *slog.Logger
	// Limit bounds each operation; DefaultLimit if zero.
	Limit time.Duration
	// Ended, if there is one, is called after each operation on attachments.
	Ended func()
}

// Server serves the operations.
type Server struct {
	Options
	mux   *http.ServeMux
	locks *locks
}

// New returns a server. It does nothing before Serve.
func New(o Options) *Server {
	if o.Limit == 0 {
		o.Limit = DefaultLimit
	}
	if o.Ended == nil {
		o.Ended = func() {}
	}
	s := &Server{Options: o, mux: http.NewServeMux(), locks: newLocks(o.Ended)}
	s.operation("add", cni.CommandAdd, s.add)
	s.operation("del", cni.CommandDel, s.del)
	s.operation("check", cni.CommandCheck, s.check)
	s.operation("gc", cni.CommandGC, s.gc)
	s.operation("status", cni.CommandStatus, s.status)
	return s
}

// Handle mounts another handler on the same socket. It must be called before Serve.
func (s *Server) Handle(pattern string, h http.Handler) { s.mux.Handle(pattern, h) }

// TryHold keeps operations on an attachment's container waiting until release is called. It is not free while one runs, or a
// DEL is pending; Ended is called when that is over.
func (s *Server) TryHold(k cni.Key) (release func(), free bool) {
	release, free = s.locks.try(k.ContainerID)
	if free && s.Pending.Has(k) {
		release()
		return nil, false
	}
	return release, free
}

// Listen opens the socket, in a folder that only root may enter. A socket that nobody serves any more
// is replaced; one that somebody does is an error.
func Listen(path string) (net.Listener, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make socket folder: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, fmt.Errorf("close socket folder to others: %w", err)
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: another agent serves it", path), conn.Close())
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("remove dead socket: %w", err)
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("close socket to others: %w", err), l.Close())
	}
	return l, nil
}

// Serve finishes pending DELs and then serves until ctx is done. It closes the listener.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	// The listener is open already: a plugin that found it closed has left its DEL by now, and one
	// that finds it open waits in the queue until the pending ones are done.
	s.drain(ctx)
	srv := &http.Server{
		Handler:           s.mux,
		ReadHeaderTimeout: 5 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          slog.NewLogLogger(s.Log.Handler(), slog.LevelError),
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	tick := time.NewTicker(drainInterval)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return fmt.Errorf("serve %s: %w", l.Addr(), err)
		case <-tick.C:
			s.drain(ctx)
		case <-ctx.Done():
			return shutDown(srv)
		}
	}
}

// shutDown lets running operations, whose contexts are done, undo what they began.
func shutDown(srv *http.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownLimit)
	defer cancel()
	if err := srv.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("shut down: %w", err), srv.Close())
	}
	return nil
}

func (s *Server) drain(ctx context.Context) {
	keys, err := s.Pending.List()
	if err != nil {
		s.Log.Error("pending DELs", "error", err)
	}
	for _, k := range keys {
		err := s.finish(ctx, k)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			s.Log.Error("pending DEL failed; it will be tried again", "attachment", k.String(), "error", err)
			continue
		}
		s.Log.Info("pending DEL finished", "attachment", k.String())
	}
}

func (s *Server) finish(ctx context.Context, k cni.Key) error {
	ctx, cancel := context.WithTimeout(ctx, s.Limit)
	defer cancel()
	unlock, err := s.locks.container(ctx, k.ContainerID)
	if err != nil {
		return err
	}
	defer unlock()
	// An ADD or DEL may have come in between, and made it void.
	if !s.Pending.Has(k) {
		return nil
	}
	if err := cni.Del(ctx, s.Deps, k); err != nil {
		return err
	}
	return s.Pending.Remove(k)
}

func (s *Server) operation(name string, command cni.Command, do func(context.Context, cni.Request) (any, error)) {
	s.mux.HandleFunc("POST /cni/"+name, func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		ctx, cancel := context.WithTimeout(r.Context(), s.Limit)
		defer cancel()
		req, err := read(http.MaxBytesReader(w, r.Body, maxBody), command)
		var result any
		if err == nil {
			result, err = do(ctx, req)
		}
		s.report(req, time.Since(start), err)
		reply(w, result, cni.ToError(err))
	})
}

func (s *Server) report(r cni.Request, took time.Duration, err error) {
	log := s.Log.With("command", r.Command, "attachment", r.Key.String(),
		"pod", r.Pod.Namespace+"/"+r.Pod.Name, "took", took)
	switch {
	case err == nil && r.Command == cni.CommandAdd:
		log.Info("pod attached")
	case err == nil && r.Command == cni.CommandDel:
		log.Info("pod detached")
	case err == nil:
		log.Debug("cni operation done")
	case r.Command == cni.CommandStatus:
		// Runtimes ask every few seconds; the agent itself says once why it is not ready.
		log.Debug("cni operation failed", "error", err)
	default:
		log.Error("cni operation failed", "error", err)
	}
}

func reply(w http.ResponseWriter, result any, err *types.Error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		w.WriteHeader(http.StatusUnprocessableEntity)
		result = err
	}
	// The client may have gone; the operation's outcome is recorded in any case.
	_ = json.NewEncoder(w).Encode(result)
}
