package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/kithnet/kith/cmd/kith/status"
)

// maxReport bounds what a node may answer: about 10,000 peers.
const maxReport = 16 << 20

// fetchLocal asks the agent behind the socket.
func fetchLocal(ctx context.Context, socket string, timeout time.Duration) (status.Report, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var report status.Report
	if err := call(ctx, socket, http.MethodGet, status.Path, &report); err != nil {
		return status.Report{}, fmt.Errorf("the agent on this node does not answer: %w", err)
	}
	return report, nil
}

// call sends a request to the agent and reads its answer.
func call(ctx context.Context, socket, method, path string, answer any) error {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, method, "http://agent"+path, nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxReport))
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", resp.Status, firstLine(body))
	}
	if err := json.Unmarshal(body, answer); err != nil {
		return fmt.Errorf("the answer cannot be read: %w", err)
	}
	return nil
}

func parseReport(data []byte) (status.Report, error) {
	var report status.Report
	if err := json.Unmarshal(data, &report); err != nil {
		return status.Report{}, fmt.Errorf("the answer is no status: %w", err)
	}
	return report, nil
}

func firstLine(text []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	return line
}
