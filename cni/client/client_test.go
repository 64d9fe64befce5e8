package client

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/kithnet/kith/cni"
)

// pendingDels is a folder in memory, which may start an agent when something is put.
type pendingDels struct {
	keys  map[cni.Key]bool
	onPut func()
	err   error
}

func (p *pendingDels) Put(k cni.Key) error {
	if p.err != nil {
		return p.err
	}
	p.keys[k] = true
	if p.onPut != nil {
		p.onPut()
	}
	return nil
}

func (p *pendingDels) Remove(k cni.Key) error {
	delete(p.keys, k)
	return nil
}

func newAgent(t *testing.T) (Agent, *pendingDels) {
	p := &pendingDels{keys: map[cni.Key]bool{}}
	return Agent{Socket: filepath.Join(t.TempDir(), "agent.sock"), Pending: p}, p
}

func call(command cni.Command) cni.Call {
	return cni.Call{Command: command, ContainerID: "abc", IfName: "eth0", Config: json.RawMessage(`{}`)}
}

// serve answers on the agent's socket until the test ends.
func serve(t *testing.T, a Agent, h http.HandlerFunc) {
	t.Helper()
	l, err := net.Listen("unix", a.Socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
}

// do makes a call and returns the code of its error, 0 if there is none.
func do(t *testing.T, a Agent, command cni.Command) uint {
	t.Helper()
	var err error
	switch command {
	case cni.CommandAdd:
		_, err = a.Add(t.Context(), call(command))
	case cni.CommandDel:
		err = a.Del(t.Context(), call(command))
	case cni.CommandCheck:
		err = a.Check(t.Context(), call(command))
	case cni.CommandGC:
		err = a.GC(t.Context(), call(command))
	case cni.CommandStatus:
		err = a.Status(t.Context(), call(command))
	}
	if err == nil {
		return 0
	}
	var spec *types.Error
	if !errors.As(err, &spec) {
		t.Fatalf("%s: %v is not an error of the specification", command, err)
	}
	return spec.Code
}

func TestAgentAway(t *testing.T) {
	away := map[string]func(t *testing.T, a Agent){
		"no socket": func(*testing.T, Agent) {},
		"dead socket": func(t *testing.T, a Agent) {
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: a.Socket})
			if err != nil {
				t.Fatal(err)
			}
			l.SetUnlinkOnClose(false)
			_ = l.Close()
		},
		"dies while it works": func(t *testing.T, a Agent) {
			serve(t, a, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
		},
	}
	codes := map[cni.Command]uint{cni.CommandAdd: 11, cni.CommandCheck: 11, cni.CommandGC: 11, cni.CommandStatus: 50, cni.CommandDel: 0}
	for name, prepare := range away {
		t.Run(name, func(t *testing.T) {
			a, p := newAgent(t)
			prepare(t, a)
			for command, want := range codes {
				quickest := time.Hour // the machine may be busy with other things
				for range 4 {
					start := time.Now()
					if got := do(t, a, command); got != want {
						t.Errorf("%s: code %d, want %d", command, got, want)
					}
					quickest = min(quickest, time.Since(start))
				}
				if quickest > time.Second {
					t.Errorf("%s takes %v", command, quickest)
				}
			}
			if len(p.keys) != 1 {
				t.Errorf("pending: %v", p.keys)
			}
		})
	}
}

func TestReplies(t *testing.T) {
	tests := map[string]struct {
		status int
		body   string
		code   uint
	}{
		"result":        {200, `{"cniVersion":"1.1.0","ips":[{"address":"10.1.0.2/32"}]}`, 0},
		"broken result": {200, `{`, types.ErrDecodingFailure},
		"error":         {422, `{"code":100,"msg":"m","details":"d"}`, 100},
		"other error":   {500, `oops`, types.ErrInternal},
		"not found":     {404, `{}`, types.ErrInternal},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			a, p := newAgent(t)
			serve(t, a, func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(tt.status)
				_, _ = w.Write([]byte(tt.body))
			})
			if got := do(t, a, cni.CommandAdd); got != tt.code {
				t.Errorf("ADD: code %d", got)
			}
			want := tt.code
			if tt.status == 200 {
				want = 0
			}
			if got := do(t, a, cni.CommandDel); got != want || len(p.keys) != 0 {
				t.Errorf("DEL: code %d, pending %v", got, p.keys)
			}
		})
	}
}

// The agent may start, and look for pending DELs, just before this one is put.
func TestDelReachesAnAgentThatStartsMeanwhile(t *testing.T) {
	a, p := newAgent(t)
	got := make(chan cni.Call, 1)
	p.onPut = func() {
		serve(t, a, func(_ http.ResponseWriter, r *http.Request) {
			var c cni.Call
			_ = json.NewDecoder(r.Body).Decode(&c)
			got <- c
		})
	}
	if err := a.Del(context.Background(), call(cni.CommandDel)); err != nil {
		t.Fatal(err)
	}
	if c := <-got; c.ContainerID != "abc" || len(p.keys) != 0 {
		t.Errorf("%+v, pending %v", c, p.keys)
	}
}

func TestDelThatCannotBeRecordedFails(t *testing.T) {
	a, p := newAgent(t)
	p.err = errors.New("no space")
	if got := do(t, a, cni.CommandDel); got != types.ErrTryAgainLater {
		t.Errorf("code %d", got)
	}
}

func TestAddWaitsForAnAgentThatIsThere(t *testing.T) {
	a, _ := newAgent(t)
	serve(t, a, func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(2 * dialLimit)
		_, _ = w.Write([]byte(`{"cniVersion":"1.1.0"}`))
	})
	if got := do(t, a, cni.CommandAdd); got != 0 {
		t.Errorf("code %d", got)
	}
}
