// Package client is the plugin's side of the agent's socket: it sends one cni.Call and returns the
// reply.
//
// When the agent is away, ADD and CHECK and GC fail with "try again later" within the dial limit,
// STATUS fails with "not available", and DEL is recorded for the agent to finish and succeeds.
//
// Out of scope: reading the environment, and printing.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/kithnet/kith/cni"
)

const (
	dialLimit = 500 * time.Millisecond
	// callLimit is above the agent's own limit, so that the agent's reason is what the runtime sees.
	callLimit = 90 * time.Second
	delLimit  = 30 * time.Second
	maxReply  = 4 << 20
)

// Pending is where DELs wait for an agent that is away.
type Pending interface {
	Put(cni.Key) error
	Remove(cni.Key) error
}

// Agent is the agent behind a socket.
type Agent struct {
	Socket  string
	Pending Pending
}

// Add asks for an attachment.
func (a Agent) Add(ctx context.Context, c cni.Call) (*types100.Result, error) {
	data, err := a.call(ctx, c, callLimit)
	if err != nil {
		return nil, err
	}
	var result types100.Result
	if err := json.Unmarshal(data, &result); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "decode the agent's result", err.Error())
	}
	return &result, nil
}

// Check asks whether an attachment is as it was made.
func (a Agent) Check(ctx context.Context, c cni.Call) error {
	_, err := a.call(ctx, c, callLimit)
	return err
}

// GC asks to remove what is not valid any more.
func (a Agent) GC(ctx context.Context, c cni.Call) error {
	_, err := a.call(ctx, c, callLimit)
	return err
}

// Status asks whether an ADD could be served.
func (a Agent) Status(ctx context.Context, c cni.Call) error {
	_, err := a.call(ctx, c, delLimit)
	if away, ok := err.(*awayError); ok {
		return types.NewError(types.ErrPluginNotAvailable, "the kith agent is not available", away.cause.Error())
	}
	return err
}

// Del asks to remove an attachment, now or when the agent is back.
func (a Agent) Del(ctx context.Context, c cni.Call) error {
	_, err := a.call(ctx, c, delLimit)
	if _, ok := err.(*awayError); !ok {
		return err
	}
	key := cni.Key{ContainerID: c.ContainerID, IfName: c.IfName}
	if err := a.Pending.Put(key); err != nil {
		return types.NewError(types.ErrTryAgainLater, "the kith agent is not available", err.Error())
	}
	// An agent that started between the call and the record may have looked for records before.
	if _, err := a.call(ctx, c, delLimit); err != nil {
		if _, ok := err.(*awayError); ok {
			return nil
		}
		return err
	}
	return a.Pending.Remove(key)
}

// awayError says that the agent did not reply. It becomes "try again later".
type awayError struct{ cause error }

func (e *awayError) Error() string { return "the kith agent is not available: " + e.cause.Error() }

// Unwrap gives the error its code.
func (e *awayError) Unwrap() error {
	return types.NewError(types.ErrTryAgainLater, "the kith agent is not available", e.cause.Error())
}

func (a Agent) call(ctx context.Context, c cni.Call, limit time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	body, err := json.Marshal(c)
	if err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "encode call", err.Error())
	}
	url := "http://kith/cni/" + strings.ToLower(string(c.Command))
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	transport := &http.Transport{DialContext: a.dial, DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, &awayError{cause: err}
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxReply))
	if err != nil {
		return nil, &awayError{cause: err}
	}
	if resp.StatusCode == http.StatusOK {
		return data, nil
	}
	var spec types.Error
	if err := json.Unmarshal(data, &spec); err != nil || spec.Code == 0 {
		return nil, types.NewError(types.ErrInternal, "the kith agent replied "+resp.Status, string(data))
	}
	return nil, &spec
}

func (a Agent) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialLimit}
	return d.DialContext(ctx, "unix", a.Socket)
}
