package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/kithnet/kith/cni"
	"github.com/kithnet/kith/cni/server"
)

const (
	// upkeepPause and upkeepLongest are between two readings of all host sides: what changes meanwhile is read together. In
	// between a pause is upkeepShare times what the last reading took, for nodes with many pods that come and go.
	upkeepPause, upkeepLongest = 100 * time.Millisecond, 500 * time.Millisecond
	upkeepShare                = 10
	// undoneOften is how often the same thing is put right at once. Then somebody puts it wrong, and pauses grow.
	undoneOften = 10
	// undoneRest is the longest of these pauses.
	undoneRest = 30 * time.Second
	// undoneFor is how long it is remembered, and said, that something was put right.
	undoneFor = 10 * time.Minute
)

// hostSides is the node's end of pods' interfaces.
type hostSides interface {
	Restore(context.Context, cni.Attachment) error
	SandboxExists(netns string) bool
	Forwards(family int) (bool, error)
	ForwardIPv4() error
	ForwardIPv6() error
}

// sidesReader reads host sides, and signals when one may have changed.
type sidesReader interface {
	Read(context.Context) (map[string]cni.HostSide, error)
	Changed() <-chan struct{}
}

// attachmentRecords is what the node knows of its attachments.
type attachmentRecords interface {
	Get(cni.Key) (cni.Attachment, bool)
	List() []cni.Attachment
}

// upkeep puts right what others on the node undo of pods' interfaces and of forwarding, by event.
type upkeep struct {
	log     *slog.Logger
	links   hostSides
	records attachmentRecords
	// hold keeps CNI operations on an attachment waiting, unless one runs: ended signals its end.
	hold  func(cni.Key) (release func(), free bool)
	ended chan struct{}
	ipv6  atomic.Bool // pods have IPv6

	mu   sync.Mutex
	seen map[string]undone // by what it is of
}

// undone is what was not as it must be of one thing.
type undone struct {
	attachment cni.Key // none: of the node
	times      int
	last       time.Time
	// problem is what is not put right, empty if all is.
	problem string
}

// due is when the thing may be put right again.
func (u undone) due() time.Time {
	if u.times < undoneOften {
		return time.Time{}
	}
	return u.last.Add(min(time.Second<<min(u.times-undoneOften, 10), undoneRest))
}

func newUpkeep(log *slog.Logger, links hostSides, records attachmentRecords) *upkeep {
	return &upkeep{log: log, links: links, records: records, ended: make(chan struct{}, 1), seen: map[string]undone{}}
}

// keepSides is the agent's task.
func (a *agent) keepSides(ctx context.Context, s *server.Server) error {
	watch, err := a.links.Watch()
	if err != nil {
		return err
	}
	defer func() { _ = watch.Close() }()
	a.upkeep.hold = s.TryHold
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return watch.Run(ctx) })
	g.Go(func() error { return a.upkeep.run(ctx, watch) })
	return g.Wait()
}

func (u *upkeep) run(ctx context.Context, sides sidesReader) error {
	for {
		began := time.Now()
		again := u.pass(ctx, sides)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(min(max(upkeepShare*time.Since(began), upkeepPause), upkeepLongest)):
		}
		var retry <-chan time.Time
		if !again.IsZero() {
			retry = time.After(time.Until(again))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-sides.Changed():
		case <-u.ended:
		case <-retry:
		}
	}
}

// pass puts right what is wrong, and returns when to try again what waits or failed.
func (u *upkeep) pass(ctx context.Context, sides sidesReader) (again time.Time) {
	later := func(at time.Time) {
		if !at.IsZero() && (again.IsZero() || at.Before(again)) {
			again = at
		}
	}
	later(u.forward(unix.AF_INET, "net.ipv4.ip_forward", u.links.ForwardIPv4))
	if u.ipv6.Load() {
		later(u.forward(unix.AF_INET6, "net.ipv6.conf.all.forwarding", u.links.ForwardIPv6))
	}
	has, err := sides.Read(ctx)
	if err != nil {
		if ctx.Err() == nil {
			u.log.Error("pods' interfaces are not compared with what they must be", "error", err)
		}
		later(time.Now().Add(undoneRest))
		return again
	}
	damages := cni.Damages(u.records.List(), has)
	u.forget(damages)
	for _, d := range damages {
		later(u.restore(ctx, d))
	}
	return again
}

// forward puts the node's forwarding of a family right.
func (u *upkeep) forward(family int, name string, set func() error) (again time.Time) {
	on, err := u.links.Forwards(family)
	if err == nil && on {
		u.right(name)
		return time.Time{}
	}
	if due := u.get(name).due(); time.Now().Before(due) {
		return due
	}
	if err == nil {
		err = set()
	}
	return u.note(name, cni.Key{}, name+" is 0, not 1", err)
}

// restore puts one host side right. Whether the attachment is still there is asked while no operation can end it: its
// route must not come back after its DEL.
func (u *upkeep) restore(ctx context.Context, d cni.Damage) (again time.Time) {
	name := nameOf(d.Attachment)
	if due := u.get(name).due(); time.Now().Before(due) {
		return due
	}
	release, free := u.hold(d.Attachment.Key)
	if !free {
		return time.Time{}
	}
	defer release()
	a, there := u.records.Get(d.Attachment.Key)
	if !there || !a.Complete {
		return time.Time{}
	}
	err := u.links.Restore(ctx, a)
	if errors.Is(err, cni.ErrNoInterface) {
		u.miss(name, a)
		return time.Time{}
	}
	return u.note(name, a.Key, strings.Join(d.Differences, "; "), err)
}

// miss notes that a pod has no interface any more. That of a sandbox which has ended goes by itself, before its DEL.
func (u *upkeep) miss(name string, a cni.Attachment) {
	if !u.links.SandboxExists(a.Netns) {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.seen[name].problem == "" {
		u.log.Warn("a pod's interface was removed: the pod reaches nobody until it is deleted", "what", name)
	}
	u.seen[name] = undone{
		attachment: a.Key, last: time.Now(),
		problem: name + ": somebody on this node removed its interface: delete the pod, so that it is made with a new one",
	}
}

// right notes that something is as it must be.
func (u *upkeep) right(name string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if n, there := u.seen[name]; there {
		n.problem = ""
		u.seen[name] = n
	}
}

// note remembers that something was put right, or that it could not be, and says when to look again.
func (u *upkeep) note(name string, of cni.Key, what string, err error) (again time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	n := u.seen[name]
	n.attachment, n.times, n.last, n.problem = of, n.times+1, time.Now(), ""
	if err != nil {
		n.problem = fmt.Sprintf("%s: %s, and cannot be put right: %v", name, what, err)
	}
	u.seen[name] = n
	u.log.Warn("somebody on this node changed what pods need", "of", name, "what", what, "put right", err == nil, "error", err)
	if again = n.last.Add(upkeepPause); err != nil {
		again = n.last.Add(time.Second)
	}
	if due := n.due(); again.Before(due) {
		again = due
	}
	return again
}

func (u *upkeep) get(name string) undone {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.seen[name]
}

// forget drops what was put right long ago, and all of attachments that are gone; what is no more wrong is no problem.
func (u *upkeep) forget(damages []cni.Damage) {
	wrong, known := map[string]bool{}, map[cni.Key]bool{{}: true}
	for _, d := range damages {
		wrong[nameOf(d.Attachment)] = true
	}
	for _, a := range u.records.List() {
		known[a.Key] = true
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for name, n := range u.seen {
		if n.attachment != (cni.Key{}) && !wrong[name] {
			n.problem = ""
			u.seen[name] = n
		}
		if !known[n.attachment] || n.problem == "" && time.Since(n.last) > undoneFor {
			delete(u.seen, name)
		}
	}
}

// Problems are what is not as pods need it, or does not stay so, sorted.
func (u *upkeep) Problems() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	var out []string
	for _, name := range slices.Sorted(maps.Keys(u.seen)) {
		switch n := u.seen[name]; {
		case n.problem != "":
			out = append(out, n.problem)
		case n.times > undoneOften && time.Since(n.last) < undoneFor:
			out = append(out, fmt.Sprintf("%s: something on this node changes it again and again (%d times): see the agent's log for what, "+
				"and leave interfaces kith* to Kith (systemd-networkd: ManageForeignRoutes=no; NetworkManager: unmanaged-devices; sysctl files)", name, n.times))
		}
	}
	return out
}

func nameOf(a cni.Attachment) string {
	return fmt.Sprintf("pod %s/%s (%s)", a.Pod.Namespace, a.Pod.Name, a.HostInterface)
}

// forward turns on IPv6 forwarding where pods have IPv6. A node that pods have no IPv6 on keeps its own setting.
func (a *agent) forward(cidrs []netip.Prefix) error {
	for _, cidr := range cidrs {
		if cidr.Addr().Is6() {
			a.upkeep.ipv6.Store(true)
			return a.links.ForwardIPv6()
		}
	}
	return nil
}
