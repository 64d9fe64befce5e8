package kube

import (
	"fmt"
	"sync"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/tools/cache"
)

// feed is what a reflector takes for its store. It keeps nothing and hands everything on.
type feed[T any, K any] struct {
	convert func(any) (T, error)
	key     func(T) K
	emit    func(Change[T, K])
	slim    cache.TransformFunc
	given   *progress
	once    sync.Once
	synced  chan struct{}
}

func newFeed[T any, K any](convert func(any) (T, error), key func(T) K, emit func(Change[T, K]), slim cache.TransformFunc) *feed[T, K] {
	return &feed[T, K]{convert: convert, key: key, emit: emit, slim: slim, given: newProgress(), synced: make(chan struct{})}
}

func (f *feed[T, K]) hasSynced() bool {
	select {
	case <-f.synced:
		return true
	default:
		return false
	}
}

// Add hands on a new object.
func (f *feed[T, K]) Add(obj any) error { return f.Update(obj) }

// Update hands on a changed object.
func (f *feed[T, K]) Update(obj any) error {
	t, err := f.convert(obj)
	if err != nil {
		return err
	}
	f.emit(Change[T, K]{Put: []T{t}})
	return f.note(obj)
}

// Delete hands on that an object went.
func (f *feed[T, K]) Delete(obj any) error {
	t, err := f.convert(obj)
	if err != nil {
		return err
	}
	f.emit(Change[T, K]{Delete: []K{f.key(t)}})
	return f.note(obj)
}

// note says that a change has been handed on. It comes after emit: who waits for it finds the change there.
func (f *feed[T, K]) note(obj any) error {
	object, err := meta.Accessor(obj)
	if err != nil {
		return fmt.Errorf("take version: %w", err)
	}
	f.given.set(object.GetResourceVersion())
	return nil
}

// Replace hands on everything that there is.
func (f *feed[T, K]) Replace(objs []any, version string) error {
	c := Change[T, K]{All: true, Put: make([]T, 0, len(objs))}
	for _, o := range objs {
		t, err := f.convert(o)
		if err != nil {
			return fmt.Errorf("take list: %w", err)
		}
		c.Put = append(c.Put, t)
	}
	f.emit(c)
	f.given.set(version)
	f.once.Do(func() { close(f.synced) })
	return nil
}

// Resync does nothing: nothing is kept.
func (f *feed[T, K]) Resync() error { return nil }

// Transformer makes objects small where the reflector itself keeps them for a while.
func (f *feed[T, K]) Transformer() cache.TransformFunc { return f.slim }
