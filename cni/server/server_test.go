package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/kithnet/kith/cni"
)

func TestListen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "agent.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	for what, want := range map[string]os.FileMode{filepath.Dir(path): 0o700, path: 0o600} {
		if info, err := os.Stat(what); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v %v", what, info.Mode(), err)
		}
	}
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "another agent") {
		t.Errorf("a second agent: %v", err)
	}
	// A killed agent leaves its socket.
	l.(interface{ SetUnlinkOnClose(bool) }).SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l, err = Listen(path)
	if err != nil {
		t.Fatalf("after a killed agent: %v", err)
	}
	_ = l.Close()
}

func TestOperations(t *testing.T) {
	n := newNode()
	socket := start(t, n.server(0))
	reply, err := post(t.Context(), socket, "/cni/add", call(cni.CommandAdd, "a"))
	if err != nil || !strings.Contains(string(reply), `"sandbox":"/run/netns/a"`) {
		t.Errorf("ADD: %s %v", reply, err)
	}
	for _, command := range []cni.Command{cni.CommandDel, cni.CommandDel, cni.CommandGC} {
		reply, err := post(t.Context(), socket, "/cni/"+strings.ToLower(string(command)), call(command, "a"))
		if err != nil || n.left() != 0 {
			t.Errorf("%s: %s %v, left %d", command, reply, err, n.left())
		}
	}
	if _, err := post(t.Context(), socket, "/cni/add", call(cni.CommandAdd, "a")); err != nil {
		t.Fatal(err)
	}
	if _, err := post(t.Context(), socket, "/cni/gc", call(cni.CommandGC, "")); err != nil || n.left() != 0 {
		t.Errorf("GC: %v, left %d", err, n.left())
	}
}

func TestRefusals(t *testing.T) {
	n := newNode()
	n.notReady = errors.New("not yet")
	socket := start(t, n.server(0))
	huge := call(cni.CommandAdd, "a")
	huge.Args += ";X=" + strings.Repeat("x", maxBody)
	tests := map[string]struct {
		path string
		body any
		code uint
	}{
		"not ready":        {"/cni/status", call(cni.CommandStatus, ""), types.ErrPluginNotAvailable},
		"ADD too early":    {"/cni/add", call(cni.CommandAdd, "a"), types.ErrTryAgainLater},
		"another command":  {"/cni/del", call(cni.CommandAdd, "a"), types.ErrInvalidEnvironmentVariables},
		"no call":          {"/cni/add", "x", types.ErrDecodingFailure},
		"invalid call":     {"/cni/add", call(cni.CommandAdd, ""), types.ErrInvalidEnvironmentVariables},
		"too long":         {"/cni/add", huge, types.ErrDecodingFailure},
		"CHECK without":    {"/cni/check", call(cni.CommandCheck, "a"), types.ErrInvalidNetworkConfig},
		"wrong network":    {"/cni/gc", cni.Call{Command: cni.CommandGC, Config: []byte(`{}`)}, types.ErrInvalidNetworkConfig},
		"no configuration": {"/cni/gc", cni.Call{Command: cni.CommandGC}, types.ErrInvalidNetworkConfig},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := post(t.Context(), socket, tt.path, tt.body)
			var spec *types.Error
			if !errors.As(err, &spec) || spec.Code != tt.code {
				t.Errorf("error %v, want code %d", err, tt.code)
			}
		})
	}
	if n.left() != 0 {
		t.Error("something was left")
	}
}

func TestMoreHandlers(t *testing.T) {
	s := newNode().server(0)
	s.Handle("POST /status", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("fine")) }))
	if got, err := post(t.Context(), start(t, s), "/status", nil); string(got) != "fine" {
		t.Errorf("%s %v", got, err)
	}
}

// block makes ADDs of this container wait until their context is done, and says when one does.
func (n *node) block(id string) (waiting chan struct{}) {
	waiting = make(chan struct{}, 1)
	n.gate[id] = func(ctx context.Context) error {
		waiting <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}
	return waiting
}

func TestAddIsUndone(t *testing.T) {
	tests := map[string]struct {
		end    func(client, agent context.CancelFunc)
		replys bool
	}{
		"when the client goes":      {func(client, _ context.CancelFunc) { client() }, false},
		"when the agent shuts down": {func(_, agent context.CancelFunc) { agent() }, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			n := newNode()
			waiting := n.block("a")
			l, err := Listen(filepath.Join(t.TempDir(), "agent.sock"))
			if err != nil {
				t.Fatal(err)
			}
			agentCtx, agent := context.WithCancel(t.Context())
			served := make(chan error, 1)
			go func() { served <- n.server(0).Serve(agentCtx, l) }()
			clientCtx, client := context.WithCancel(t.Context())
			replied := make(chan error, 1)
			go func() {
				_, err := post(clientCtx, l.Addr().String(), "/cni/add", call(cni.CommandAdd, "a"))
				replied <- err
			}()
			select {
			case <-waiting:
			case err := <-replied:
				t.Fatalf("ADD did not wait: %v", err)
			}
			tt.end(client, agent)
			var spec *types.Error
			if err := <-replied; tt.replys && (!errors.As(err, &spec) || spec.Code != types.ErrTryAgainLater) {
				t.Errorf("reply %v, want code 11", err)
			}
			for deadline := time.Now().Add(time.Minute); n.left() > 0 && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond)
			}
			if n.left() > 0 {
				t.Error("something was left")
			}
			client()
			agent()
			if err := <-served; err != nil {
				t.Error(err)
			}
		})
	}
}

// TestAddIsUndoneAfterTheLimit has no socket: a busy machine could use the limit up before the gate is reached.
func TestAddIsUndoneAfterTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode()
		waiting := n.block("a")
		body, err := json.Marshal(call(cni.CommandAdd, "a"))
		if err != nil {
			t.Fatal(err)
		}
		w, begin := httptest.NewRecorder(), time.Now()
		n.server(time.Minute).mux.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/cni/add", bytes.NewReader(body)))
		if took := time.Since(begin); len(waiting) != 1 || took < time.Minute || took > time.Minute+time.Second {
			t.Errorf("ADD waited %d times, and %v in all", len(waiting), took)
		}
		var reply types.Error
		if err := json.Unmarshal(w.Body.Bytes(), &reply); err != nil || reply.Code != types.ErrTryAgainLater {
			t.Errorf("reply %s, want code 11", w.Body)
		}
		if n.left() > 0 {
			t.Error("something was left")
		}
	})
}

func TestOperationsOfOneContainerNeverOverlap(t *testing.T) {
	n := newNode()
	socket := start(t, n.server(0))
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(worker), 0))
			for range 20 {
				id := fmt.Sprint("c", rng.IntN(3))
				command := []cni.Command{cni.CommandAdd, cni.CommandDel, cni.CommandGC}[rng.IntN(3)]
				// ADD of what is there fails, and so it must.
				_, _ = post(context.Background(), socket, "/cni/"+strings.ToLower(string(command)), call(command, id))
			}
		})
	}
	group.Wait()
	if n.overlaps > 0 {
		t.Errorf("%d overlaps", n.overlaps)
	}
}

func TestOneContainerDoesNotHoldUpAnother(t *testing.T) {
	n := newNode()
	waiting := n.block("slow")
	socket := start(t, n.server(0))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = post(ctx, socket, "/cni/add", call(cni.CommandAdd, "slow"))
	}()
	<-waiting
	if _, err := post(t.Context(), socket, "/cni/add", call(cni.CommandAdd, "quick")); err != nil {
		t.Error(err)
	}
	cancel()
	<-done
}

func TestPendingDelsAreFinishedFirst(t *testing.T) {
	n := newNode()
	a := cni.NewAttachment(cni.Request{Key: cni.Key{ContainerID: "a", IfName: "eth0"}}, 1420)
	n.records[a.Key], n.links[a.HostInterface], n.pending[a.Key] = a, true, true
	socket := start(t, n.server(0))
	// The reply to anything comes after the pending DELs.
	if _, err := post(t.Context(), socket, "/cni/del", call(cni.CommandDel, "other")); err != nil {
		t.Fatal(err)
	}
	if n.left() != 0 {
		t.Errorf("left %d", n.left())
	}
}

func TestPendingDelThatFailsIsKept(t *testing.T) {
	n := newNode()
	k := cni.Key{ContainerID: "a", IfName: "eth0"}
	n.pending[k], n.closeErr = true, errors.New("injected")
	s := n.server(0)
	s.drain(t.Context())
	if n.left() != 1 {
		t.Error("forgotten")
	}
	n.closeErr = nil
	s.drain(t.Context())
	if n.left() != 0 {
		t.Error("not finished")
	}
}

// A DEL left behind is about the attachment before: a new one must not be deleted by it later.
func TestAddMakesAnOlderDelVoid(t *testing.T) {
	n := newNode()
	s := n.server(0)
	socket := start(t, s)
	k := cni.Key{ContainerID: "a", IfName: "eth0"}
	if _, err := post(t.Context(), socket, "/cni/add", call(cni.CommandAdd, "a")); err != nil {
		t.Fatal(err)
	}
	n.mu.Lock()
	n.pending[k] = true
	n.mu.Unlock()
	if _, err := post(t.Context(), socket, "/cni/add", call(cni.CommandAdd, "a")); err != nil {
		t.Fatal(err)
	}
	s.drain(t.Context())
	if _, ok := n.Get(k); !ok || (pendingDels{n}).Has(k) {
		t.Error("the new attachment is gone")
	}
}
