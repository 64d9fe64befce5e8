package kube

import (
	"context"
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

// behind names an object that the sink does not yet have as an inventory says, or "". moved is closed when that may be
// otherwise.
func (l *ledger) behind(namespace string, now inventory) (object string, moved <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	given := l.spaces[namespace]
	for name, version := range now.versions {
		if older(given[name], version) {
			return name, l.moved
		}
	}
	for name, version := range given {
		if _, there := now.versions[name]; !there && older(version, now.version) {
			return name, l.moved
		}
	}
	return "", l.moved
}

func older(have, want string) bool {
	order, err := resourceversion.CompareResourceVersion(have, want)
	return err != nil || order < 0
}

// catchUp returns when the sink has been given all that take finds in a namespace. It takes again now and then: an
// object that went after the first look is not waited for.
func (l *ledger) catchUp(ctx context.Context, namespace string, take func(context.Context) (inventory, error)) error {
	for patience := firstLook; ; patience = min(2*patience, lastLook) {
		now, err := take(ctx)
		if err != nil {
			return err
		}
		object, err := l.await(ctx, namespace, now, patience)
		if err != nil {
			return fmt.Errorf("wait for the watch to bring %s/%s as new as the API has it: %w", namespace, object, err)
		}
		if object == "" {
			return nil
		}
	}
}

// await returns what is still behind after some time.
func (l *ledger) await(ctx context.Context, namespace string, now inventory, patience time.Duration) (string, error) {
	expired := time.After(patience)
	for {
		object, moved := l.behind(namespace, now)
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
