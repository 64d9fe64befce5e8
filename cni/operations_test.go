package cni

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"
)

// world is a node in memory: what there is, what was called, and which calls fail.
type world struct {
	records   map[Key]Attachment
	links     map[string]bool
	connected map[netip.Addr]bool // addresses of which the kernel remembers connections
	open      map[Key]bool
	sandboxes map[string]bool
	calls     []string
	fail      map[int]bool
	wrong     map[string]error
	notReady  error
	full      bool
	inherited bool // an attachment was given an address with connections of another
}

var errInjected = errors.New("injected")

func newWorld() *world {
	return &world{
		records:   map[Key]Attachment{},
		links:     map[string]bool{},
		connected: map[netip.Addr]bool{},
		open:      map[Key]bool{},
		sandboxes: map[string]bool{"/run/netns/a": true},
		fail:      map[int]bool{},
		wrong:     map[string]error{},
	}
}

func (w *world) deps() Deps {
	return Deps{
		Addresses: w, Records: w, Links: fakeLinks{w}, Gate: fakeGate{w}, Connections: fakeConnections{w},
		Ready: func(context.Context) error { return w.notReady },
		MTU:   func() int { return 1420 },
	}
}

// call notes a call and returns the error it must fail with.
func (w *world) call(what string) error {
	w.calls = append(w.calls, what)
	if w.fail[len(w.calls)] {
		return errInjected
	}
	return w.wrong[what]
}

func (w *world) Allocate(a Attachment) (Attachment, error) {
	if err := w.call("allocate"); err != nil {
		return Attachment{}, err
	}
	a.Addresses = []netip.Addr{netip.AddrFrom4([4]byte{10, 1, 0, byte(2 + len(w.records))}), netip.AddrFrom16([16]byte{0: 0xfd, 15: byte(2 + len(w.records))})}
	w.records[a.Key] = a
	for _, addr := range a.Addresses {
		w.inherited = w.inherited || w.connected[addr]
		w.connected[addr] = true
	}
	return a, nil
}

func (w *world) Release(k Key) error {
	if err := w.call("release"); err != nil {
		return err
	}
	delete(w.records, k)
	return nil
}

func (w *world) Available() error {
	if w.full {
		return errors.New("full")
	}
	return nil
}

func (w *world) Get(k Key) (Attachment, bool) {
	a, ok := w.records[k]
	return a, ok
}

func (w *world) List() []Attachment {
	var all []Attachment
	for _, a := range w.records {
		all = append(all, a)
	}
	slices.SortFunc(all, func(a, b Attachment) int { return strings.Compare(a.Key.String(), b.Key.String()) })
	return all
}

func (w *world) Commit(k Key) error {
	if err := w.call("commit"); err != nil {
		return err
	}
	a := w.records[k]
	a.Complete = true
	w.records[k] = a
	return nil
}

type fakeLinks struct{ w *world }

func (l fakeLinks) Create(_ context.Context, a Attachment) error {
	// A real Create that fails may leave the pair.
	l.w.links[a.HostInterface] = true
	return l.w.call("create")
}

func (l fakeLinks) Check(context.Context, Attachment) error { return l.w.call("check link") }

func (l fakeLinks) Delete(_ context.Context, name string) error {
	if err := l.w.call("delete"); err != nil {
		return err
	}
	delete(l.w.links, name)
	return nil
}

func (l fakeLinks) List(context.Context) ([]string, error) {
	var names []string
	for name := range l.w.links {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, l.w.call("list links")
}

func (l fakeLinks) SandboxExists(netns string) bool { return l.w.sandboxes[netns] }

type fakeConnections struct{ w *world }

func (c fakeConnections) End(_ context.Context, addresses []netip.Addr) error {
	if len(c.w.links) > 0 && len(c.w.records) == 1 {
		return errors.New("packets may still make connections")
	}
	if err := c.w.call("end connections"); err != nil {
		return err
	}
	for _, a := range addresses {
		delete(c.w.connected, a)
	}
	return nil
}

type fakeGate struct{ w *world }

func (g fakeGate) Open(ctx context.Context, a Attachment) error {
	g.w.open[a.Key] = true
	return errors.Join(g.w.call("open"), ctx.Err())
}

func (g fakeGate) Close(ctx context.Context, a Attachment) error {
	if err := errors.Join(g.w.call("close"), ctx.Err()); err != nil {
		return err
	}
	delete(g.w.open, a.Key)
	return nil
}

func (g fakeGate) Check(context.Context, Attachment) error { return g.w.call("check gate") }

func (w *world) empty(t *testing.T) {
	t.Helper()
	if len(w.records)+len(w.links)+len(w.open)+len(w.connected) > 0 {
		t.Errorf("left: records %v, links %v, open %v, connections of %v", w.records, w.links, w.open, w.connected)
	}
	if w.inherited {
		t.Error("an address was given while there were connections of the pod that had it")
	}
}

func request(container string) Request {
	return Request{
		Command: CommandAdd, Key: Key{ContainerID: container, IfName: "eth0"}, Netns: "/run/netns/" + container,
		Pod: Pod{Namespace: "ns", Name: container}, Config: NetConf{CNIVersion: "1.1.0", Name: "kith"},
	}
}

func TestAddDoesStepsInOrder(t *testing.T) {
	w := newWorld()
	if _, err := Add(t.Context(), w.deps(), request("a")); err != nil {
		t.Fatal(err)
	}
	want := []string{"allocate", "create", "open", "commit"}
	if diff := cmp.Diff(want, w.calls); diff != "" {
		t.Error(diff)
	}
}

func TestAddWaitsForTheNode(t *testing.T) {
	w := newWorld()
	w.notReady = types.NewError(types.ErrLimitedConnectivity, "mesh down", "")
	_, err := Add(t.Context(), w.deps(), request("a"))
	expectError(t, err, types.ErrTryAgainLater, "mesh down")
	if w.calls != nil {
		t.Errorf("calls: %v", w.calls)
	}
}

func TestAddThatFailsLeavesNothing(t *testing.T) {
	for n := 1; ; n++ {
		w := newWorld()
		w.fail[n] = true
		_, err := Add(t.Context(), w.deps(), request("a"))
		if err == nil {
			if n != 5 {
				t.Errorf("Add makes %d calls", n-1)
			}
			return
		}
		if !errors.Is(err, errInjected) {
			t.Errorf("call %d fails: %v", n, err)
		}
		w.empty(t)
	}
}

// When the undoing fails too, the record stays, so that DEL or GC or a second ADD can finish.
func TestWhatCannotBeUndoneIsFinishedLater(t *testing.T) {
	finish := map[string]func(Deps, Request) error{
		"DEL": func(d Deps, r Request) error { return Del(context.Background(), d, r.Key) },
		"GC":  func(d Deps, r Request) error { return GC(context.Background(), d, gcAll()) },
		"ADD and DEL": func(d Deps, r Request) error {
			if _, err := Add(context.Background(), d, r); err != nil {
				return err
			}
			return Del(context.Background(), d, r.Key)
		},
	}
	for name, do := range finish {
		for n := 1; n <= 4; n++ {
			for m := n + 1; m <= n+4; m++ {
				t.Run(fmt.Sprintf("%s after calls %d and %d failed", name, n, m), func(t *testing.T) {
					w := newWorld()
					w.fail[n], w.fail[m] = true, true
					if _, err := Add(t.Context(), w.deps(), request("a")); err == nil {
						t.Fatal("Add succeeded")
					}
					if len(w.links)+len(w.open) > 0 && len(w.records) == 0 {
						t.Error("the record went before what it is about")
					}
					w.fail = nil
					if err := do(w.deps(), request("a")); err != nil {
						t.Fatal(err)
					}
					w.empty(t)
				})
			}
		}
	}
}

func TestAddUndoesWhenItsCallerGivesUp(t *testing.T) {
	w := newWorld()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Add(ctx, w.deps(), request("a"))
	if got := ToError(err); got == nil || got.Code != types.ErrTryAgainLater {
		t.Errorf("error %v, want code 11", err)
	}
	w.empty(t)
}

func TestAddTwice(t *testing.T) {
	w := newWorld()
	if _, err := Add(t.Context(), w.deps(), request("a")); err != nil {
		t.Fatal(err)
	}
	before := w.List()
	if _, err := Add(t.Context(), w.deps(), request("a")); err == nil {
		t.Error("the second Add succeeded")
	}
	if diff := cmp.Diff(before, w.List(), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" || !w.open[request("a").Key] {
		t.Errorf("the second Add changed the first: %s", diff)
	}
}

func TestAddAfterACrash(t *testing.T) {
	w := newWorld()
	a := NewAttachment(request("a"), 1420)
	w.records[a.Key], w.links[a.HostInterface] = a, true
	if _, err := Add(t.Context(), w.deps(), request("a")); err != nil {
		t.Fatal(err)
	}
	want := []string{"close", "delete", "release", "allocate", "create", "open", "commit"}
	if diff := cmp.Diff(want, w.calls); diff != "" {
		t.Error(diff)
	}
}

// TestConnectionsEndWithTheirPod: when its link is gone and before its addresses are free. A retried DEL ends them, too.
func TestConnectionsEndWithTheirPod(t *testing.T) {
	w := newWorld()
	if _, err := Add(t.Context(), w.deps(), request("a")); err != nil {
		t.Fatal(err)
	}
	w.calls = nil
	if err := Del(t.Context(), w.deps(), request("a").Key); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"close", "delete", "end connections", "release"}, w.calls); diff != "" {
		t.Error(diff)
	}
	w.empty(t)
}

func TestDelIsIdempotent(t *testing.T) {
	w := newWorld()
	if _, err := Add(t.Context(), w.deps(), request("a")); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := Del(t.Context(), w.deps(), request("a").Key); err != nil {
			t.Fatal(err)
		}
		w.empty(t)
	}
}

func TestDelThatFailsCanBeRepeated(t *testing.T) {
	for n := 1; n <= 4; n++ {
		w := newWorld()
		if _, err := Add(t.Context(), w.deps(), request("a")); err != nil {
			t.Fatal(err)
		}
		w.calls, w.fail[n] = nil, true
		if err := Del(t.Context(), w.deps(), request("a").Key); !errors.Is(err, errInjected) {
			t.Errorf("call %d fails: %v", n, err)
		}
		if len(w.records) != 1 {
			t.Errorf("call %d fails: the address is free", n)
		}
		w.fail = nil
		if err := Del(t.Context(), w.deps(), request("a").Key); err != nil {
			t.Fatal(err)
		}
		w.empty(t)
	}
}

func TestDelWithoutRecordRemovesTheLink(t *testing.T) {
	w := newWorld()
	w.links[request("a").HostInterface()] = true
	if err := Del(t.Context(), w.deps(), request("a").Key); err != nil {
		t.Fatal(err)
	}
	w.empty(t)
}

func gcWorld(t *testing.T) *world {
	t.Helper()
	w := newWorld()
	for _, id := range []string{"a", "b", "c"} {
		if _, err := Add(t.Context(), w.deps(), request(id)); err != nil {
			t.Fatal(err)
		}
	}
	w.links["kith-0123456789"] = true
	w.calls = nil
	return w
}

func gcAll() Request { return Request{Command: CommandGC, Config: NetConf{Name: "kith"}} }

func TestGCKeepsOtherNetworks(t *testing.T) {
	w := gcWorld(t)
	r := gcAll()
	r.Config.Name = "other"
	if err := GC(t.Context(), w.deps(), r); err != nil {
		t.Fatal(err)
	}
	if len(w.records) != 3 || len(w.links) != 3 || len(w.open) != 3 {
		t.Errorf("left: records %v, links %v, open %v", w.records, w.links, w.open)
	}
}

func TestGCKeepsTheValidOnly(t *testing.T) {
	w := gcWorld(t)
	r := Request{Command: CommandGC, Config: NetConf{Name: "kith", ValidAttachments: []Key{request("b").Key, {ContainerID: "x", IfName: "eth0"}}}}
	if err := GC(t.Context(), w.deps(), r); err != nil {
		t.Fatal(err)
	}
	b := request("b").Key
	if len(w.records) != 1 || len(w.links) != 1 || !w.links[b.HostInterface()] || !w.open[b] {
		t.Errorf("left: records %v, links %v, open %v", w.records, w.links, w.open)
	}
}

func TestGCGoesOnAfterErrors(t *testing.T) {
	for n := 1; n <= 11; n++ {
		w := gcWorld(t)
		w.fail[n] = true
		err := GC(t.Context(), w.deps(), gcAll())
		if !errors.Is(err, errInjected) {
			t.Errorf("call %d fails: %v", n, err)
		}
		if len(w.records) > 1 {
			t.Errorf("call %d fails: %d records left", n, len(w.records))
		}
		w.fail = nil
		if err := GC(t.Context(), w.deps(), gcAll()); err != nil {
			t.Fatal(err)
		}
		w.empty(t)
	}
}

func TestStatus(t *testing.T) {
	tests := map[string]struct {
		change func(*world)
		code   uint
	}{
		"ready":     {func(*world) {}, 0},
		"not ready": {func(w *world) { w.notReady = errInjected }, 50},
		"full":      {func(w *world) { w.full = true }, 50},
		"degraded":  {func(w *world) { w.notReady = types.NewError(types.ErrLimitedConnectivity, "mesh down", "") }, 51},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			tt.change(w)
			got := ToError(Status(t.Context(), w.deps()))
			if got == nil && tt.code != 0 || got != nil && got.Code != tt.code {
				t.Errorf("got %v, want code %d", got, tt.code)
			}
		})
	}
}

func TestReconcileForgetsOnlyTheDead(t *testing.T) {
	w := newWorld()
	linked, sandboxed, dead := NewAttachment(request("linked"), 1), NewAttachment(request("a"), 1), NewAttachment(request("dead"), 1)
	for _, a := range []Attachment{linked, sandboxed, dead} {
		w.records[a.Key] = a
	}
	w.links[linked.HostInterface], w.links["kith-0123456789"] = true, true
	got, err := Reconcile(t.Context(), w.deps())
	if err != nil {
		t.Fatal(err)
	}
	want := Orphans{Released: []Attachment{dead}, Unknown: []string{"kith-0123456789"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if len(w.records) != 2 || len(w.links) != 2 {
		t.Errorf("left: %v %v", w.records, w.links)
	}
}
