package server

import (
	"context"
	"fmt"
	"math"
	"sync"

	"golang.org/x/sync/semaphore"
)

// locks lets one operation per container run, or one alone.
type locks struct {
	everyone *semaphore.Weighted
	// ended is called after each operation.
	ended func()
	mu    sync.Mutex
	busy  map[string]*containerLock
}

type containerLock struct {
	held  chan struct{}
	users int
}

func newLocks(ended func()) *locks {
	return &locks{everyone: semaphore.NewWeighted(math.MaxInt64), ended: ended, busy: map[string]*containerLock{}}
}

// container waits until nothing else runs for this container, and returns how to let go.
func (l *locks) container(ctx context.Context, id string) (unlock func(), err error) {
	if err := l.everyone.Acquire(ctx, 1); err != nil {
		return nil, fmt.Errorf("wait for GC to end: %w", err)
	}
	lock := l.use(id)
	select {
	case lock.held <- struct{}{}:
	case <-ctx.Done():
		l.leave(id, lock)
		l.everyone.Release(1)
		return nil, fmt.Errorf("wait for another operation of container %s: %w", id, ctx.Err())
	}
	return func() { l.release(id, lock); l.ended() }, nil
}

// try is container for who will not wait, and is no operation.
func (l *locks) try(id string) (unlock func(), free bool) {
	if !l.everyone.TryAcquire(1) {
		return nil, false
	}
	lock := l.use(id)
	select {
	case lock.held <- struct{}{}:
	default:
		l.leave(id, lock)
		l.everyone.Release(1)
		return nil, false
	}
	return func() { l.release(id, lock) }, true
}

func (l *locks) release(id string, lock *containerLock) {
	<-lock.held
	l.leave(id, lock)
	l.everyone.Release(1)
}

// all waits until nothing runs, and keeps everything from running until let go.
func (l *locks) all(ctx context.Context) (unlock func(), err error) {
	if err := l.everyone.Acquire(ctx, math.MaxInt64); err != nil {
		return nil, fmt.Errorf("wait for other operations to end: %w", err)
	}
	return func() { l.everyone.Release(math.MaxInt64); l.ended() }, nil
}

func (l *locks) use(id string) *containerLock {
	l.mu.Lock()
	defer l.mu.Unlock()
	lock, ok := l.busy[id]
	if !ok {
		lock = &containerLock{held: make(chan struct{}, 1)}
		l.busy[id] = lock
	}
	lock.users++
	return lock
}

func (l *locks) leave(id string, lock *containerLock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	lock.users--
	if lock.users == 0 {
		delete(l.busy, id)
	}
}
