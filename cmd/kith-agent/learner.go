package main

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/kithnet/kith/policy/dns"
	"github.com/kithnet/kith/policy/dns/tap"
	"github.com/kithnet/kith/policy/ruleset"
)

const (
	// grace is how much longer than an answer says an address is believed: a pod takes its time from asking to connecting.
	grace = time.Minute
	// longestBelief bounds that.
	longestBelief = 24 * time.Hour
)

// pupil puts elements into the kernel, each for so long, and takes them out.
type pupil interface {
	Learn(context.Context, map[ruleset.ElementChange]time.Duration) error
	Forget([]ruleset.ElementChange) error
}

// ear hears what name servers answer to some pods.
type ear interface {
	Listen(tap.Audience) error
	Run(context.Context) error
	Close() error
}

// learner teaches the kernel what names stand for, as each pod is told it. On a node without pods whose policies name
// domains it does nothing at all.
type learner struct {
	log    *slog.Logger
	pupil  pupil
	open   func(tap.Hear) (ear, error)
	passed *passed
	asked  chan struct{} // signals that somebody is to be heard

	mu        sync.Mutex
	listeners map[netip.Addr]ruleset.Listener
	servers   tap.Audience // without those who listen
	ear       ear
	deaf      func()              // ends the Run of the ear
	told      map[string]*lessons // by the pod's interface
	held      map[string]int      // how much of each set they hold together
}

func newLearner(log *slog.Logger, p pupil) *learner {
	passed := &passed{log: log, at: map[tap.Unheard]time.Time{}}
	open := func(hear tap.Hear) (ear, error) { return tap.Open(log, hear, passed.note) }
	return &learner{log: log, pupil: p, open: open, passed: passed, asked: make(chan struct{}, 1),
		servers: tap.Audience{AnyServer: true}, told: map[string]*lessons{}, held: map[string]int{}}
}

// listen hears exactly these from now on.
func (l *learner) listen(to map[netip.Addr]ruleset.Listener) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if reflect.DeepEqual(to, l.listeners) || len(to)+len(l.listeners) == 0 {
		return
	}
	for a, was := range l.listeners {
		if to[a].Interface != was.Interface {
			l.forget(was.Interface)
		}
	}
	l.listeners = to
	l.attune()
}

// trust hears the answers of these servers from now on. Before it was called, all are heard.
func (l *learner) trust(servers tap.Audience) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if reflect.DeepEqual(servers, l.servers) {
		return
	}
	l.servers = servers
	l.attune()
}

// attune has the ear hear whom it should. It is opened when there is somebody to hear, and closed when there is not.
func (l *learner) attune() {
	switch {
	case l.ear == nil:
		nudge(l.asked)
	case len(l.listeners) == 0:
		l.stop()
	default:
		if err := l.tune(l.ear); err != nil {
			l.log.Error("domain names not learned for all pods: hearing anew", "error", err)
			l.stop()
			nudge(l.asked)
		}
	}
}

// stop has the ear closed.
func (l *learner) stop() {
	l.deaf()
	l.ear = nil
}

// forget: the next pod at an address was told nothing yet.
func (l *learner) forget(pod string) {
	known := l.told[pod]
	if known == nil {
		return
	}
	if err := l.pupil.Forget(slices.Collect(maps.Keys(known.told))); err != nil {
		l.log.Error("what a pod was told stays until its time is over", "interface", pod, "error", err)
	}
	for e := range known.told {
		known.drop(e)
	}
	delete(l.told, pod)
}

func (l *learner) tune(e ear) error {
	a := l.servers
	a.Pods = slices.Collect(maps.Keys(l.listeners))
	return e.Listen(a)
}

// run hears while there are listeners. Without it nothing else of the agent stops: pods reach what they were told
// before, and no new names.
func (l *learner) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.asked:
		}
		for ctx.Err() == nil && l.wanted() {
			if err := ignoreEnd(ctx, l.attend(ctx)); err != nil {
				l.log.Error("domain names not learned for a moment", "error", err)
			}
		}
	}
}

func (l *learner) wanted() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.listeners) > 0
}

// attend hears until the ear fails or ctx ends.
func (l *learner) attend(ctx context.Context) error {
	ctx, deaf := context.WithCancel(ctx)
	defer deaf()
	e, err := persist(ctx, l.log, "name servers' answers", func() (ear, error) { return l.start(deaf) })
	if err != nil {
		return err
	}
	err = e.Run(ctx)
	l.mu.Lock()
	l.ear = nil
	l.mu.Unlock()
	return errors.Join(err, e.Close())
}

// start opens an ear that hears all who are to be heard.
func (l *learner) start(deaf func()) (ear, error) {
	e, err := l.open(l.hear)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.tune(e); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	l.ear, l.deaf = e, deaf
	return e, nil
}

// hear is called before the pod has the answer.
func (l *learner) hear(ctx context.Context, pod netip.Addr, told []dns.Telling) {
	l.mu.Lock()
	defer l.mu.Unlock()
	listener, listens := l.listeners[pod]
	if !listens {
		return
	}
	now := time.Now()
	known := l.told[listener.Interface]
	if known == nil {
		known = newLessons(now, l.held)
		l.told[listener.Interface] = known
	}
	fresh := map[ruleset.ElementChange]time.Duration{}
	for _, t := range told {
		lifetime := min(t.TTL, longestBelief) + grace
		for _, e := range listener.Lessons(t.Name, t.Address) {
			if !known.room(e, now) || !l.share(known, e, now) {
				known.refused++
			} else if rest, teach := known.note(e, now, lifetime); teach {
				fresh[e] = rest
			}
		}
	}
	known.complain(l.log, pod, now)
	if err := l.teach(ctx, known, fresh); err != nil {
		l.log.Error("domain names not learned", "pod", pod, "error", err)
	}
}

// remind teaches again what sets have lost, for the time that is left. Answers that come meanwhile wait for one pod's.
func (l *learner) remind(ctx context.Context, lost func(set string) bool) {
	l.mu.Lock()
	byPod := map[string]ruleset.Listener{}
	for _, listener := range l.listeners {
		byPod[listener.Interface] = listener
	}
	l.mu.Unlock()
	for pod, listener := range byPod {
		if err := l.remindOne(ctx, listener, lost); err != nil {
			l.log.Error("domain names not learned again", "interface", pod, "error", err)
		}
	}
}

func (l *learner) remindOne(ctx context.Context, listener ruleset.Listener, lost func(set string) bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	known := l.told[listener.Interface]
	if known == nil {
		return nil
	}
	named := map[string]bool{}
	for _, d := range listener.Domains {
		for _, own := range listener.Addresses {
			named[ruleset.Told(d, own, own).Set] = true
		}
	}
	return l.teach(ctx, known, known.again(time.Now(), lost, named))
}

// teach has the kernel learn some of what a pod was told, each for so long.
func (l *learner) teach(ctx context.Context, known *lessons, fresh map[ruleset.ElementChange]time.Duration) error {
	if err := l.pupil.Learn(ctx, fresh); err != nil {
		return err
	}
	for e := range fresh {
		known.learned(e)
	}
	return nil
}
