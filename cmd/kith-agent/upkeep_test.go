package main

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kithnet/kith/cni"
)

// worn is a node's host sides and records, in memory.
type worn struct {
	mu       sync.Mutex
	sides    map[string]cni.HostSide
	records  map[cni.Key]cni.Attachment
	off      map[int]bool // families that are not forwarded
	ended    bool         // there is no sandbox
	err      error        // of Restore
	restored []time.Time
	changed  chan struct{}
	busy     bool // an operation runs
	ends     bool // a DEL ends before the attachment is held
	passes   int
}

func newWorn(a cni.Attachment) *worn {
	w := &worn{sides: map[string]cni.HostSide{}, records: map[cni.Key]cni.Attachment{a.Key: a}, off: map[int]bool{}, changed: make(chan struct{}, 1)}
	w.sides[a.HostInterface] = sideOf(a)
	return w
}

func sideOf(a cni.Attachment) cni.HostSide {
	h := cni.HostSide{Up: true, MAC: a.HostMAC, Settings: map[string]string{}, Routes: map[netip.Addr]bool{}, Neighbours: map[netip.Addr]cni.MAC{}}
	for _, s := range a.HostSettings() {
		h.Settings[s.Path(a.HostInterface)] = s.Value
	}
	for _, addr := range a.Addresses {
		h.Routes[addr], h.Neighbours[addr] = true, a.PodMAC
	}
	return h
}

func (w *worn) Read(context.Context) (map[string]cni.HostSide, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.passes++
	return maps.Clone(w.sides), nil
}

func (w *worn) Changed() <-chan struct{} { return w.changed }

func (w *worn) Restore(_ context.Context, a cni.Attachment) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.restored = append(w.restored, time.Now())
	if w.err != nil {
		return w.err
	}
	if _, there := w.sides[a.HostInterface]; !there {
		return cni.ErrNoInterface
	}
	w.sides[a.HostInterface] = sideOf(a)
	return nil
}

func (w *worn) SandboxExists(string) bool { return !of(w, func() bool { return w.ended }) }
func (w *worn) Forwards(family int) (bool, error) {
	return !of(w, func() bool { return w.off[family] }), nil
}
func (w *worn) ForwardIPv4() error { return w.forward(unix.AF_INET) }
func (w *worn) ForwardIPv6() error { return w.forward(unix.AF_INET6) }

func (w *worn) forward(family int) error {
	return of(w, func() error { w.off[family] = false; return w.err })
}

// of asks, or changes, a node that is looked at meanwhile.
func of[T any](w *worn, what func() T) T {
	w.mu.Lock()
	defer w.mu.Unlock()
	return what()
}

func (w *worn) do(what func()) { of(w, func() bool { what(); return true }) }

func (w *worn) times() int { return of(w, func() int { return len(w.restored) }) }

func (w *worn) Get(k cni.Key) (cni.Attachment, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	a, there := w.records[k]
	return a, there
}

func (w *worn) List() []cni.Attachment {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []cni.Attachment
	for _, a := range w.records {
		all = append(all, a)
	}
	return all
}

func (w *worn) hold(k cni.Key) (func(), bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ends {
		w.ends = false
		delete(w.records, k)
	}
	return func() {}, !w.busy
}

// wear takes the attachment's interface down, as others would.
func (w *worn) wear(a cni.Attachment) {
	w.mu.Lock()
	defer w.mu.Unlock()
	side := sideOf(a)
	side.Up = false
	w.sides[a.HostInterface] = side
	nudge(w.changed)
}

func wornPod() cni.Attachment {
	a := cni.NewAttachment(cni.Request{Key: cni.Key{ContainerID: "c", IfName: "eth0"}, Pod: cni.Pod{Namespace: "ns", Name: "a"}}, 1420)
	a.Addresses, a.Complete = []netip.Addr{netip.MustParseAddr("10.1.0.2")}, true
	return a
}

// keepingUp runs upkeep over the node within a bubble of its own time.
func keepingUp(t *testing.T, test func(t *testing.T, u *upkeep, w *worn, a cni.Attachment)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		a := wornPod()
		w := newWorn(a)
		u := newUpkeep(slog.New(slog.DiscardHandler), w, w)
		u.hold = w.hold
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- u.run(ctx, w) }()
		time.Sleep(time.Second)
		test(t, u, w, a)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestUpkeepPutsRight(t *testing.T) {
	keepingUp(t, func(t *testing.T, u *upkeep, w *worn, a cni.Attachment) {
		passes := func() int { return of(w, func() int { return w.passes }) }
		before := passes()
		time.Sleep(time.Hour)
		if n := passes() - before; n != 0 {
			t.Errorf("%d readings without an event", n)
		}
		w.wear(a)
		time.Sleep(time.Second)
		if w.times() != 1 || of(w, func() bool { return !w.sides[a.HostInterface].Up }) {
			t.Errorf("put right %d times within a second", w.times())
		}
		if p := u.Problems(); len(p) > 0 {
			t.Errorf("problems: %q", p)
		}
	})
}

func TestUpkeepForwards(t *testing.T) {
	keepingUp(t, func(t *testing.T, u *upkeep, w *worn, _ cni.Attachment) {
		off := func(family int) bool { return of(w, func() bool { return w.off[family] }) }
		w.do(func() { w.off[unix.AF_INET], w.off[unix.AF_INET6] = true, true })
		nudge(w.changed)
		time.Sleep(time.Second)
		if off(unix.AF_INET) {
			t.Error("the node does not forward IPv4")
		}
		if !off(unix.AF_INET6) {
			t.Error("the node forwards IPv6, which no pod has")
		}
		u.ipv6.Store(true)
		nudge(w.changed)
		time.Sleep(time.Second)
		if off(unix.AF_INET6) {
			t.Error("the node does not forward IPv6")
		}
	})
}

// TestUpkeepRevivesNobody: an attachment whose DEL ends between reading and restoring gets nothing back.
func TestUpkeepRevivesNobody(t *testing.T) {
	keepingUp(t, func(t *testing.T, u *upkeep, w *worn, a cni.Attachment) {
		w.do(func() { w.ends = true })
		w.wear(a)
		time.Sleep(time.Second)
		if of(w, func() bool { return w.ends }) || w.times() > 0 {
			t.Errorf("restored after its DEL %d times", w.times())
		}
	})
}

// TestUpkeepWaitsForOperations: while one runs on the attachment nothing is put right; when it has ended, it is.
func TestUpkeepWaitsForOperations(t *testing.T) {
	keepingUp(t, func(t *testing.T, u *upkeep, w *worn, a cni.Attachment) {
		w.do(func() { w.busy = true })
		w.wear(a)
		time.Sleep(time.Minute)
		if w.times() > 0 {
			t.Error("restored while an operation ran")
		}
		w.do(func() { w.busy = false })
		nudge(u.ended)
		time.Sleep(time.Second)
		if w.times() != 1 {
			t.Error("not restored after the operation")
		}
	})
}

// TestUpkeepDoesNotFight: who changes the same thing again and again is named, and costs little.
func TestUpkeepDoesNotFight(t *testing.T) {
	keepingUp(t, func(t *testing.T, u *upkeep, w *worn, a cni.Attachment) {
		for range 600 {
			w.wear(a)
			time.Sleep(time.Second)
		}
		if n := w.times(); n < undoneOften || n > 40 {
			t.Errorf("put right %d times in ten minutes", n)
		}
		if p := u.Problems(); len(p) != 1 || !strings.Contains(p[0], "pod ns/a ("+a.HostInterface+"): something on this node changes it again and again") {
			t.Errorf("problems: %q", p)
		}
		time.Sleep(undoneFor + undoneRest + time.Second)
		if p := u.Problems(); len(p) > 0 {
			t.Errorf("problems long after: %q", p)
		}
	})
}

// TestUpkeepSaysWhatItCannot: what cannot be put right is a problem until it is right, or its pod is gone.
func TestUpkeepSaysWhatItCannot(t *testing.T) {
	keepingUp(t, func(t *testing.T, u *upkeep, w *worn, a cni.Attachment) {
		w.do(func() { w.err = errors.New("read-only file system") })
		w.wear(a)
		time.Sleep(time.Minute)
		if p := u.Problems(); len(p) != 1 || !strings.Contains(p[0], "the interface is down, and cannot be put right: read-only file system") {
			t.Errorf("problems: %q", p)
		}
		w.do(func() { w.err = nil })
		time.Sleep(time.Minute) // it is tried again without an event
		if p := u.Problems(); len(p) != 1 || !strings.Contains(p[0], "again and again") {
			t.Errorf("problems after: %q", p)
		}
		w.do(func() { delete(w.records, a.Key) })
		nudge(u.ended)
		time.Sleep(time.Second)
		if p := u.Problems(); len(p) > 0 {
			t.Errorf("problems of a pod that is gone: %q", p)
		}
	})
}

// TestUpkeepMissesAnInterface: an interface that somebody removed is said, unless the sandbox has ended.
func TestUpkeepMissesAnInterface(t *testing.T) {
	keepingUp(t, func(t *testing.T, u *upkeep, w *worn, a cni.Attachment) {
		for _, ended := range []bool{true, false} {
			w.do(func() { w.ended = ended; delete(w.sides, a.HostInterface) })
			nudge(w.changed)
			time.Sleep(time.Second)
			p := u.Problems()
			if said := len(p) == 1 && strings.Contains(p[0], "removed its interface"); said == ended {
				t.Errorf("sandbox ended %v: problems: %q", ended, p)
			}
		}
		w.do(func() { delete(w.records, a.Key) })
		nudge(u.ended)
		time.Sleep(time.Second)
		if p := u.Problems(); len(p) > 0 {
			t.Errorf("problems of a pod that is gone: %q", p)
		}
	})
}
