package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/kithnet/kith/cni"
)

// node is a node in memory. Open calls what gate holds for the container.
type node struct {
	mu      sync.Mutex
	records map[cni.Key]cni.Attachment
	links   map[string]bool
	pending map[cni.Key]bool
	gate    map[string]func(context.Context) error
	// running counts operations per container, to see overlaps.
	running  map[string]int
	overlaps int
	closeErr error
	notReady error
}

func newNode() *node {
	return &node{
		records: map[cni.Key]cni.Attachment{}, links: map[string]bool{}, pending: map[cni.Key]bool{},
		gate: map[string]func(context.Context) error{}, running: map[string]int{},
	}
}

func (n *node) Allocate(a cni.Attachment) (cni.Attachment, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.records[a.Key] = a
	return a, nil
}

func (n *node) Release(k cni.Key) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.records, k)
	return nil
}

func (n *node) Available() error { return nil }

func (n *node) Get(k cni.Key) (cni.Attachment, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	a, ok := n.records[k]
	return a, ok
}

func (n *node) List() []cni.Attachment {
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []cni.Attachment
	for _, a := range n.records {
		all = append(all, a)
	}
	return all
}

func (n *node) Commit(cni.Key) error { return nil }

func (n *node) left() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.records) + len(n.links) + len(n.pending)
}

type links struct{ *node }

func (l links) Create(_ context.Context, a cni.Attachment) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.links[a.HostInterface] = true
	return nil
}

func (l links) Check(context.Context, cni.Attachment) error { return nil }

func (l links) Delete(_ context.Context, name string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.links, name)
	return nil
}

func (l links) List(context.Context) ([]string, error) { return nil, nil }
func (l links) SandboxExists(string) bool              { return true }

type connections struct{}

func (connections) End(context.Context, []netip.Addr) error { return nil }

type gate struct{ *node }

func (g gate) Open(ctx context.Context, a cni.Attachment) error {
	defer g.enter(a.ContainerID)()
	g.mu.Lock()
	hook := g.gate[a.ContainerID]
	g.mu.Unlock()
	if hook != nil {
		return hook(ctx)
	}
	return nil
}

func (g gate) Close(_ context.Context, a cni.Attachment) error {
	defer g.enter(a.ContainerID)()
	return g.closeErr
}

func (g gate) Check(context.Context, cni.Attachment) error { return nil }

func (g gate) enter(id string) (leave func()) {
	g.mu.Lock()
	g.running[id]++
	if g.running[id] > 1 {
		g.overlaps++
	}
	g.mu.Unlock()
	time.Sleep(time.Millisecond)
	return func() {
		g.mu.Lock()
		g.running[id]--
		g.mu.Unlock()
	}
}

type pendingDels struct{ *node }

func (p pendingDels) List() ([]cni.Key, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var keys []cni.Key
	for k := range p.pending {
		keys = append(keys, k)
	}
	return keys, errors.New("one more is damaged")
}

func (p pendingDels) Has(k cni.Key) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pending[k]
}

func (p pendingDels) Remove(k cni.Key) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.pending, k)
	return nil
}

func (n *node) server(limit time.Duration) *Server {
	return New(Options{
		Deps: cni.Deps{
			Addresses: n, Records: n, Links: links{n}, Gate: gate{n}, Connections: connections{},
			Ready: func(context.Context) error { return n.notReady },
			MTU:   func() int { return 1420 },
		},
		Pending: pendingDels{n}, Log: slog.New(slog.DiscardHandler), Limit: limit,
	})
}

// start serves on a socket until the test ends, and returns the socket.
func start(t *testing.T, s *Server) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "run", "agent.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return path
}

func call(command cni.Command, id string) cni.Call {
	return cni.Call{
		Command: command, ContainerID: id, IfName: "eth0", Netns: "/run/netns/" + id,
		Args:   "K8S_POD_NAMESPACE=ns;K8S_POD_NAME=" + id,
		Config: []byte(`{"cniVersion":"1.1.0","name":"kith","cni.dev/valid-attachments":[]}`),
	}
}

func post(ctx context.Context, socket, path string, body any) ([]byte, error) {
	data, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	client := http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://kith"+path, bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	reply, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode == http.StatusOK {
		return reply, err
	}
	var spec types.Error
	if err := json.Unmarshal(reply, &spec); err != nil {
		return nil, fmt.Errorf("%s: %s", resp.Status, reply)
	}
	return nil, &spec
}
