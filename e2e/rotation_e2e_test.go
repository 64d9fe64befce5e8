//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kithnet/kith/e2e/parts"
	"github.com/kithnet/kith/e2e/window"
)

// Each way between the first two nodes, and between each other two; datagrams a second.
const (
	rotationRate = 2000
	rotationRest = 200
	rotationPort = 8000 // and those after it
)

const rotationManifest = `
apiVersion: v1
kind: Namespace
metadata: {name: rotation}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: end, namespace: rotation}
spec:
  selector: {matchLabels: {app: end}}
  template:
    metadata: {labels: {app: end}}
    spec:
      tolerations: [{operator: Exists}]
      terminationGracePeriodSeconds: 0
      containers: [{name: pause, image: "` + parts.PauseImage + `"}]
---
`

// keysOf is what a node's status says of its keys.
type keysOf struct {
	Keys struct {
		Generation, Settled uint32
		WaitsFor            []string
	}
	Peers []struct {
		Node, PresharedKey string
		LastHandshake      time.Time
	}
	Problems []string
}

// rotating is a cluster under load.
type rotating struct {
	*testing.T
	ends    map[string]*window.End // by node
	agents  map[string]*http.Client
	streams []*window.Stream
	phases  []phase
}

// phase is a time in which keys changed, or as long a time in which they did not.
type phase struct {
	name     string
	from, to time.Time
}

const (
	turning = "keys change"
	resting = "as long a time without"
	absent  = "an agent stopped"
)

// TestRotationUnderLoad changes all keys again and again, and once while a node's agent is stopped, under a steady load
// between pods of all nodes. No packet is in clear. No datagram is lost, where the machine itself loses none: after each
// change there is as long a time without. A machine that loses some then is short of processor time, so that queues are
// full; it says so, and is asked only that no pair is cut for longer than a queue is.
func TestRotationUnderLoad(t *testing.T) {
	rotations := 4
	if n, err := strconv.Atoi(os.Getenv("KITH_E2E_ROTATIONS")); err == nil {
		rotations = n
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute+time.Duration(rotations)*time.Minute)
	defer cancel()
	r := newRotating(ctx, t)
	r.agreed(ctx, time.Time{}) // a node that was away before may still be at it
	capture, err := shared.Capture()
	r.must("watch the underlay", err)
	r.load()
	for i := range rotations {
		node := shared.Members[i%len(shared.Members)].Name
		took := r.during(turning, func() {
			r.settle(ctx, r.rotate(node))
			<-time.After(late)
		})
		t.Logf("generation after %s", took.Round(time.Millisecond))
		r.during(resting, func() { <-time.After(took) })
	}
	r.during(absent, func() { r.away(ctx) })
	for _, s := range r.streams {
		s.Stop()
	}
	seen, err := capture.Stop()
	r.must("watch the underlay", err)
	t.Logf("the underlay meanwhile:\n%s", seen)
	if seen.Leaks != 0 || seen.MissedAt != 0 {
		t.Errorf("%d packets with a pod address on the underlay, %d not seen", seen.Leaks, seen.MissedAt)
	}
	r.judge()
}

// cut is how long all that is sent to a node may be lost on a machine that is short of processor time, late how long after
// a change of keys a loss is still its own.
const (
	cut  = 5 * time.Second
	late = 3 * time.Second
)

func (r *rotating) judge() {
	r.Helper()
	machine := r.lost(resting)
	r.Logf("%s: %s", resting, machine)
	if machine.Sent == 0 {
		r.Error("nothing was sent")
	}
	for _, name := range []string{turning, absent} {
		l := r.lost(name)
		r.Logf("%s: %s", name, l)
		switch {
		case machine.Lost == 0 && l.Lost > 0:
			r.Errorf("%s: %d of %d lost", name, l.Lost, l.Sent)
		case l.Lost > 0:
			r.Logf("this machine loses datagrams while no keys change, too: how many of these a change of keys has lost cannot be told")
		}
	}
	from, to := r.phases[0].from, r.phases[len(r.phases)-1].to
	for _, s := range r.streams {
		for _, run := range s.Loss(from, to).Runs {
			if took := run.Last.Sub(run.First); took > cut {
				r.Errorf("%s: all that was sent for %s from %s on was lost", s, took, run.First.Format("15:04:05.000"))
			}
		}
	}
}

// lost adds up all phases of a name.
func (r *rotating) lost(name string) window.Loss {
	var all window.Loss
	for _, p := range r.phases {
		if p.name != name {
			continue
		}
		for _, s := range r.streams {
			l := s.Loss(p.from, p.to)
			all.Sent, all.Lost, all.Runs = all.Sent+l.Sent, all.Lost+l.Lost, append(all.Runs, l.Runs...)
		}
	}
	return all
}

func (r *rotating) during(name string, do func()) time.Duration {
	p := phase{name: name, from: time.Now()}
	do()
	p.to = time.Now()
	r.phases = append(r.phases, p)
	return p.to.Sub(p.from)
}

// away stops a node's agent while two new generations are asked for. The others take the first and wait with the second;
// the agent finds both when it goes on.
func (r *rotating) away(ctx context.Context) {
	r.Helper()
	asked, other := shared.Members[0].Name, shared.Members[1].Name
	stopped := shared.Members[len(shared.Members)-1].Name
	r.must("stop agent", shared.Signal(stopped, "kith-agent", unix.SIGSTOP))
	goOn := sync.OnceFunc(func() { r.must("let agent go on", shared.Signal(stopped, "kith-agent", unix.SIGCONT)) })
	defer goOn()
	first := r.rotate(asked)
	r.await(ctx, func(node string, k keysOf) bool { return node == stopped || k.Keys.Generation >= first })
	second := r.rotate(asked)
	r.await(ctx, func(node string, k keysOf) bool { return node != asked || slices.Contains(k.Keys.WaitsFor, stopped) })
	if second != first+1 {
		r.Errorf("generations %d and %d were asked for", first, second)
	}
	goOn()
	began := time.Now()
	r.settle(ctx, second)
	r.agreed(ctx, began)
	r.Logf("%s, stopped during two changes of keys that %s and %s made or asked for, has caught up after %s", stopped, asked, other, time.Since(began).Round(time.Millisecond))
}

func (r *rotating) must(what string, err error) {
	r.Helper()
	if err != nil {
		r.Fatalf("%s: %v", what, err)
	}
}

func newRotating(ctx context.Context, t *testing.T) *rotating {
	t.Helper()
	r := &rotating{T: t, ends: map[string]*window.End{}, agents: map[string]*http.Client{}}
	r.must("make pods", shared.Apply(ctx, rotationManifest))
	t.Cleanup(func() {
		if _, err := shared.Kubectl(context.Background(), "delete", "namespace", "rotation", "--timeout=120s"); err != nil {
			t.Error(err)
		}
	})
	kubectl(ctx, t, "-n", "rotation", "rollout", "status", "daemonset/end", "--timeout=180s")
	nodes := map[netip.Addr]string{}
	fields := strings.Fields(kubectl(ctx, t, "-n", "rotation", "get", "pods", "-o",
		`jsonpath={range .items[*]}{.spec.nodeName} {.status.podIP} {end}`))
	for i := 0; i+1 < len(fields); i += 2 {
		nodes[netip.MustParseAddr(fields[i+1])] = fields[i]
	}
	found := make(chan *window.End, 100)
	for _, n := range shared.Members {
		root, err := shared.Root(n.Name)
		r.must("find node", err)
		r.must("find pods", window.Spy(ctx, window.Site{Node: n.Name, Root: root, Family: family()}, func(e *window.End) { found <- e }))
		r.agents[n.Name] = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(root, "run/kith/agent.sock"))
		}}, Timeout: 20 * time.Second}
	}
	for len(r.ends) < len(shared.Members) {
		select {
		case <-ctx.Done():
			t.Fatalf("%d of %d pods found", len(r.ends), len(shared.Members))
		case e := <-found:
			if node, ok := nodes[e.Address]; ok && node == e.Node {
				r.ends[node] = e
			}
		}
	}
	return r
}

// load starts a stream between each two nodes, each way.
func (r *rotating) load() {
	r.Helper()
	for i, a := range shared.Members {
		for j, b := range shared.Members {
			if i == j {
				continue
			}
			rate := rotationRest
			if i+j == 1 {
				rate = rotationRate
			}
			s, err := window.NewStream(r.ends[a.Name], r.ends[b.Name], uint16(rotationPort+len(r.streams)), rate)
			r.must("start stream", err)
			r.streams = append(r.streams, s)
		}
	}
}

// ask calls a node's agent as the command kith does.
func (r *rotating) ask(node, method, path string, answer any) error {
	request, err := http.NewRequest(method, "http://agent"+path, bytes.NewReader(nil))
	if err != nil {
		return err
	}
	response, err := r.agents[node].Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, text)
	}
	if err == nil {
		err = json.Unmarshal(text, answer)
	}
	return err
}

func (r *rotating) rotate(node string) uint32 {
	r.Helper()
	var answer struct{ Generation uint32 }
	r.must("ask for new keys", r.ask(node, http.MethodPost, "/v1/mesh/rotate", &answer))
	return answer.Generation
}

// settle waits until every node is settled in a generation.
func (r *rotating) settle(ctx context.Context, generation uint32) {
	r.Helper()
	r.await(ctx, func(_ string, k keysOf) bool { return k.Keys.Settled >= generation })
}

// agreed waits until nobody waits for anybody, and each two nodes have a preshared key and have shaken hands since a time.
func (r *rotating) agreed(ctx context.Context, since time.Time) {
	r.Helper()
	r.await(ctx, func(_ string, k keysOf) bool {
		fine := len(k.Keys.WaitsFor) == 0 && len(k.Peers) == len(shared.Members)-1
		for _, p := range k.Peers {
			fine = fine && p.PresharedKey == "agreed" && p.LastHandshake.After(since)
		}
		return fine
	})
}

// await waits until every node's status is as wanted; the one of a stopped agent is empty.
func (r *rotating) await(ctx context.Context, fine func(node string, k keysOf) bool) {
	r.Helper()
	for {
		var not []string
		for node := range r.agents {
			var k keysOf
			var err error
			if !fine(node, k) {
				err = r.ask(node, http.MethodGet, "/v1/status", &k)
			}
			if err != nil || !fine(node, k) {
				not = append(not, fmt.Sprintf("%s: %+v, %v", node, k, err))
			}
		}
		if len(not) == 0 {
			return
		}
		select {
		case <-ctx.Done():
			r.Fatalf("waited in vain:\n%s", strings.Join(not, "\n"))
		case <-time.After(200 * time.Millisecond):
		}
	}
}
