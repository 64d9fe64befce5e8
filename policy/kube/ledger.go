package kube

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/resourceversion"
)

const (
	firstLook = 100 * time.Millisecond
	lastLook  = 2 * time.Second
)

// ledger remembers which version of each object the sink has been given, by namespace and name. Objects of the
// cluster are in the namespace "".
type ledger struct {
	mu     sync.Mutex
	spaces map[string]map[string]string
	moved  chan struct{} // closed when anything changes
}

func newLedger() *ledger {
	return &ledger{spaces: map[string]map[string]string{}, moved: make(chan struct{})}
}

// put and delete come after the sink: who waits for them finds the change there.
func (l *ledger) put(namespace, name, version string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.spaces[namespace] == nil {
		l.spaces[namespace] = map[string]string{}
	}
	l.spaces[namespace][name] = version
	l.move()
}

func (l *ledger) delete(namespace, name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.spaces[namespace], name)
	if len(l.spaces[namespace]) == 0 {
		delete(l.spaces, namespace)
	}
	l.move()
}

func (l *ledger) move() {
	close(l.moved)
	l.moved = make(chan struct{})
}

// inventory is what there is of a kind in a namespace: each object's version by name, and the version of the whole.
type inventory struct {
	versions map[string]string
	version  string
}

// inventories are those of several namespaces. Where all are meant, a namespace without an inventory has no objects.
type inventories struct {
	spaces  map[string]inventory
	version string
	all     bool
}

func (i inventories) of(namespace string) inventory {
	if one, ok := i.spaces[namespace]; ok {
		return one
	}
	return inventory{version: i.version}
}

// behind names an object that the sink does not yet have as the inventories say, or "". moved is closed when that may be
// otherwise.
func (l *ledger) behind(now inventories) (object string, moved <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for namespace, there := range now.spaces {
		if name := late(l.spaces[namespace], there); name != "" {
			return namespace + "/" + name, l.moved
		}
	}
	if !now.all {
		return "", l.moved
	}
	for namespace, given := range l.spaces {
		if name := late(given, now.of(namespace)); name != "" {
			return namespace + "/" + name, l.moved
		}
	}
	return "", l.moved
}

// late names an object of a namespace that has not been given as an inventory says, or "".
func late(given map[string]string, now inventory) string {
	for name, version := range now.versions {
		if older(given[name], version) {
			return name
		}
	}
	for name, version := range given {
		if _, there := now.versions[name]; !there && older(version, now.version) {
			return name
		}
	}
	return ""
}

func older(have, want string) bool {
	order, err := resourceversion.CompareResourceVersion(have, want)
	return err != nil || order < 0
}

// ErrBehind is why something that the API server has was not given in time: the watch did not bring it.
var ErrBehind = errors.New("the watch is behind")

// catchUp returns when the sink has been given all that take finds. It takes again now and then: an object that went after
// the first look is not waited for.
func (l *ledger) catchUp(ctx context.Context, take func(context.Context) (inventories, error)) error {
	for patience := firstLook; ; patience = min(2*patience, lastLook) {
		now, err := take(ctx)
		if err != nil {
			return err
		}
		object, err := l.await(ctx, now, patience)
		if err != nil {
			return fmt.Errorf("%w: it has not brought %s as new as the API server has it: %w", ErrBehind, object, err)
		}
		if object == "" {
			return nil
		}
	}
}

// await returns what is still behind after some time.
func (l *ledger) await(ctx context.Context, now inventories, patience time.Duration) (string, error) {
	expired := time.After(patience)
	for {
		object, moved := l.behind(now)
		if object == "" {
			return "", nil
		}
		select {
		case <-moved:
		case <-expired:
			return object, nil
		case <-ctx.Done():
			return object, context.Cause(ctx)
		}
	}
}
