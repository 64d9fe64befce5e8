package server

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/kithnet/kith/cni"
)

func read(body io.Reader, command cni.Command) (cni.Request, error) {
	var call cni.Call
	if err := json.NewDecoder(body).Decode(&call); err != nil {
		return cni.Request{Command: command}, types.NewError(types.ErrDecodingFailure, "decode call", err.Error())
	}
	if call.Command != command {
		return cni.Request{Command: command}, types.NewError(types.ErrInvalidEnvironmentVariables,
			"CNI_COMMAND: invalid", fmt.Sprintf("%q sent as %s", call.Command, command))
	}
	req, err := call.Parse()
	req.Command = command
	return req, err
}

func (s *Server) add(ctx context.Context, r cni.Request) (any, error) {
	unlock, err := s.locks.container(ctx, r.ContainerID)
	if err != nil {
		return nil, err
	}
	defer unlock()
	// A DEL that was asked for before this ADD is about the attachment before this one.
	if s.Pending.Has(r.Key) {
		if err := cni.Del(ctx, s.Deps, r.Key); err != nil {
			return nil, fmt.Errorf("finish pending DEL: %w", err)
		}
		if err := s.Pending.Remove(r.Key); err != nil {
			return nil, err
		}
	}
	return cni.Add(ctx, s.Deps, r)
}

func (s *Server) del(ctx context.Context, r cni.Request) (any, error) {
	unlock, err := s.locks.container(ctx, r.ContainerID)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := cni.Del(ctx, s.Deps, r.Key); err != nil {
		return nil, err
	}
	return nil, s.Pending.Remove(r.Key)
}

func (s *Server) check(ctx context.Context, r cni.Request) (any, error) {
	unlock, err := s.locks.container(ctx, r.ContainerID)
	if err != nil {
		return nil, err
	}
	defer unlock()
	return nil, cni.Check(ctx, s.Deps, r)
}

func (s *Server) gc(ctx context.Context, r cni.Request) (any, error) {
	unlock, err := s.locks.all(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	return nil, cni.GC(ctx, s.Deps, r)
}

func (s *Server) status(ctx context.Context, _ cni.Request) (any, error) {
	return nil, cni.Status(ctx, s.Deps)
}
